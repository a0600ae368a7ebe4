//! What a package could have changed on a machine, to compare before and after.

use std::collections::BTreeSet;

use crate::machine::Machine;

/// What is asked, and under which name its lines are told.
const QUESTIONS: &[(&str, &str)] = &[
    ("address", "ip -brief address show | sed 's/@[^ ]*//'"),
    (
        "route",
        // Not those of link-local addresses: the kernel takes a moment for them after each link came up.
        "ip -4 route show table all; ip -6 route show table all | grep -v fe80:",
    ),
    ("rule", "ip rule; ip -6 rule"),
    ("nft", "nft list ruleset"),
    (
        "user",
        "getent passwd; getent group; cat /etc/shadow /etc/gshadow",
    ),
    // All of it but the files of users and groups, whose lines stand above, and the copies that their tools leave.
    (
        "file",
        "find /etc -not -type d -not -name '*-' -not -name '.pwd.lock' \
         -not -path /etc/passwd -not -path /etc/group -not -path /etc/shadow -not -path /etc/gshadow -printf '%p %m %u:%g %l ' \
         -exec sh -c 'test -f \"$1\" && md5sum <\"$1\" || echo' - '{}' ';'",
    ),
    (
        "unit",
        "systemctl list-units --plain --no-legend 'webmesh*' | cut -d' ' -f1",
    ),
    (
        "failed unit",
        "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1",
    ),
    ("resolver", "resolvectl status 2>/dev/null"),
    (
        "sysctl",
        "sysctl --all 2>/dev/null | grep -E '^net[.]' | grep -vE 'nf_conntrack_count|random|[.]neigh[.]'",
    ),
];

/// A machine at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Look(BTreeSet<String>);

/// Looks at a machine.
pub(crate) fn look(machine: &Machine) -> Look {
    let mut lines = BTreeSet::new();
    for (what, question) in QUESTIONS {
        let said = machine.sh(&format!("{{ {question}; }} || true"));
        lines.extend(said.lines().map(|line| format!("{what}: {}", line.trim())));
    }
    Look(lines)
}

impl Look {
    /// What is new and what is gone since `before`, one line a thing.
    pub(crate) fn differences(&self, before: &Self) -> Vec<String> {
        let new = self
            .0
            .difference(&before.0)
            .map(|line| format!("new {line}"));
        let gone = before
            .0
            .difference(&self.0)
            .map(|line| format!("lost {line}"));
        new.chain(gone).collect()
    }
}
