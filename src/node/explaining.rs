//! Somebody asks why a peer is reached the way it is: the facts of many cores, brought together (`why`); and what is
//! written down for those who ask later (`why --at`).

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use crate::{
    addr::{Path, Underlay},
    ids::{NodeId, PeerIx, SessionId},
    node::{Node, Timer, leasing::PEER_DIALABLE, talking::Pair},
    paths::{
        allowed,
        class::Class,
        dossier::Dossier,
        history::{Change, Way},
        nat::Nat,
        why::{
            Address, Cause, Facts, Here, Judgement, Others, Outcome, Search, Source, Taken, There,
            Udp, Versions,
        },
    },
    rendezvous::Mapping,
    time::Now,
};

/// When it is written down why a path is not direct: by then everything has been tried.
const JUDGED_AFTER: Duration = Duration::from_secs(10);

/// Who has a session that stands is heard within this time, at the latest by its answer to a Ping (design §8).
const HEARD_WITHIN: Duration = Duration::from_secs(20);

/// What the shell found of the router of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// It lets others in, and is behind another one itself.
    BehindAnother,
    /// Anything else.
    Other,
}

/// Whether a peer has answered just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has, or nobody has asked.
    Presumed,
    /// It was asked and has not: what stands of its session is of no use.
    Missing,
}

/// Everything there is to say of the way to a peer.
#[derive(Clone, Debug)]
pub struct WhyView {
    /// What is known.
    pub facts: Facts,
    /// What it means.
    pub judgement: Judgement,
    /// Through whom the peer was called in vain.
    pub called: Vec<NodeId>,
    /// Who of them said that they have no session with it.
    pub absent: Vec<NodeId>,
}

/// One line of the flight recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeView {
    /// When, unix ms.
    pub at_ms: u64,
    /// Which way it was from then on.
    pub way: WayView,
    /// Why no better one was found.
    pub cause: Option<Cause>,
}

/// By which way a peer was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayView {
    /// Its data went there.
    Path {
        /// What kind of path.
        class: Class,
        /// To which socket.
        endpoint: Option<Underlay>,
        /// The names of the relays, the nearest first.
        via: Vec<String>,
    },
    /// No session stood.
    Closed,
    /// It was wanted in vain.
    Unreached,
}

impl Node {
    /// Why a peer is reached as it is, or is not.
    pub fn why(
        &self,
        now: Now,
        node: NodeId,
        (router, answer): (Router, Answer),
    ) -> Option<WhyView> {
        let peer = self.ids.find(node)?;
        let dossier = self.dossiers.of(peer);
        let mut facts = self.facts(now, peer, router, &dossier);
        if answer == Answer::Missing {
            facts.forget_path();
        }
        let nodes = |peers: &BTreeSet<PeerIx>| {
            let nodes = peers.iter().map(|peer| self.ids.node(*peer));
            nodes.collect()
        };
        Some(WhyView {
            judgement: facts.judge(),
            facts,
            called: nodes(&dossier.called),
            absent: nodes(&dossier.absent),
        })
    }

    /// By which ways a peer was reached in the last day, the oldest first.
    pub fn ways_taken(&self, node: NodeId) -> Vec<ChangeView> {
        let Some(peer) = self.ids.find(node) else {
            return Vec::new();
        };
        let changes = self.history.of(peer);
        changes.map(|change| self.change_view(change)).collect()
    }

    /// Where data of a peer's session goes is written down; why it is not direct follows once that is known.
    pub(super) fn note_way(&mut self, now: Now, peer: PeerIx) {
        let Some(path) = self.open_path(peer) else {
            return;
        };
        let class = self.proofs.class(SessionId::Pair(peer));
        let class = class.unwrap_or_else(|| Class::of(path, self.candidates.interfaces()));
        let mut relays = self.relays_on(path).into_iter();
        let mut next_relay = || relays.next().and_then(|relay| self.ids.find(relay));
        let way = Way::Path {
            class,
            endpoint: path.direct(),
            relays: [next_relay(), next_relay()],
        };
        self.dossiers.note_up(peer);
        let is_judged = self.is_known_why_relayed(peer);
        self.history.note(now, peer, way);
        if class > Class::Direct {
            // From one relay to another the reason stays: waiting anew each time it might never be written down.
            if is_judged {
                self.judge_way(now, peer);
            } else if self.timers.at(&Timer::Judge(peer)).is_none() {
                let at = now.at.after(JUDGED_AFTER);
                self.timers.set(Timer::Judge(peer), at);
            }
        } else {
            self.timers.clear(&Timer::Judge(peer));
            self.judge_way(now, peer);
        }
    }

    fn is_known_why_relayed(&self, peer: PeerIx) -> bool {
        let last = self.history.of(peer).next_back();
        last.is_some_and(|last| {
            let is_relayed = matches!(last.way, Way::Path { class, .. } if class > Class::Direct);
            is_relayed && last.cause.is_some()
        })
    }

    /// A session ended.
    pub(super) fn note_closed(&mut self, now: Now, peer: PeerIx) {
        self.timers.clear(&Timer::Judge(peer));
        let last = self.history.of(peer).next_back();
        if last.is_some_and(|last| matches!(last.way, Way::Path { .. })) {
            self.history.note(now, peer, Way::Closed);
        }
    }

    /// A program waited for a peer in vain.
    pub(super) fn note_unreached(&mut self, now: Now, peer: PeerIx) {
        self.history.note(now, peer, Way::Unreached);
        self.judge_way(now, peer);
    }

    /// What came of the tries is known.
    pub(super) fn judge_way(&mut self, now: Now, peer: PeerIx) {
        let dossier = self.dossiers.of(peer);
        let facts = self.facts(now, peer, Router::Other, &dossier);
        self.history.note_cause(peer, facts.judge().cause);
    }

    fn change_view(&self, change: &Change) -> ChangeView {
        let way = match change.way {
            Way::Path {
                class,
                endpoint,
                relays,
            } => WayView::Path {
                class,
                endpoint,
                via: relays
                    .into_iter()
                    .flatten()
                    .map(|relay| self.name_of(self.ids.node(relay)))
                    .collect(),
            },
            Way::Closed => WayView::Closed,
            Way::Unreached => WayView::Unreached,
        };
        ChangeView {
            at_ms: change.at_ms,
            way,
            cause: change.cause,
        }
    }

    fn facts(&self, now: Now, peer: PeerIx, router: Router, dossier: &Dossier) -> Facts {
        let here = self.here(now, peer, router);
        let addresses = self.addresses_of(now, peer, here.versions, dossier);
        Facts {
            there: self.there(now, peer, (&addresses, here.others), dossier),
            taken: self.taken(peer),
            here,
            addresses,
        }
    }

    fn taken(&self, peer: PeerIx) -> Option<Taken> {
        let path = self.open_path(peer)?;
        let class = self.proofs.class(SessionId::Pair(peer));
        Some(Taken {
            class: class.unwrap_or_else(|| Class::of(path, self.candidates.interfaces())),
            endpoint: path.direct(),
        })
    }

    fn here(&self, now: Now, peer: PeerIx, router: Router) -> Here {
        let facts = self.candidates.facts();
        let paths: Vec<Path> = self
            .pairs
            .values()
            .filter_map(Pair::usable)
            .map(|up| up.endpoint)
            .collect();
        let hears = self.pairs.iter().any(|(other, pair)| {
            let up = pair.usable().filter(|_| *other != peer);
            up.is_some_and(|up| now.at.since(up.heard) < HEARD_WITHIN)
        });
        let is_outside = |path: &Path| path.direct().is_some_and(Underlay::is_public);
        let is_stream = |path: &Path| matches!(path, Path::Stream(_));
        let udp = match (paths.iter().any(is_outside), paths.iter().any(is_stream)) {
            (true, _) => Udp::Works,
            (false, true) => Udp::Blocked,
            (false, false) => Udp::Unknown,
        };
        Here {
            nat: self.own_nat(facts.nat),
            versions: Versions::of(&facts.interfaces),
            is_open: !self.proven_addresses(now).is_empty(),
            udp,
            is_behind_two: router == Router::BehindAnother,
            sessions: paths.len(),
            others: if hears { Others::Heard } else { Others::Silent },
            asks_dht: self.is_asking_dht(),
        }
    }

    /// By what members see of this machine; where too few have looked, by what two nodes of the DHT saw.
    fn own_nat(&self, by_members: Nat) -> Nat {
        let seen = self.meeting_view().seen;
        match (by_members, seen.map(|seen| seen.mapping)) {
            (Nat::Unknown, Some(Mapping::One)) => Nat::Easy,
            (Nat::Unknown, Some(Mapping::PerDestination)) => Nat::Hard,
            (known, _) => known,
        }
    }

    fn there(
        &self,
        now: Now,
        peer: PeerIx,
        (addresses, others): (&[Address], Others),
        dossier: &Dossier,
    ) -> There {
        let node = self.ids.node(peer);
        let flags = self.members.peer(node).map_or(0, |record| record.flags);
        let search = if dossier.has_answered(now.at) {
            Search::Answered
        } else if self.is_said_to_have_left(now, node, others) {
            Search::Left
        } else if dossier.dialled.is_empty() && dossier.called.is_empty() {
            Search::None
        } else if self.may_be_known(dossier) {
            Search::ByOthers
        } else {
            Search::InVain
        };
        let published = self.members.peer(node);
        let published = published.and_then(|record| record.addresses.as_deref());
        There {
            nat: dossier.nat(now.at),
            versions: Versions::of(addresses.iter().map(|one| &one.address)),
            is_open: flags & PEER_DIALABLE != 0,
            is_bare: is_bare(published.unwrap_or_default()),
            is_member: self.may_open(now, node),
            search,
        }
    }

    /// Whether a peer's good-bye is the last word of it: who hears nobody may have missed that it is back.
    fn is_said_to_have_left(&self, now: Now, node: NodeId, others: Others) -> bool {
        let is_heard = others == Others::Heard || self.others_in_force(now).next().is_none();
        is_heard && self.registry.lease(node).is_some_and(|lease| lease.left)
    }

    /// Whether one of those that were asked for a peer may have a session with it: it has not said no.
    fn may_be_known(&self, dossier: &Dossier) -> bool {
        let mut asked = dossier.called.difference(&dossier.absent);
        asked.any(|third| self.is_up(*third))
    }

    /// Every address at which a peer may be: what was tried, what is known, what others saw.
    fn addresses_of(
        &self,
        now: Now,
        peer: PeerIx,
        own: Versions,
        dossier: &Dossier,
    ) -> Vec<Address> {
        let view = self.proofs.view(now, SessionId::Pair(peer));
        let tried = view.as_ref().map_or(&[][..], |view| &view.tried);
        let not_tried = view.as_ref().map_or(&[][..], |view| &view.not_tried);
        let seen = dossier.seen(now.at);
        let published = self.members.peer(self.ids.node(peer));
        let published = published.and_then(|record| record.addresses.clone());
        let published = published.unwrap_or_default();

        let mut all: Vec<Underlay> = self.candidates.of(now, peer);
        all.extend(published.iter().copied());
        all.extend(seen.keys().copied());
        all.extend(tried.iter().filter_map(|one| one.path.direct()));
        all.extend(not_tried.iter().filter_map(|(path, _)| path.direct()));
        all.retain(|address| self.candidates.is_usable(*address));
        all.sort_unstable();
        all.dedup();

        let outcome = |address: Underlay| {
            let path = Path::Direct(address);
            let tried = tried.iter().find(|one| one.path == path);
            let not_tried = not_tried.iter().find(|(other, _)| *other == path);
            let has_version = match address.ip() {
                IpAddr::V4(_) => own.v4,
                IpAddr::V6(_) => own.v6 || !address.is_public(),
            };
            let is_answered = tried.is_some_and(|one| one.answered > 0);
            match (tried, not_tried, dossier.dialled.get(&address)) {
                _ if !has_version && !is_answered => match address.ip() {
                    IpAddr::V4(_) => Outcome::NoV4,
                    IpAddr::V6(_) => Outcome::NoV6,
                },
                (Some(one), _, times) => {
                    let handshakes = times.copied().unwrap_or_default();
                    Outcome::of_tried(one.state, one.sent.saturating_add(handshakes))
                }
                (None, None, Some(times)) => Outcome::NoAnswer(*times),
                (None, _, _) if allowed::is_private(address.ip()) => Outcome::OtherSite,
                (None, Some((_, why)), _) => Outcome::of_not_tried(*why),
                (None, None, None) => Outcome::Unneeded,
            }
        };
        let source = |address: Underlay| match seen.get(&address) {
            Some(observers) => {
                let observers = observers.iter().map(|observer| self.ids.node(*observer));
                Source::Seen(observers.collect())
            }
            None => source_of(address, &published),
        };
        let row = |address: Underlay| Address {
            address,
            source: source(address),
            outcome: outcome(address),
        };
        all.into_iter().map(row).collect()
    }
}

/// Whether a peer that publishes these has a public IPv4 address and none behind a NAT.
fn is_bare(published: &[Underlay]) -> bool {
    let v4 = || published.iter().filter(|address| address.ip().is_ipv4());
    v4().next().is_some() && v4().all(|address| address.is_public())
}

/// Who says that a peer is at an address where nobody else has seen it.
fn source_of(address: Underlay, published: &[Underlay]) -> Source {
    if !published.contains(&address) {
        return Source::Itself;
    }
    match address.ip() {
        ip if allowed::is_private(ip) => Source::OwnLan,
        IpAddr::V6(_) => Source::OwnV6,
        IpAddr::V4(_) => Source::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_publishes_an_address_of_a_lan_has_a_nat_before_it() {
        let bare = |texts: &[&str]| {
            let all = texts
                .iter()
                .map(|text| Underlay::new(text.parse().unwrap()));
            is_bare(&all.collect::<Vec<_>>())
        };
        assert!(bare(&["203.0.113.10:41820", "[2001:db8::1]:41820"]));
        assert!(!bare(&["192.168.1.2:41820", "203.0.113.9:41820"]));
        assert!(!bare(&["[2001:db8::1]:41820"]), "nothing is said of IPv4");
        assert!(!bare(&[]));
    }
}
