//! Whether this machine is reached from outside (design §8): it notes whose Knock came unasked, asks others to have
//! somebody knock, and knocks where others ask for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use rand_core::RngCore;

use crate::{
    addr::{Path, Underlay},
    ids::{NodeId, PeerIx, SessionId},
    node::{Node, Timer, talking::Pair},
    paths::{
        allowed::{Grounds, is_private},
        attempt::Purpose,
        candidates::{PUBLISHED_MAX, Prefix},
        passing::Pass,
    },
    time::{Moment, Now},
    wire::{
        message::Message,
        reaching::{KnockAt, Reaching},
    },
};

/// How often it is tested again (design §8).
const AGAIN: Duration = Duration::from_hours(1);

/// How soon it is tested again while nobody got in, a quarter more or less; doubles up to [`AGAIN`]. At first there may be
/// nobody who could try.
const AGAIN_SOON: Duration = Duration::from_mins(1);

/// How many peers are asked at first; later one each time, another than the last.
const ASKED_MAX: usize = 3;

/// How many peers one that is asked sends to knock.
const KNOCKERS_MAX: usize = 3;

/// How long a newcomer that may be reached from outside leaves it to others to knock first: to whom it wrote itself
/// proves nothing.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(1);

/// When a session that is no link idles.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// How long a wish for a knock waits for the records that went ahead of it: they are checked in that time.
const RECORDS_AHEAD: Duration = Duration::from_millis(300);

/// How many wishes wait.
const WISHES_MAX: usize = 64;

/// Prefixes from which others could try; two is all that matters.
const PREFIXES_ENOUGH: usize = 2;

/// Where this machine stands with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Proving {
    /// Whom it asked since the last test began.
    asked: BTreeSet<PeerIx>,
    /// Whom it asked last.
    last: Option<PeerIx>,
    /// At whom it knocks because others asked for it.
    knocking: BTreeSet<PeerIx>,
    /// Tests in a row in which nobody got in.
    failures: u32,
    /// Links wait until then.
    until: Option<Moment>,
    held: BTreeSet<PeerIx>,
    /// The addresses for which all this holds.
    interfaces: Vec<Underlay>,
    /// Whether somebody began a stream here from outside.
    has_taken_stream: bool,
    /// Who is to be knocked at for which link, once it is known who that is.
    wishes: BTreeMap<NodeId, (PeerIx, KnockAt)>,
}

impl Node {
    /// The addresses at which this machine is reached from outside.
    pub(super) fn proven_addresses(&self, now: Now) -> Vec<Underlay> {
        let others = match self.outside.depends_on_others() {
            true => self.other_prefixes(now),
            false => 0,
        };
        self.outside.proven(others)
    }

    /// Whether others have begun something with this machine from outside: by UDP, or a stream where UDP is blocked for all of
    /// them.
    pub(super) fn is_reached(&self, now: Now) -> bool {
        self.proving.has_taken_stream || !self.proven_addresses(now).is_empty()
    }

    /// One of ours began a stream here. No router lets one in that was not told to.
    pub(super) fn note_stream_taken(&mut self, now: Now, from: Underlay) {
        if from.is_public() && !std::mem::replace(&mut self.proving.has_taken_stream, true) {
            self.publish_peer(now);
        }
    }

    /// What this machine publishes: proven addresses first.
    pub(super) fn own_addresses(&self, now: Now) -> Vec<Underlay> {
        self.with_hints(self.proven_addresses(now))
    }

    /// The proven addresses, and then where else this machine may be.
    pub(super) fn with_hints(&self, proven: Vec<Underlay>) -> Vec<Underlay> {
        let mut own = proven;
        for address in self.candidates.hints() {
            if !own.contains(&address) {
                own.push(address);
            }
        }
        own.truncate(PUBLISHED_MAX);
        own
    }

    /// From how many prefixes others could try to reach this machine, as far as it matters.
    fn other_prefixes(&self, now: Now) -> usize {
        let mesh_s = self.mesh_s(now);
        let mut prefixes = BTreeSet::new();
        for (node, _) in self.members.nodes() {
            if node == self.me || !self.registry.in_force(node, mesh_s) {
                continue;
            }
            let published = self
                .members
                .peer(node)
                .and_then(|peer| peer.addresses.as_ref());
            let public = published
                .into_iter()
                .flatten()
                .filter(|at| !is_private(at.ip()));
            prefixes.extend(public.map(|address| Prefix::of(*address)));
            if prefixes.len() >= PREFIXES_ENOUGH {
                break;
            }
        }
        prefixes.len()
    }

    /// The addresses of the interfaces were told: what was proven for others is proven no more.
    pub(super) fn prove_anew(&mut self, now: Now) {
        let interfaces = self.candidates.interfaces().to_vec();
        if interfaces == self.proving.interfaces {
            return;
        }
        let is_first = self.proving.interfaces.is_empty();
        self.proving.interfaces = interfaces;
        self.outside.handle_moved();
        self.proving.has_taken_stream = false;
        self.proving.asked.clear();
        self.proving.failures = 0;
        self.prove_after(now, AGAIN_SOON);
        if is_first {
            self.trust_earlier_run();
        } else {
            self.ask_to_be_knocked_at(now, ASKED_MAX);
        }
    }

    /// The own Peer record of the run before says where this machine was reached. Where it has the same interfaces now,
    /// it is there still.
    fn trust_earlier_run(&mut self) {
        let Some(record) = self.members.peer(self.me) else {
            return;
        };
        let told = record.addresses.clone().unwrap_or_default();
        let stayed = self
            .proving
            .interfaces
            .iter()
            .all(|interface| told.contains(interface));
        if stayed && record.flags & super::streaming::TAKES_STREAMS != 0 {
            self.proving.has_taken_stream = true;
        }
        if record.flags & super::leasing::PEER_DIALABLE != 0
            && stayed
            && let Some(proven) = told.iter().find(|address| !is_private(address.ip()))
        {
            self.outside.note_earlier(*proven);
        }
    }

    /// A good Knock or Join came.
    pub(super) fn note_knock(&mut self, now: Now, source: Path) {
        let Some(from) = source.direct() else {
            return;
        };
        if self.speaks_with(from.ip()) {
            self.outside.note_sent(now.at, from.ip());
        }
        self.outside.note_knock(now.at, from);
    }

    /// Whether a session goes to this address: then datagrams go there all the time.
    fn speaks_with(&self, ip: IpAddr) -> bool {
        let endpoints = self.pairs.values().filter_map(Pair::usable);
        endpoints
            .filter_map(|up| up.endpoint.direct())
            .any(|endpoint| endpoint.ip() == ip)
    }

    /// Datagrams go there.
    pub(super) fn note_sent(&mut self, now: Now, to: Path) {
        if let Some(to) = to.direct() {
            self.outside.note_sent(now.at, to.ip());
        }
    }

    /// A peer whose session is at `witness` says at which address of ours it is.
    pub(super) fn note_told(&mut self, now: Now, witness: Underlay, own: Underlay) {
        if self.outside.note_told(now.at, witness, own) {
            self.publish_peer(now);
            self.stop_waiting_for_knocks(now);
        }
    }

    /// Both sides may speak: while nothing is proven the peer is asked to have somebody knock here.
    pub(super) fn prove_by(&mut self, now: Now, peer: PeerIx) {
        if !self.proven_addresses(now).is_empty() {
            return;
        }
        let is_first = self.proving.asked.is_empty();
        if self.ask_back(peer) && is_first && self.has_public_interface() {
            let until = now.at.after(LEFT_TO_OTHERS);
            self.proving.until = Some(until);
            self.timers.set(Timer::Knocked, until);
        }
    }

    fn has_public_interface(&self) -> bool {
        let interfaces = self.candidates.interfaces();
        interfaces.iter().any(|address| !is_private(address.ip()))
    }

    fn ask_back(&mut self, peer: PeerIx) -> bool {
        let may_ask = self.proving.asked.len() < ASKED_MAX && self.proving.asked.insert(peer);
        if may_ask {
            let message = Message::Reaching(Reaching::DialBack);
            self.send(SessionId::Pair(peer), message);
        }
        may_ask
    }

    /// It is tested again.
    pub(super) fn on_prove(&mut self, now: Now) {
        let wait = if self.proven_addresses(now).is_empty() {
            self.proving.failures = self.proving.failures.saturating_add(1);
            AGAIN_SOON.saturating_mul(1 << self.proving.failures.min(6))
        } else {
            self.proving.failures = 0;
            AGAIN
        };
        self.prove_after(now, wait.min(AGAIN));
        self.ask_to_be_knocked_at(now, 1);
        self.note_tests(now);
    }

    /// Others were asked to have somebody knock where they see this machine. Where nobody has come the last times, though
    /// most could have, it is reached no more.
    fn note_tests(&mut self, now: Now) {
        if self.proven_addresses(now).is_empty() || !self.are_most_strangers(now) {
            return;
        }
        let asked = self.proving.asked.iter();
        let seen: BTreeSet<Underlay> = asked
            .filter_map(|peer| self.candidates.seen_by(*peer))
            .collect();
        let mut is_over = false;
        for own in seen {
            is_over |= self.outside.handle_tested(own);
        }
        if is_over {
            self.counters.count("outside_proven_no_more");
            self.on_unproven(now);
        }
    }

    /// Whether those in the network to whom nothing was sent of late outnumber the others: then three who are drawn to knock
    /// are hardly all among the others, whose Knocks prove nothing.
    fn are_most_strangers(&self, now: Now) -> bool {
        let mesh_s = self.mesh_s(now);
        let (mut strangers, mut others) = (0_usize, 0_usize);
        for (node, _) in self.members.nodes() {
            if node == self.me || !self.registry.in_force(node, mesh_s) {
                continue;
            }
            let published = self.members.peer(node);
            let addresses = published.and_then(|peer| peer.addresses.as_ref());
            let mut public = addresses
                .into_iter()
                .flatten()
                .filter(|at| !is_private(at.ip()))
                .peekable();
            if public.peek().is_none() {
                continue;
            }
            let is_up = self.ids.find(node).is_some_and(|peer| self.is_up(peer));
            if is_up || public.any(|at| self.outside.is_opened(now.at, at.ip())) {
                others += 1;
            } else {
                strangers += 1;
            }
        }
        strangers > others
    }

    /// What others see, or what the router says, tells that this machine is not where it was proven to be.
    pub(super) fn drop_left_addresses(&mut self, now: Now) {
        let candidates = &self.candidates;
        if self.outside.handle_left(|own| candidates.is_left(own)) {
            self.on_unproven(now);
        }
    }

    /// The router lets others in at another address now, or at none.
    pub(super) fn on_mapping_gone(&mut self, now: Now, before: Underlay) {
        let is_mapping = |own| own == before && !self.candidates.interfaces().contains(&own);
        if self.outside.handle_left(is_mapping) {
            self.on_unproven(now);
        }
    }

    /// An address is proven no more: others are told, homes are looked for, and it is tested soon.
    fn on_unproven(&mut self, now: Now) {
        self.publish_peer(now);
        self.review_homes_soon(now);
        self.proving.failures = 0;
        self.prove_after(now, AGAIN_SOON);
        self.ask_to_be_knocked_at(now, ASKED_MAX);
    }

    /// Those that began together must not ask together.
    fn prove_after(&mut self, now: Now, wait: Duration) {
        let percent = 75 + self.rng.next_u32() % 51;
        self.timers
            .set(Timer::Prove, now.at.after(wait * percent / 100));
    }

    fn ask_to_be_knocked_at(&mut self, now: Now, count: usize) {
        self.proving.asked.clear();
        let last = self.proving.last;
        let (behind, before): (Vec<PeerIx>, Vec<PeerIx>) = self
            .pairs
            .keys()
            .filter(|peer| self.may_bother(now, **peer))
            .partition(|peer| Some(**peer) > last);
        for peer in behind.into_iter().chain(before).take(count) {
            self.proving.last = Some(peer);
            self.ask_back(peer);
        }
    }

    /// Whether a link waits, since somebody else may knock first. It is dialled when the time is over.
    pub(super) fn is_held_back(&mut self, now: Now, peer: PeerIx) -> bool {
        let holds = self.proving.until.is_some_and(|until| now.at < until);
        if holds {
            self.proving.held.insert(peer);
        }
        holds
    }

    pub(super) fn stop_waiting_for_knocks(&mut self, now: Now) {
        self.proving.until = None;
        self.timers.clear(&Timer::Knocked);
        for peer in std::mem::take(&mut self.proving.held) {
            self.reach(now, peer, Purpose::Link);
        }
    }

    /// Whether a peer may be bothered with a test or a question. Nothing goes to one with which nobody has anything to say: it is a link, a
    /// home, or was heard a moment ago.
    pub(super) fn may_bother(&self, now: Now, peer: PeerIx) -> bool {
        let up = self.pairs.get(&peer).and_then(Pair::usable);
        let Some(up) = up.filter(|up| up.hello.is_some()) else {
            return false;
        };
        self.links.is_linked(peer)
            || self.homes.kept().any(|home| home == peer)
            || now.at.since(up.heard) < IDLE_AFTER
    }

    /// A peer wants somebody to knock at its address: others of ours are asked to, best from elsewhere on the internet.
    pub(super) fn on_dial_back(&mut self, now: Now, asker: PeerIx) {
        let seen = self.seen.of(now.at, asker);
        let Some(address) = seen.into_iter().find(|address| !is_private(address.ip())) else {
            return self.counters.count("dial_back_unseen");
        };
        if self.passing.call(now.at, asker, asker) != Pass::First {
            return self.counters.count("dial_back_too_often");
        }
        let message = KnockAt {
            node: self.ids.node(asker),
            address,
        };
        for knocker in self.knockers(now, asker, address) {
            self.send_ahead(now, asker, knocker);
            let message = Message::Reaching(Reaching::KnockAt(message.clone()));
            self.send(SessionId::Pair(knocker), message);
        }
    }

    /// Who may knock at an address: those seen at other addresses of its family, of other prefixes first, else drawn: who
    /// was met first must not do it for everybody.
    fn knockers(&mut self, now: Now, asker: PeerIx, at: Underlay) -> Vec<PeerIx> {
        let others = self.pairs.keys().filter(|peer| **peer != asker);
        let greeted: Vec<PeerIx> = others
            .copied()
            .filter(|peer| self.may_bother(now, *peer))
            .collect();
        // Whose records went ahead was asked before, and is no stranger there any more.
        let mut found: Vec<(bool, bool, u32, PeerIx)> = Vec::new();
        for peer in greeted {
            let seen = self.seen.of(now.at, peer).into_iter().find(|seen| {
                seen.ip().is_ipv4() == at.ip().is_ipv4()
                    && seen.ip() != at.ip()
                    && !is_private(seen.ip())
            });
            if let Some(seen) = seen {
                let is_near = Prefix::of(seen) == Prefix::of(at);
                let was_asked = self.passing.went_ahead(now.at, asker, peer);
                found.push((is_near, was_asked, self.rng.next_u32(), peer));
            }
        }
        found.sort_unstable();
        found
            .into_iter()
            .map(|(.., peer)| peer)
            .take(KNOCKERS_MAX)
            .collect()
    }

    /// It is not known yet who is to be knocked at: the records that went ahead are being checked.
    fn knock_later(&mut self, now: Now, link: PeerIx, wish: &KnockAt) {
        if self.proving.wishes.len() >= WISHES_MAX {
            return self.counters.count("knock_at_too_often");
        }
        self.proving.wishes.insert(wish.node, (link, wish.clone()));
        self.timers
            .set(Timer::KnockAt(wish.node), now.at.after(RECORDS_AHEAD));
    }

    /// The records that went ahead of a wish had their time.
    pub(super) fn on_wish_due(&mut self, now: Now, node: NodeId) {
        let Some((link, wish)) = self.proving.wishes.remove(&node) else {
            return;
        };
        if self.may_knock_at(now, node) {
            self.on_knock_at(now, link, &wish);
        } else {
            self.counters.count("knock_at_nobody");
        }
    }

    /// A link asks this machine to knock at a third peer's address, where the link sees that peer. Only who has no session
    /// with it, and is not about to have one, proves anything by it.
    pub(super) fn on_knock_at(&mut self, now: Now, link: PeerIx, wish: &KnockAt) {
        if wish.node == self.me {
            return self.counters.count("knock_at_known");
        }
        if !self.may_knock_at(now, wish.node) {
            return self.knock_later(now, link, wish);
        }
        let peer = self.ids.intern(wish.node);
        if self.pairs.contains_key(&peer) || self.attempts.is_under_way(peer) {
            return self.counters.count("knock_at_known");
        }
        let seen = [wish.address];
        let grounds = Grounds {
            seen: &seen,
            own_seen: &[],
            own: self.candidates.interfaces(),
            plan: self.candidates.plan(),
        };
        if is_private(wish.address.ip()) || grounds.allowed(seen).is_empty() {
            return self.counters.count("knock_at_nobody");
        }
        // Only the link says that the peer is there: it must not aim us at a third one, alone or with others.
        if self.passing.call(now.at, link, peer) != Pass::First
            || !self.proofs.spend_letter(now, wish.address)
        {
            return self.counters.count("knock_at_too_often");
        }
        self.proving.knocking.insert(peer);
        self.dial(now, peer, vec![Path::Direct(wish.address)]);
    }

    /// Whether a node is a member of which enough is known.
    fn may_knock_at(&self, now: Now, node: NodeId) -> bool {
        self.may_open(now, node) && self.remote(node).is_some()
    }

    /// A session, or the try to have one, ended.
    pub(super) fn forget_knocking(&mut self, peer: PeerIx) {
        self.proving.knocking.remove(&peer);
    }

    /// Both sides may speak: where this machine knocked for the peer's sake alone, the peer has heard now what it asked.
    pub(super) fn end_knocking(&mut self, peer: PeerIx) {
        if self.proving.knocking.remove(&peer) {
            self.links.handle_brief(peer);
        }
    }
}
