//! How this host resolves names: read from its files and its bus, and what follows from it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    bus::Bus,
    resolv_conf::{ResolvConf, STUBS},
    takeover,
};
use crate::api::{DnsBackend, words::NAMES_WAYS_OUT};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What `/etc/resolv.conf` says.
    pub resolv_conf: ResolvConf,
    /// Where `/etc/resolv.conf` leads, if it is a link.
    pub leads_to: Option<PathBuf>,
    /// Whether it is the one that `webmesh dns takeover` wrote.
    pub is_taken: bool,
    /// Whether it was, and somebody has written another.
    pub was_overwritten: bool,
    /// How programs find hosts, from `/etc/nsswitch.conf`.
    pub hosts: Hosts,
    /// How systemd-resolved is.
    pub resolved: Resolved,
    /// What NetworkManager, if it runs, does with names: its own word.
    pub network_manager: Option<String>,
    /// What feeds a local dnsmasq or unbound here.
    pub local: Local,
}

/// Where its program is, below the root.
const RESOLVED: [&str; 2] = [
    "usr/lib/systemd/systemd-resolved",
    "lib/systemd/systemd-resolved",
];

/// How systemd-resolved is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolved {
    /// It is not installed.
    #[default]
    Absent,
    /// It is installed, and has no name on the system bus.
    Installed,
    /// It runs, and can be told.
    Runs,
}

impl Resolved {
    fn by_files(etc: &Path) -> Self {
        let root = etc.parent().unwrap_or(etc);
        match RESOLVED.iter().any(|program| root.join(program).exists()) {
            true => Self::Installed,
            false => Self::Absent,
        }
    }
}

/// What a person can do where nobody sends us our names. A systemd-resolved that was started before the bus knew its user,
/// as the package of a fresh Debian does, has no name there until it is started again.
pub fn ways_out(etc: &Path) -> String {
    if Resolved::by_files(etc) == Resolved::Absent {
        return NAMES_WAYS_OUT.to_owned();
    }
    let text = fs::read_to_string(etc.join("resolv.conf")).unwrap_or_default();
    let first = if ResolvConf::parse(&text).asks(&STUBS) {
        "sudo systemctl restart systemd-resolved"
    } else {
        "webmesh dns status says why"
    };
    format!("{first}, or: sudo webmesh dns takeover")
}

/// The `hosts:` line of `/etc/nsswitch.conf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Whether it names `dns`: then `/etc/resolv.conf` counts.
    pub dns: bool,
    /// Whether it names `resolve`: then systemd-resolved is asked without `/etc/resolv.conf`.
    pub resolve: bool,
}

/// What feeds a resolver of this host that keeps no connection to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Local {
    /// Nothing that we know how to feed.
    #[default]
    None,
    /// openresolv writes the configuration of dnsmasq or unbound.
    Openresolv,
    /// dnsmasq reads a folder, and something answers where it would.
    Dnsmasq,
}

/// Who is to send us our names, and why him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Who.
    pub backend: DnsBackend,
    /// A sentence without its full stop.
    pub why: String,
}

impl Hosts {
    /// Reads the file's text; without such a line the C library asks `dns`.
    pub fn parse(nsswitch: &str) -> Self {
        let line = nsswitch
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("hosts:"));
        match line {
            None => Self {
                dns: true,
                resolve: false,
            },
            Some(line) => {
                let line = line.split('#').next().unwrap_or_default();
                let has = |word: &str| line.split_whitespace().any(|other| other == word);
                Self {
                    dns: has("dns"),
                    resolve: has("resolve"),
                }
            }
        }
    }
}

impl Look {
    /// Looks at the host whose `/etc` is at `etc`, and at its bus if there is one.
    pub async fn at(etc: &Path, bus: Option<&Bus>) -> Self {
        let file = etc.join("resolv.conf");
        let text = fs::read(&file).unwrap_or_default();
        let nsswitch = fs::read_to_string(etc.join("nsswitch.conf")).unwrap_or_default();
        let resolv_conf = ResolvConf::parse(&String::from_utf8_lossy(&text));
        let first = resolv_conf.servers.first().map(|server| server.address);
        let mut look = Self {
            resolv_conf,
            leads_to: fs::read_link(&file).ok(),
            is_taken: takeover::stands(etc),
            was_overwritten: takeover::was_overwritten(etc),
            hosts: Hosts::parse(&nsswitch),
            resolved: Resolved::by_files(etc),
            local: super::local::find(etc, || first.is_some_and(super::local::answers)),
            ..Self::default()
        };
        if let Some(bus) = bus {
            if bus.has_owner(super::resolved::NAME).await {
                look.resolved = Resolved::Runs;
            }
            if bus.has_owner(super::network_manager::NAME).await {
                let mode = super::network_manager::mode(bus).await;
                look.network_manager = Some(mode.unwrap_or_default());
            }
        }
        look
    }

    /// Whether systemd-resolved can be told anything.
    pub fn has_resolved(&self) -> bool {
        self.resolved == Resolved::Runs
    }

    /// Whether programs ask systemd-resolved.
    fn asks_resolved(&self) -> bool {
        self.hosts.resolve || (self.hosts.dns && self.resolv_conf.asks(&STUBS))
    }

    /// Whether the first server asked is a program on this host.
    fn asks_this_host(&self) -> bool {
        let first = self.resolv_conf.servers.first();
        self.hosts.dns && first.is_some_and(|server| server.address.is_loopback())
    }

    /// Who is to send us our names.
    pub fn choose(&self) -> Choice {
        let choice = |backend, why: &str| Choice {
            backend,
            why: why.to_owned(),
        };
        if self.has_resolved() && self.asks_resolved() && !self.is_taken {
            return choice(
                DnsBackend::Resolved,
                "systemd-resolved runs, and this host's programs ask it",
            );
        }
        if self.is_taken {
            return choice(
                DnsBackend::Forward,
                "/etc/resolv.conf names our resolver first: webmesh dns takeover wrote it",
            );
        }
        if self.network_manager.as_deref() == Some("dnsmasq") && self.asks_this_host() {
            return choice(
                DnsBackend::NetworkManager,
                "NetworkManager runs dnsmasq, and this host's programs ask it",
            );
        }
        match self.local {
            Local::Openresolv if self.asks_this_host() => choice(
                DnsBackend::Resolvconf,
                "openresolv feeds the resolver on this host that programs ask",
            ),
            Local::Dnsmasq if self.asks_this_host() => choice(
                DnsBackend::Resolvconf,
                "dnsmasq runs on this host, and programs ask it",
            ),
            Local::None | Local::Openresolv | Local::Dnsmasq => {
                choice(DnsBackend::None, &self.why_nobody())
            }
        }
    }

    fn why_nobody(&self) -> String {
        if self.was_overwritten {
            return "somebody has written /etc/resolv.conf since webmesh dns takeover did"
                .to_owned();
        }
        if !self.hosts.dns && !self.hosts.resolve {
            return "the hosts: line of /etc/nsswitch.conf has neither dns nor resolve, so programs here ask no resolver at all".to_owned();
        }
        if self.has_resolved() {
            return "systemd-resolved runs, but /etc/resolv.conf does not ask it (that would be: sudo ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf)".to_owned();
        }
        if self.resolved == Resolved::Installed && self.asks_resolved() {
            return "/etc/resolv.conf asks systemd-resolved, which is installed and not on the system bus".to_owned();
        }
        match &self.network_manager {
            Some(mode) if mode == "dnsmasq" => {
                "NetworkManager runs dnsmasq, but /etc/resolv.conf does not ask it".to_owned()
            }
            Some(mode) => format!(
                "NetworkManager handles names by {:?}, which cannot send one domain to one server",
                if mode.is_empty() { "default" } else { mode }
            ),
            None => "nothing on this host can send one domain to one server".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(servers: &[&str]) -> Look {
        Look {
            resolv_conf: ResolvConf {
                servers: servers.iter().map(|text| text.parse().unwrap()).collect(),
                ..ResolvConf::default()
            },
            hosts: Hosts {
                dns: true,
                resolve: false,
            },
            ..Look::default()
        }
    }

    #[test]
    fn resolved_is_chosen_where_programs_ask_it() {
        let stub = Look {
            resolved: Resolved::Runs,
            ..host(&["127.0.0.53"])
        };
        assert_eq!(stub.choose().backend, DnsBackend::Resolved);
        let bypassed = Look {
            resolved: Resolved::Runs,
            ..host(&["192.0.2.1"])
        };
        assert_eq!(bypassed.choose().backend, DnsBackend::None);
        assert!(bypassed.choose().why.contains("stub-resolv.conf"));
        let by_nss = Look {
            hosts: Hosts {
                dns: true,
                resolve: true,
            },
            ..bypassed
        };
        assert_eq!(by_nss.choose().backend, DnsBackend::Resolved);
        let dead = host(&["127.0.0.53"]);
        assert_eq!(dead.choose().backend, DnsBackend::None);
    }

    #[test]
    fn a_taken_file_forwards_and_an_overwritten_one_is_said() {
        let taken = Look {
            is_taken: true,
            ..host(&["100.71.255.53", "192.0.2.1"])
        };
        assert_eq!(taken.choose().backend, DnsBackend::Forward);
        let overwritten = Look {
            was_overwritten: true,
            ..host(&["192.0.2.1"])
        };
        assert!(overwritten.choose().why.starts_with("somebody has written"));
    }

    #[test]
    fn network_manager_is_chosen_only_with_its_own_dnsmasq() {
        let with = |mode: &str, server: &str| Look {
            network_manager: Some(mode.to_owned()),
            ..host(&[server])
        };
        assert_eq!(
            with("dnsmasq", "127.0.0.1").choose().backend,
            DnsBackend::NetworkManager
        );
        assert_eq!(
            with("dnsmasq", "192.0.2.1").choose().backend,
            DnsBackend::None
        );
        let plain = with("default", "192.0.2.1").choose();
        assert_eq!(plain.backend, DnsBackend::None);
        assert!(plain.why.contains("\"default\""), "{}", plain.why);
    }

    #[test]
    fn a_resolver_on_this_host_is_fed_where_it_is_asked() {
        for local in [Local::Openresolv, Local::Dnsmasq] {
            let fed = Look {
                local,
                ..host(&["127.0.0.1"])
            };
            assert_eq!(fed.choose().backend, DnsBackend::Resolvconf);
            let unasked = Look {
                local,
                ..host(&["192.0.2.1"])
            };
            assert_eq!(unasked.choose().backend, DnsBackend::None);
        }
        assert_eq!(host(&["127.0.0.1"]).choose().backend, DnsBackend::None);
    }

    #[test]
    fn an_installed_resolved_without_a_name_on_the_bus_is_to_be_started_again() {
        let root = crate::host_dns::scratch::Scratch::new("ways-out");
        let etc = root.join("etc");
        fs::create_dir(&etc).unwrap();
        assert_eq!(ways_out(&etc), NAMES_WAYS_OUT);
        let program = root.join(RESOLVED[0]);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(program, "").unwrap();
        fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        let said = ways_out(&etc);
        assert!(
            said.starts_with("sudo systemctl restart systemd-resolved, or: "),
            "{said}"
        );
        fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        assert!(!ways_out(&etc).contains("apt install"));
        let silent = Look {
            resolved: Resolved::Installed,
            ..host(&["127.0.0.53"])
        };
        assert!(silent.choose().why.ends_with("not on the system bus"));
    }

    #[test]
    fn the_hosts_line_says_what_counts() {
        let read = |text| {
            let hosts = Hosts::parse(text);
            (hosts.dns, hosts.resolve)
        };
        assert_eq!(read(""), (true, false));
        assert_eq!(
            read("passwd: files\nhosts: files dns # resolve\n"),
            (true, false)
        );
        assert_eq!(
            read("hosts: mymachines resolve [!UNAVAIL=return] files\n"),
            (false, true)
        );
        assert_eq!(read("  hosts:\tfiles\n"), (false, false));
        let deaf = Look {
            hosts: Hosts::parse("hosts: files"),
            ..host(&["192.0.2.1"])
        };
        assert!(deaf.choose().why.contains("nsswitch.conf"));
    }
}
