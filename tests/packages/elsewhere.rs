//! Issue 4, point 3: hosts where others than systemd-resolved resolve names, under `tests/run --full`.
//!
//! Where somebody can send one domain to one server he is told to. Where nobody can, nothing is touched, one line says
//! the two ways out, and `webmesh dns takeover` is one of them.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use crate::{
    building::packages,
    home::{Home, install, status, within},
    host,
    machine::Machine,
    names::{Tap, Upstream, resolves_outside},
    resolving::assert_no_name_leaves,
    roots::{Kind, Root},
    web::{PAGE, Web},
};

/// What decides on a host where names come from.
const NAMES_FILES: &str = "readlink /etc/resolv.conf; \
    tail -v -n +1 /etc/resolv.conf* /etc/dnsmasq.d/* /etc/NetworkManager/dnsmasq.d/* 2>/dev/null; true";

/// A way in which a host resolves names.
#[derive(Debug)]
struct Way {
    kind: Kind,
    /// Before it boots.
    prepare: fn(&Root, u8),
    /// When it is up: where other names come from.
    settle: &'static str,
    /// The backend that `status` names; None: takeover is the only one.
    backend: Option<&'static str>,
}

const NETWORK_MANAGER: Way = Way {
    kind: Kind {
        name: "networkmanager",
        packages: &["network-manager", "dnsmasq-base"],
    },
    prepare: network_manager,
    settle: "nmcli --wait 20 connection up eth0",
    backend: Some("networkmanager"),
};

const OPENRESOLV: Way = Way {
    kind: Kind {
        name: "openresolv",
        packages: &["openresolv", "dnsmasq"],
    },
    prepare: openresolv,
    settle: "echo nameserver 203.0.113.1 | resolvconf -a eth0 && systemctl restart dnsmasq",
    backend: Some("resolvconf"),
};

const RESOLVCONF_DNSMASQ: Way = Way {
    kind: Kind {
        name: "resolvconf-dnsmasq",
        packages: &["resolvconf", "dnsmasq"],
    },
    prepare: nothing,
    settle: "echo nameserver 203.0.113.1 | resolvconf -a eth0.static && systemctl restart dnsmasq",
    backend: Some("resolvconf"),
};

const RESOLVCONF: Way = Way {
    kind: Kind {
        name: "resolvconf",
        packages: &["resolvconf"],
    },
    prepare: nothing,
    settle: "echo nameserver 203.0.113.1 | resolvconf -a eth0.static",
    backend: None,
};

const PLAIN: Way = Way {
    kind: Kind {
        name: "plain",
        packages: &[],
    },
    prepare: nothing,
    settle: "echo nameserver 203.0.113.1 >/etc/resolv.conf",
    backend: None,
};

#[test]
#[ignore = "five roots with other resolvers; tests/run --full"]
fn network_manager_s_dnsmasq_is_told() {
    is_told(&NETWORK_MANAGER);
}

#[test]
#[ignore = "five roots with other resolvers; tests/run --full"]
fn a_dnsmasq_that_openresolv_feeds_is_told() {
    is_told(&OPENRESOLV);
}

#[test]
#[ignore = "five roots with other resolvers; tests/run --full"]
fn a_dnsmasq_beside_resolvconf_is_told() {
    is_told(&RESOLVCONF_DNSMASQ);
}

#[test]
#[ignore = "five roots with other resolvers; tests/run --full"]
fn plain_resolvconf_is_left_alone_until_takeover() {
    is_taken_over(&RESOLVCONF);
}

#[test]
#[ignore = "five roots with other resolvers; tests/run --full"]
fn a_file_by_hand_is_left_alone_until_takeover() {
    is_taken_over(&PLAIN);
}

fn is_told(way: &Way) {
    let lab = Lab::of(way);
    assert_eq!(status(&lab.home.bo)["dns"]["backend"], way.backend.unwrap());
    lab.assert_names_work();
    assert_no_name_leaves(&lab.home.bo, "127.0.0.1", [&lab.leaving, &lab.to_us]);
    lab.assert_names_work();
    assert_eq!(lab.to_us.outside_names(), 0, "other names are never ours");
    lab.assert_as_before_while_stopped();
    lab.assert_as_before_when_purged();
}

fn is_taken_over(way: &Way) {
    let lab = Lab::of(way);
    let bo = &lab.home.bo;
    let line = "names do not resolve here yet: sudo apt install systemd-resolved (it takes over /etc/resolv.conf), or: sudo webmesh dns takeover";
    let said = bo.sh("webmesh status");
    assert!(said.contains(line), "{said}");
    assert_eq!(lab.names_files, bo.sh(NAMES_FILES), "nothing is touched");
    assert_eq!(status(bo)["dns"]["backend"], "none");
    assert!(resolves_outside(bo));

    bo.sh("webmesh dns takeover");
    lab.assert_names_work();
    assert!(
        lab.to_us.outside_names() > 0,
        "all names come through us now"
    );

    bo.sh("webmesh dns takeover --undo");
    assert_eq!(lab.names_files, bo.sh(NAMES_FILES), "the way back");
    assert!(resolves_outside(bo));

    // And once more, for the agent's end and the purge to undo.
    bo.sh("webmesh dns takeover");
    lab.assert_names_work();
    // As when the machine goes down: the helper's unit is started no more.
    bo.sh("systemctl stop webmesh-dns.path && systemctl stop webmesh");
    assert_eq!(
        lab.names_files,
        bo.sh(NAMES_FILES),
        "at the end of the unit"
    );
    bo.sh("systemctl start webmesh-dns.path webmesh");
    lab.assert_names_work();
    // The same with an agent that hangs, so that systemd has to kill it.
    bo.sh("systemctl kill --signal=STOP webmesh");
    bo.sh("systemctl stop webmesh-dns.path && systemctl stop webmesh");
    assert_eq!(lab.names_files, bo.sh(NAMES_FILES), "after a hang");
    bo.sh("systemctl reset-failed webmesh && systemctl start webmesh-dns.path webmesh");
    lab.assert_names_work();
    lab.assert_as_before_while_stopped();
    lab.assert_as_before_when_purged();
}

/// Two machines of a kind in a network, with what counts the names that pass.
#[derive(Debug)]
struct Lab {
    before: host::Look,
    names_files: String,
    leaving: Tap,
    to_us: Tap,
    _web: Web,
    _upstream: Upstream,
    home: Home,
}

impl Lab {
    fn of(way: &Way) -> Self {
        let home = Home::booted_with(way.kind, way.prepare);
        let upstream = Upstream::serve(&home.lan);
        for machine in [&home.anna, &home.bo] {
            machine.sh(way.settle);
            await_outside(machine);
            within(Duration::from_secs(5), "addresses are settled", || {
                machine.sh("ip -6 address show tentative").is_empty()
            });
        }
        let bo = &home.bo;
        let before = host::look(bo);
        let names_files = bo.sh(NAMES_FILES);
        let leaving = Tap::on(&home.lan, bo.name);
        for machine in [&home.anna, bo] {
            install(machine, &packages().deb);
        }
        let web = Web::serve(&home.anna, "127.0.0.1:8080");
        home.form();
        home.anna
            .sh("webmesh service add web --port 80 --target 127.0.0.1:8080");
        Self {
            before,
            names_files,
            leaving,
            to_us: Tap::inside(bo, "wm0"),
            _web: web,
            _upstream: upstream,
            home,
        }
    }

    fn assert_names_work(&self) {
        let bo = &self.home.bo;
        // Not by asking: until its resolver is told, a host sends names to whom it always asked.
        within(Duration::from_secs(10), "the host is set up", || {
            status(bo)["dns"]["state"] == "resolving"
        });
        within(
            Duration::from_secs(5),
            "the service's name resolves",
            || {
                bo.run("getent hosts web.svc.home.internal")
                    .status
                    .success()
            },
        );
        assert_eq!(bo.sh("curl -sS http://web.svc.home.internal/"), PAGE);
        assert!(resolves_outside(bo));
        assert_eq!(
            self.leaving.mesh_names(),
            0,
            "no mesh name leaves the machine"
        );
        assert!(self.leaving.outside_names() > 0, "the tap sees what passes");
    }

    /// Stopped, the host asks whom it asked before; started again, names work again.
    fn assert_as_before_while_stopped(&self) {
        let bo = &self.home.bo;
        bo.sh("systemctl stop webmesh");
        let took = within(Duration::from_secs(10), "the host asks as before", || {
            bo.sh(NAMES_FILES) == self.names_files
        });
        eprintln!("stopped: the host asks as before after {took:?}");
        await_outside(bo);
        bo.sh("systemctl start webmesh");
        self.assert_names_work();
    }

    fn assert_as_before_when_purged(&self) {
        let bo = &self.home.bo;
        bo.sh("apt-get purge --yes --quiet webmesh");
        await_outside(bo);
        let left = host::look(bo).differences(&self.before);
        assert!(left.is_empty(), "after purge: {left:#?}");
        assert_eq!(self.names_files, bo.sh(NAMES_FILES));
    }
}

fn await_outside(machine: &Machine) {
    within(Duration::from_secs(10), "names of outside resolve", || {
        resolves_outside(machine)
    });
}

fn nothing(_root: &Root, _number: u8) {}

fn network_manager(root: &Root, number: u8) {
    fs::write(
        root.file("/etc/NetworkManager/conf.d/dns.conf"),
        "[main]\ndns=dnsmasq\n",
    )
    .unwrap();
    let connection = root.file("/etc/NetworkManager/system-connections/eth0.nmconnection");
    let text = format!(
        "[connection]\nid=eth0\ntype=ethernet\ninterface-name=eth0\n\n[ipv4]\nmethod=manual\n\
         address1=203.0.113.{number}/24,203.0.113.1\ndns=203.0.113.1;\n\n[ipv6]\nmethod=manual\n\
         address1=2001:db8::{number:x}/64,2001:db8::1\n"
    );
    fs::write(&connection, text).unwrap();
    fs::set_permissions(&connection, fs::Permissions::from_mode(0o600)).unwrap();
}

fn openresolv(root: &Root, _number: u8) {
    fs::write(
        root.file("/etc/resolvconf.conf"),
        "resolv_conf=/etc/resolv.conf\nname_servers=127.0.0.1\ndnsmasq_conf=/etc/dnsmasq.d/resolvconf.conf\n\
         dnsmasq_resolv=/run/dnsmasq/resolv.conf\n",
    )
    .unwrap();
}
