//! The domains that root lets the agent have, beside every `<network>.internal` that nobody else uses: the agent says itself what its network's
//! domain is, and whoever has it in his hands could have `example.com` sent to him.
//!
//! `init` and `join` write a domain down when root runs them, `leave` takes it away; a person may write it too.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::{file, whole, wish};
use crate::ids::ZONES_IN_USE;

/// The folder, below `/etc`.
const FOLDER: &str = "webmesh";

/// The file: one domain a line; what stands after `#` is a person's.
const NAME: &str = "domains";

/// Whether the host may send names under `domain` to the agent.
pub(super) fn allow(etc: &Path, domain: &str) -> bool {
    needs_no_word(domain) || read(etc).iter().any(|line| domain_in(line) == domain)
}

/// Lets the agent have `domain` from now on. One that needs no word is not written down.
///
/// # Errors
/// It may not have it: it is no domain, or the folder takes no file.
pub(super) fn add(etc: &Path, domain: &str) -> io::Result<()> {
    if allow(etc, domain) {
        return Ok(());
    }
    // The agent said it, and this is a file of root's.
    if !wish::is_domain(domain) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    fs::create_dir_all(etc.join(FOLDER))?;
    let mut lines = read(etc);
    lines.push(domain.to_owned());
    write(etc, &lines)
}

/// The agent is to have `domain` no longer.
///
/// # Errors
/// It still may.
pub(super) fn remove(etc: &Path, domain: &str) -> io::Result<()> {
    let mut lines = read(etc);
    let before = lines.len();
    lines.retain(|line| domain_in(line) != domain);
    if lines.len() == before {
        return Ok(());
    }
    if !lines.is_empty() {
        return write(etc, &lines);
    }
    whole::remove(&etc.join(FOLDER).join(NAME))?;
    // Where nothing else was ever put there: an agent that came without a package.
    let _has_more = fs::remove_dir(etc.join(FOLDER));
    Ok(())
}

/// Whose a domain is, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The network's own name under `.internal`.
    Own,
    /// What its founder chose; it may be somebody's.
    Chosen,
    /// Under `.internal`, and used by programs that run on many hosts.
    InUse,
}

/// What a network called `name` claims with `domain`.
pub fn claim(name: &str, domain: &str) -> Claim {
    let below = domain.strip_suffix(".internal");
    let zone = below.map(|below| below.rsplit('.').next().unwrap_or(below));
    if zone.is_some_and(|zone| ZONES_IN_USE.contains(&zone)) {
        Claim::InUse
    } else if below == Some(name) {
        Claim::Own
    } else {
        Claim::Chosen
    }
}

/// `.internal` is nobody's but for some zones, and a network's own name stands before it.
fn needs_no_word(domain: &str) -> bool {
    let name = domain.strip_suffix(".internal").unwrap_or_default();
    !name.is_empty() && !name.contains('.') && !ZONES_IN_USE.contains(&name)
}

/// The lines; none where others than root can write them.
fn read(etc: &Path) -> Vec<String> {
    let folder = etc.join(FOLDER);
    let is_root_s = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|metadata| {
            let owner = metadata.uid();
            let is_owner = owner == 0 || owner == nix::unistd::geteuid().as_raw();
            is_owner && metadata.mode() & 0o022 == 0 && !metadata.is_symlink()
        })
    };
    if !is_root_s(&folder) || !is_root_s(&folder.join(NAME)) {
        return Vec::new();
    }
    let text = file::read_short(&folder.join(NAME)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn write(etc: &Path, lines: &[String]) -> io::Result<()> {
    let mut text = lines.join("\n");
    text.push('\n');
    whole::replace(&etc.join(FOLDER), NAME, text.as_bytes())
}

fn domain_in(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::host_dns::scratch::Scratch;

    #[test]
    fn every_network_s_own_internal_name_is_free_and_nothing_else() {
        let etc = Scratch::new("domains-free");
        assert!(allow(&etc, "home.internal"));
        for domain in [
            "mesh.example.com",
            "example.com",
            "corp.home.internal",
            ".internal",
            "internal",
            "homeinternal",
            "home.internal.example.com",
            "docker.internal",
            "google.internal",
        ] {
            assert!(!allow(&etc, domain), "{domain}");
        }
        add(&etc, "home.internal").unwrap();
        assert!(!etc.join(FOLDER).exists(), "nothing is written for it");
    }

    #[test]
    fn what_a_network_claims_is_its_own_name_or_another_s() {
        for (name, domain, expected) in [
            ("home", "home.internal", Claim::Own),
            ("home", "work.internal", Claim::Chosen),
            ("home", "corp.home.internal", Claim::Chosen),
            ("home", "example.com", Claim::Chosen),
            ("home", "homeinternal", Claim::Chosen),
            ("docker", "docker.internal", Claim::InUse),
            ("home", "docker.internal", Claim::InUse),
            ("home", "host.docker.internal", Claim::InUse),
        ] {
            assert_eq!(claim(name, domain), expected, "{name} {domain}");
        }
    }

    #[test]
    fn a_domain_is_added_once_and_goes_with_what_was_made_for_it() {
        let etc = Scratch::new("domains");
        let file = etc.join("webmesh/domains");
        add(&etc, "mesh.example.com").unwrap();
        add(&etc, "mesh.example.com").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "mesh.example.com\n");
        assert!(allow(&etc, "mesh.example.com") && !allow(&etc, "example.com"));
        fs::write(&file, "# by hand\n mesh.example.com  # ours\n").unwrap();
        add(&etc, "b.example.org").unwrap();
        remove(&etc, "mesh.example.com").unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "# by hand\nb.example.org\n"
        );
        fs::write(&file, "b.example.org\n").unwrap();
        remove(&etc, "b.example.org").unwrap();
        assert!(!etc.join(FOLDER).exists());
        remove(&etc, "b.example.org").unwrap();
        assert!(add(&etc, "mesh.example.com\n# more").is_err());
        assert!(!etc.join(FOLDER).exists());
    }

    #[test]
    fn a_file_that_others_can_write_says_nothing() {
        let etc = Scratch::new("domains-open");
        let file = etc.join("webmesh/domains");
        add(&etc, "mesh.example.com").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(!allow(&etc, "mesh.example.com"));
        fs::remove_file(&file).unwrap();
        fs::write(etc.join("theirs"), "mesh.example.com\n").unwrap();
        symlink(etc.join("theirs"), &file).unwrap();
        assert!(!allow(&etc, "mesh.example.com"));
    }
}
