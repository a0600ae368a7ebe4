//! A resolver on this host that other programs configure: openresolv before dnsmasq or unbound, or dnsmasq by itself.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use zbus::zvariant::OwnedObjectPath;

use super::{
    bus::{Bus, Seat},
    dnsmasq,
    look::Local,
    wish::Wish,
};
use crate::platform::sock_diag::{Listening, Port, listening};

/// Below `/etc`: what openresolv is told.
const OPENRESOLV: &str = "resolvconf.conf";

/// Below `/etc`: the folder that dnsmasq reads, and our file there.
const FOLDER: &str = "dnsmasq.d";
const FILE: &str = "dnsmasq.d/webmesh.conf";

/// How long openresolv's program may take, and a restart of dnsmasq.
const PATIENCE: Duration = Duration::from_secs(5);

/// Under which name openresolv knows us. It sorts by it, and takes a dot for the end of the device.
const INTERFACE: &str = "webmesh";

const SYSTEMD: Seat = Seat {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// What there is to be fed; `answers` tells whether a dnsmasq whose files are here also runs.
pub(super) fn find(etc: &Path, answers: impl FnOnce() -> bool) -> Local {
    if has_openresolv(etc) {
        return Local::Openresolv;
    }
    if etc.join(FOLDER).is_dir() && etc.join("dnsmasq.conf").exists() && answers() {
        return Local::Dnsmasq;
    }
    Local::None
}

/// Whether some program of this host takes questions at this address.
pub(super) fn answers(server: IpAddr) -> bool {
    listening(Port::Udp(53), &[server]).is_ok_and(|found| found == Listening::Here)
}

fn has_openresolv(etc: &Path) -> bool {
    let config = fs::read_to_string(etc.join(OPENRESOLV)).unwrap_or_default();
    feeds_a_resolver(&config) && program(etc).is_some()
}

/// Whether openresolv writes the part of dnsmasq's or unbound's configuration that sends zones to servers.
fn feeds_a_resolver(config: &str) -> bool {
    let is_set = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or_default();
        matches!(key.trim(), "dnsmasq_conf" | "unbound_conf")
            && !value.trim().trim_matches(['"', '\'']).is_empty()
    };
    config.lines().any(is_set)
}

/// openresolv's program, below the same root as `etc`.
fn program(etc: &Path) -> Option<PathBuf> {
    let root = etc.parent()?;
    [
        "sbin/resolvconf",
        "usr/sbin/resolvconf",
        "usr/bin/resolvconf",
    ]
    .into_iter()
    .map(|path| root.join(path))
    .find(|path| path.exists())
}

/// Sends our zones to us.
///
/// # Errors
/// The program refuses, or the file cannot be written.
pub(super) async fn apply(
    etc: &Path,
    bus: Option<&Bus>,
    local: Local,
    wish: &Wish,
) -> anyhow::Result<()> {
    match local {
        Local::Openresolv => feed_openresolv(etc, wish).await?,
        Local::Dnsmasq => {
            if dnsmasq::write(&etc.join(FILE), wish)? == dnsmasq::File::Changed {
                restart_dnsmasq(bus).await?;
            }
        }
        Local::None => {}
    }
    Ok(())
}

/// Takes it back, whatever of it there is.
///
/// # Errors
/// It is still there.
pub(super) async fn revert(etc: &Path, bus: Option<&Bus>) -> io::Result<()> {
    if dnsmasq::remove(&etc.join(FILE))? == dnsmasq::File::Changed {
        // A dnsmasq that does not run reads its folder when it starts.
        let _not_running = restart_dnsmasq(bus).await;
    }
    if has_openresolv(etc) {
        run_openresolv(etc, &["-f", "-d", INTERFACE], "").await?;
    }
    Ok(())
}

/// Has it read its folder again, and waits until it does: beside resolvconf it takes itself out of `/etc/resolv.conf` while
/// it restarts, and who looks then finds a host that does not ask it.
async fn restart_dnsmasq(bus: Option<&Bus>) -> zbus::Result<()> {
    let bus = bus.ok_or_else(|| zbus::Error::Failure("there is no system bus".to_owned()))?;
    let mut ends = bus.hear(SYSTEMD, "JobRemoved").await?;
    // Said once is enough for a connection, and systemd refuses to hear it again.
    let _already = bus.tell(SYSTEMD, "Subscribe", &()).await;
    let order = ("dnsmasq.service", "replace");
    let job: OwnedObjectPath = bus.ask(SYSTEMD, "TryRestartUnit", &order).await?;
    let ended = async {
        while let Some(Ok(said)) = ends.next().await {
            let removed: JobRemoved = said.body().deserialize()?;
            if removed.1 == job {
                break;
            }
        }
        Ok(())
    };
    // One that hangs is systemd's matter.
    tokio::time::timeout(PATIENCE, ended)
        .await
        .unwrap_or(Ok(()))
}

/// The job's number, itself, its unit, and how it ended.
type JobRemoved = (u32, OwnedObjectPath, String, String);

/// `-p`: private, only the domains named are sent here.
async fn feed_openresolv(etc: &Path, wish: &Wish) -> io::Result<()> {
    let servers = wish.servers.iter();
    let mut text: String = servers
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    text.push_str(&format!("search {}\n", wish.zones().join(" ")));
    run_openresolv(etc, &["-p", "-a", INTERFACE], &text).await
}

async fn run_openresolv(etc: &Path, words: &[&str], text: &str) -> io::Result<()> {
    run_within(PATIENCE, etc, words, text).await
}

/// It restarts what it feeds. One that hangs is ended: the lock is held meanwhile, and systemd waits for us.
async fn run_within(limit: Duration, etc: &Path, words: &[&str], text: &str) -> io::Result<()> {
    let run = tokio::time::timeout(limit, run_program(etc, words, text)).await;
    run.unwrap_or_else(|_elapsed| {
        let what = format!("resolvconf has not ended in {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    })
}

async fn run_program(etc: &Path, words: &[&str], text: &str) -> io::Result<()> {
    let program = program(etc).ok_or(io::ErrorKind::NotFound)?;
    let mut child = tokio::process::Command::new(program)
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await?;
    }
    let status = child.wait().await?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("resolvconf ended with {status}")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::host_dns::{scratch::Scratch, wish::tests::good};

    #[test]
    fn openresolv_counts_only_where_it_feeds_a_resolver() {
        assert!(feeds_a_resolver(
            "name_servers=127.0.0.1\ndnsmasq_conf=/etc/dnsmasq-conf.conf\n"
        ));
        assert!(feeds_a_resolver(
            "unbound_conf='/etc/unbound/unbound.conf.d/r.conf'\n"
        ));
        for config in [
            "",
            "#dnsmasq_conf=/x\n",
            "dnsmasq_conf=\"\"\n",
            "dnsmasq_resolv=/run/x\n",
        ] {
            assert!(!feeds_a_resolver(config), "{config}");
        }
    }

    #[test]
    fn dnsmasq_counts_only_where_something_answers_for_it() {
        let etc = Scratch::new("dnsmasq-files");
        assert_eq!(find(&etc, || true), Local::None);
        fs::create_dir(etc.join(FOLDER)).unwrap();
        fs::write(etc.join("dnsmasq.conf"), "").unwrap();
        assert_eq!(find(&etc, || true), Local::Dnsmasq);
        assert_eq!(find(&etc, || false), Local::None);
        assert!(!answers("127.71.82.93".parse().unwrap()));
    }

    #[tokio::test]
    async fn an_openresolv_that_hangs_is_not_waited_for() {
        let root = Scratch::new("openresolv-hangs");
        let etc = root.join("etc");
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(root.join("sbin")).unwrap();
        let program = root.join("sbin/resolvconf");
        fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let limit = Duration::from_millis(50);
        let error = run_within(limit, &etc, &[], "").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn openresolv_is_told_by_its_program_and_told_again_at_the_end() {
        let root = Scratch::new("openresolv");
        let etc = root.join("etc");
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(root.join("sbin")).unwrap();
        assert_eq!(find(&etc, || false), Local::None);
        fs::write(etc.join(OPENRESOLV), "dnsmasq_conf=/run/dnsmasq.conf\n").unwrap();
        assert_eq!(find(&etc, || false), Local::None, "without its program");
        let said = root.join("said");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {0}\ncat >> {0}\n",
            said.display()
        );
        fs::write(root.join("sbin/resolvconf"), script).unwrap();
        fs::set_permissions(
            root.join("sbin/resolvconf"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        assert_eq!(find(&etc, || false), Local::Openresolv);
        apply(&etc, None, Local::Openresolv, &good()).await.unwrap();
        revert(&etc, None).await.unwrap();
        assert_eq!(
            fs::read_to_string(said).unwrap(),
            "-p -a webmesh\nnameserver 100.71.255.53\nnameserver fd7c:1a2b:3c4d::53\n\
             search home.internal 71.100.in-addr.arpa d.4.c.3.b.2.a.1.c.7.d.f.ip6.arpa\n\
             -f -d webmesh\n"
        );
    }
}
