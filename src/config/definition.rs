//! Services that the owner of this machine defines in files: `services.d/*.toml` (design §10).
//!
//! A file is read if root alone can have written it: what stands in it may name targets on other machines. A file that
//! cannot be used is one fault with its line, and takes nothing away from the others.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use super::{line_of, plain};
use crate::api::PortSpec;

/// What a folder of definitions holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    /// The services, in the order of the files' names and of their own.
    pub services: Vec<Definition>,
    /// Files of which nothing is used, each with the reason: `file:line: what`.
    pub faults: Vec<(PathBuf, String)>,
}

/// One service of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The file.
    pub file: PathBuf,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// The service's name.
    pub name: String,
    /// The port others dial.
    pub port: PortSpec,
    /// Where the program listens, on this machine or another; None: on the mesh address at the port.
    pub target: Option<SocketAddr>,
    /// Tags.
    pub tags: Vec<String>,
    /// Weight among the instances; None: the usual.
    pub weight: Option<u32>,
    /// The instance's name; None: the peer's.
    pub instance: Option<String>,
}

/// A file: `[service.NAME]` tables, with the words of `webmesh service add`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    service: std::collections::BTreeMap<String, Spanned<Body>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    port: Spanned<Port>,
    target: Option<Spanned<String>>,
    #[serde(default)]
    tags: Vec<String>,
    weight: Option<u32>,
    instance: Option<String>,
}

/// `80` or `"53/udp"`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a port is 1 to 65535, or \"53/udp\"")]
enum Port {
    Number(u16),
    Text(String),
}

impl Definitions {
    /// Reads every `*.toml` of a folder. A folder that is not there holds nothing.
    pub fn read(folder: &Path) -> Self {
        let mut read = Self::default();
        let files = match files(folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return read,
            Err(error) => {
                let what = format!("{}: {error}", folder.display());
                read.faults.push((folder.to_owned(), what));
                return read;
            }
        };
        let mut names = BTreeSet::new();
        for file in files {
            match services_of(folder, &file, &names) {
                Ok(services) => {
                    names.extend(services.iter().map(Definition::key));
                    read.services.extend(services);
                }
                Err(what) => read.faults.push((file, what)),
            }
        }
        read
    }
}

impl Definition {
    fn key(&self) -> (String, Option<String>) {
        (self.name.clone(), self.instance.clone())
    }
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn services_of(
    folder: &Path,
    file: &Path,
    taken: &BTreeSet<(String, Option<String>)>,
) -> Result<Vec<Definition>, String> {
    for path in [folder, file] {
        must_be_roots(path)?;
    }
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let at = |offset: usize, what: &str| {
        let line = line_of(&text, offset);
        format!("{}:{line}: {what}", file.display())
    };
    let read: File = toml::from_str(&text).map_err(|error| {
        at(
            error.span().map_or(0, |span| span.start),
            &plain(error.message()),
        )
    })?;
    let mut services = Vec::new();
    for (name, body) in read.service {
        let start = body.span().start;
        let service = definition(file, name, body.into_inner())
            .map_err(|(offset, what)| at(offset.unwrap_or(start), &what))?;
        if taken.contains(&service.key()) {
            let what = format!("{} is defined in another file too", service.name);
            return Err(at(start, &what));
        }
        services.push(Definition {
            line: line_of(&text, start),
            ..service
        });
    }
    services.sort_by_key(|service| service.line);
    Ok(services)
}

fn definition(
    file: &Path,
    name: String,
    body: Body,
) -> Result<Definition, (Option<usize>, String)> {
    let at_port = body.port.span().start;
    let port = match body.port.into_inner() {
        Port::Number(number) => number.to_string(),
        Port::Text(text) => text,
    };
    let port = port.parse().map_err(|what| (Some(at_port), what))?;
    let target = match body.target {
        None => None,
        Some(text) => {
            let at_target = text.span().start;
            let target = text.into_inner().parse::<SocketAddr>().ok();
            let target = target.filter(|target| target.port() != 0).ok_or_else(|| {
                let what = "a target is ADDRESS:PORT, such as \"127.0.0.1:8080\"";
                (Some(at_target), what.to_owned())
            })?;
            Some(target)
        }
    };
    Ok(Definition {
        file: file.to_owned(),
        line: 1,
        name,
        port,
        target,
        tags: body.tags,
        weight: body.weight,
        instance: body.instance,
    })
}

/// Whether root alone can have written what is there.
fn must_be_roots(path: &Path) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{}:1: {what}", path.display()));
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) => return wrong(&error.to_string()),
    };
    if facts.uid() != 0 {
        return wrong("must belong to root: sudo chown root it");
    }
    if facts.mode() & 0o022 != 0 {
        return wrong("may be written by others than root: sudo chmod go-w it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Protocol;
    use std::os::unix::fs::PermissionsExt as _;

    struct Folder(PathBuf);

    impl Folder {
        fn new(what: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("webmesh-services-{what}-{}", std::process::id()));
            let _left_by_a_dead_run = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            let file = self.0.join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        }

        fn faults(&self) -> Vec<String> {
            let prefix = format!("{}/", self.0.display());
            let faults = Definitions::read(&self.0).faults;
            faults
                .into_iter()
                .map(|(_, what)| what.replace(&prefix, ""))
                .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone_already = fs::remove_dir_all(&self.0);
        }
    }

    /// These tests judge files by their owner, which is whoever runs them.
    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn files_are_read_in_order_and_others_left_alone() {
        let folder = Folder::new("order");
        folder.write(
            "b.toml",
            "[service.web]\nport = 80\ntarget = \"192.0.2.7:8080\"\ntags = [\"v2\"]\nweight = 50\n",
        );
        folder.write(
            "a.toml",
            "[service.names]\nport = \"53/udp\"\n\n[service.db]\nport = 5432\ninstance = \"one\"\n",
        );
        folder.write("README", "no definition");
        let read = Definitions::read(&folder.0);
        if !is_root() {
            assert!(read.services.is_empty() && read.faults.len() == 2);
            return;
        }
        assert_eq!(read.faults, []);
        let names: Vec<(&str, usize)> = read
            .services
            .iter()
            .map(|service| (service.name.as_str(), service.line))
            .collect();
        assert_eq!(names, [("names", 1), ("db", 4), ("web", 1)]);
        assert_eq!(
            read.services[0].port,
            PortSpec {
                port: 53,
                protocol: Protocol::Udp
            }
        );
        assert_eq!(read.services[1].instance.as_deref(), Some("one"));
        let web = &read.services[2];
        assert_eq!(
            (web.target, web.weight),
            (Some("192.0.2.7:8080".parse().unwrap()), Some(50))
        );
    }

    #[test]
    fn a_bad_file_is_one_fault_with_its_line_and_the_others_load() {
        let folder = Folder::new("bad");
        folder.write("good.toml", "[service.web]\nport = 80\n");
        folder.write("bad1.toml", "[service.a]\nport = 80\nprot = 1\n");
        folder.write("bad2.toml", "\n[service.a]\nport = 0\n");
        folder.write(
            "bad3.toml",
            "[service.a]\nport = 80\ntarget = \"localhost\"\n",
        );
        folder.write("bad4.toml", "[service.a]\n");
        folder.write("bad5.toml", "[services.a]\nport = 80\n");
        folder.write("zz.toml", "\n\n[service.web]\nport = 81\n");
        if !is_root() {
            assert_eq!(folder.faults().len(), 7);
            return;
        }
        let starts = [
            "bad1.toml:3: unknown field `prot`",
            "bad2.toml:3: a port is 1 to 65535",
            "bad3.toml:3: a target is ADDRESS:PORT",
            "bad4.toml:1: missing field `port`",
            "bad5.toml:1: unknown field `services`",
            "zz.toml:3: web is defined in another file too",
        ];
        let faults = folder.faults();
        assert_eq!(faults.len(), starts.len(), "{faults:?}");
        for (fault, start) in faults.iter().zip(starts) {
            assert!(fault.starts_with(start) && !fault.contains('\n'), "{fault}");
        }
        assert_eq!(Definitions::read(&folder.0).services.len(), 1);
    }

    #[test]
    fn the_shipped_example_is_one_that_loads() {
        let folder = Folder::new("example");
        let example = include_str!("../../packaging/services.d/example.toml");
        let is_text = |line: &str| !line.starts_with('#') || line.starts_with("# ");
        let bare = |line: &str| match is_text(line) {
            true => format!("{line}\n"),
            false => format!("{}\n", line.trim_start_matches('#')),
        };
        folder.write("example.toml", example);
        folder.write("used.toml", &example.lines().map(bare).collect::<String>());
        let read = Definitions::read(&folder.0);
        if is_root() {
            assert_eq!(
                (read.services.len(), read.faults.len()),
                (1, 0),
                "{:?}",
                read.faults
            );
            assert_eq!(read.services[0].instance.as_deref(), Some("one"));
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        let folder = Folder::new("rights");
        folder.write("web.toml", "[service.web]\nport = 80\n");
        fs::set_permissions(folder.0.join("web.toml"), fs::Permissions::from_mode(0o664)).unwrap();
        let [fault] = &folder.faults()[..] else {
            panic!("one fault")
        };
        let owner = if is_root() {
            "may be written by others"
        } else {
            "must belong to root"
        };
        assert!(fault.contains(owner), "{fault}");
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        assert_eq!(
            Definitions::read(Path::new("/nonexistent/services.d")),
            Definitions::default()
        );
    }
}
