//! A network with a public machine of both families, `vps`, and two machines behind middleboxes: `anna` and `bo`.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{internet::Internet, kind::Kind};
use crate::harness::{Peer, text, within};

pub(crate) struct Pair {
    pub(crate) internet: Internet,
}

/// How packets reach another machine, as `status --json` says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// `direct`, `relay` or `stream`; `none` without a session.
    pub(crate) kind: String,
    pub(crate) via: Option<String>,
    pub(crate) endpoint: Option<String>,
}

impl Pair {
    /// Both have joined, know each other, and ask their resolvers.
    pub(crate) fn of(one: Kind, other: Kind) -> Self {
        Self::with(one, other, &["vps"], "")
    }

    /// The same with these public machines, the first of which founds the network, and a configuration for the two.
    pub(crate) fn with(one: Kind, other: Kind, public: &[&str], config: &str) -> Self {
        let mut internet = Internet::new();
        for (number, name) in (10..).zip(public) {
            internet.settle(Kind::Public, name, number);
        }
        for (number, name, kind) in [(ANNA, "anna", one), (BO, "bo", other)] {
            internet.settle_with(kind, name, number, config);
        }
        internet.net.form();
        Self { internet }
    }

    pub(crate) fn anna(&self) -> &Peer {
        self.internet.peer("anna")
    }

    pub(crate) fn bo(&self) -> &Peer {
        self.internet.peer("bo")
    }

    /// How long it takes until an echo by name comes back, at the first try.
    pub(crate) fn first_echo(&self) -> Duration {
        let began = Instant::now();
        // The name has AAAA and A; ping takes one of them, as programs do.
        let line = format!("ping -c 1 -W {} bo.home.internal", LONGEST_FIRST.as_secs());
        self.anna().sh(&line);
        began.elapsed()
    }

    /// Waits until both ends say that they reach each other in this kind of way, while packets flow.
    pub(crate) fn await_way(&self, kind: &str, limit: Duration) -> Duration {
        let _talk = self.talk();
        let (began, mut is_explained) = (Instant::now(), false);
        within(limit, &format!("{kind} both ways"), || {
            let is_way = self.is_way(kind);
            if !is_way && began.elapsed() + ALMOST > limit && !is_explained {
                is_explained = true;
                self.explain();
            }
            is_way
        })
    }

    /// What both ends say of the paths between them, for who reads of a failure.
    fn explain(&self) {
        for (one, other) in [(self.anna(), "bo"), (self.bo(), "anna")] {
            let said = text(&one.webmesh(&["why", other]).stdout);
            eprintln!("{}: {said}", one.name());
        }
    }

    /// Whether both ends say that they reach each other in this kind of way.
    pub(crate) fn is_way(&self, kind: &str) -> bool {
        way(self.anna(), "bo").kind == kind && way(self.bo(), "anna").kind == kind
    }

    /// Packets between them, five a second, until the guard is dropped.
    pub(crate) fn talk(&self) -> crate::harness::Beside {
        self.anna().beside("ping -q -i 0.2 bo.home.internal")
    }
}

/// How one machine reaches another.
pub(crate) fn way(peer: &Peer, other: &str) -> Way {
    let status = peer.status();
    let peers = status["peers"].as_array().unwrap();
    let path = peers
        .iter()
        .find(|peer| peer["name"] == other)
        .map_or(&Value::Null, |peer| &peer["path"]);
    let word = |key: &str| path[key].as_str().map(str::to_owned);
    Way {
        kind: word("kind").unwrap_or_else(|| "none".to_owned()),
        via: word("via"),
        endpoint: word("endpoint"),
    }
}

/// The sites' numbers.
pub(crate) const ANNA: u8 = 20;
pub(crate) const BO: u8 = 30;

/// Until the first packet is through, for every pair.
pub(crate) const LONGEST_FIRST: Duration = Duration::from_secs(2);

/// So long before a limit is over those who wait explain themselves.
const ALMOST: Duration = Duration::from_millis(300);
