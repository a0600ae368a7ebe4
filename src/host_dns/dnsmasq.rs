//! What dnsmasq is told: our zones go to our resolver, in a file of our own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{whole, wish::Wish};

/// Whether a file is another now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// It is.
    Changed,
    /// It was so before.
    Same,
}

const HEAD: &str = "# Written by webmesh while its network is up; gone when it is down.\n";

/// The text for a wish.
pub(super) fn text(wish: &Wish) -> String {
    let mut text = HEAD.to_owned();
    for zone in wish.zones() {
        for server in &wish.servers {
            text.push_str(&format!("server=/{zone}/{server}\n"));
        }
        // Answers in private ranges are what these zones are for.
        text.push_str(&format!("rebind-domain-ok=/{zone}/\n"));
    }
    text
}

/// Writes the file, if its folder is there.
pub(super) fn write(file: &Path, wish: &Wish) -> io::Result<File> {
    let text = text(wish);
    if fs::read_to_string(file).is_ok_and(|standing| standing == text) {
        return Ok(File::Same);
    }
    let mut draft: PathBuf = file.to_owned();
    // dnsmasq passes over names that end in a tilde or begin with a dot.
    draft.set_file_name(".webmesh.conf~");
    whole::write_draft(&draft, text.as_bytes())?;
    fs::rename(draft, file)?;
    Ok(File::Changed)
}

/// Removes the file.
pub(super) fn remove(file: &Path) -> io::Result<File> {
    match fs::remove_file(file) {
        Ok(()) => Ok(File::Changed),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(File::Same)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_dns::{scratch::Scratch, wish::tests::good};

    #[test]
    fn the_file_holds_our_zones_alone_and_goes() {
        let folder = Scratch::new("dnsmasq");
        let file = folder.join("webmesh.conf");
        assert_eq!(write(&file, &good()).unwrap(), File::Changed);
        assert_eq!(write(&file, &good()).unwrap(), File::Same);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("server=/home.internal/100.71.255.53\n"));
        assert!(text.contains("server=/71.100.in-addr.arpa/fd7c:1a2b:3c4d::53\n"));
        let strange = |line: &&str| {
            !line.starts_with('#') && !line.contains("internal/") && !line.contains(".arpa/")
        };
        assert_eq!(text.lines().filter(strange).count(), 0, "{text}");
        assert_eq!(remove(&file).unwrap(), File::Changed);
        assert_eq!(remove(&file).unwrap(), File::Same);
        assert_eq!(fs::read_dir(&*folder).unwrap().count(), 0);
    }
}
