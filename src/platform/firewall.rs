//! What other firewalls of this host do, as far as their rules can be seen: for the sentences that name a cause.
//!
//! Knows nf_tables' list and the files that ufw and firewalld leave. Changes nothing. Rules of the older iptables (legacy)
//! cannot be seen.

use std::{fs, path::Path};

use ipnet::Ipv4Net;
use netlink_packet_netfilter::NetfilterProtoFamily;

use super::nftables;

/// A program that sets this host's firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// ufw.
    Ufw,
    /// firewalld.
    Firewalld,
}

impl Program {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
        }
    }
}

/// A rule that drops, by where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// `ip` or `inet`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The sources it drops.
    pub source: Ipv4Net,
}

/// The families whose rules see IPv4, with their names for `nft`.
const FAMILIES: [(NetfilterProtoFamily, &str); 2] = [
    (NetfilterProtoFamily::IPv4, "ip"),
    (NetfilterProtoFamily::Inet, "inet"),
];

/// Which program sets this host's firewall, if one of those that people use does.
pub fn program() -> Option<Program> {
    let chains = nftables::chains().unwrap_or_default();
    let tables = nftables::tables().unwrap_or_default();
    program_of(&chains, &tables, Path::new("/"))
}

/// The first rule of this host that drops packets from `net`, or from all or a part of it.
pub fn culprit(net: Ipv4Net) -> Option<Culprit> {
    let rules = nftables::all_rules().ok()?;
    rules.into_iter().find_map(|rule| {
        let source = nftables::source4(&rule.expressions)?;
        let concerns = source.contains(&net) || net.contains(&source);
        let family = FAMILIES
            .iter()
            .find(|(family, _)| *family == rule.table.family)?
            .1;
        let is_ours = rule.table.name.starts_with("webmesh-");
        (concerns && nftables::is_drop(&rule.expressions) && !is_ours).then_some(Culprit {
            family,
            table: rule.table.name,
            chain: rule.chain,
            source,
        })
    })
}

/// Chains and tables are what is in force; the files tell of rules that cannot be seen.
fn program_of(chains: &[String], tables: &[String], root: &Path) -> Option<Program> {
    if chains.iter().any(|chain| chain.starts_with("ufw")) {
        return Some(Program::Ufw);
    }
    if tables.iter().any(|table| table == "firewalld") {
        return Some(Program::Firewalld);
    }
    let ufw = fs::read_to_string(root.join("etc/ufw/ufw.conf")).unwrap_or_default();
    if ufw.lines().any(|line| line.trim() == "ENABLED=yes") {
        return Some(Program::Ufw);
    }
    let is_running = root.join("run/firewalld.pid").exists();
    is_running.then_some(Program::Firewalld)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_counts_before_what_files_say() {
        let root = std::env::temp_dir().join(format!("webmesh-firewall-{}", std::process::id()));
        fs::create_dir_all(root.join("etc/ufw")).unwrap();
        let seen = |chains: &[&str], tables: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let (chains, tables): (Vec<String>, Vec<String>) = (owned(chains), owned(tables));
            program_of(&chains, &tables, &root)
        };
        assert_eq!(seen(&["input"], &["filter"]), None);
        assert_eq!(seen(&["ufw-user-input"], &[]), Some(Program::Ufw));
        let conf = root.join("etc/ufw/ufw.conf");
        fs::write(&conf, "# /etc/ufw/ufw.conf\nENABLED=no\n").unwrap();
        assert_eq!(seen(&["input"], &["filter"]), None);
        fs::write(&conf, "# /etc/ufw/ufw.conf\nENABLED=yes\n").unwrap();
        assert_eq!(seen(&["input"], &["filter"]), Some(Program::Ufw));
        assert_eq!(seen(&[], &["firewalld"]), Some(Program::Firewalld));
        fs::remove_dir_all(root).unwrap();
    }
}
