//! A session stands, speaks and ends: Hello, Ping, Pong, Bye (protocol §4, §5).

use std::time::Duration;

use crate::{
    addr::Path,
    ids::{NodeId, PeerIx, SessionId},
    members::epochs::Reach,
    node::{
        Node, Timer,
        input::{Row, SessionEvent, Used},
        output::{OtherEnd, Output},
    },
    time::{Moment, Now},
    wire::message::{Block, Bye, Hello, Message, Ping, Pong},
};

/// The lowest protocol version this build speaks.
pub(super) const WIRE_MIN: u64 = 1;
/// The highest protocol version this build speaks.
pub(super) const WIRE_MAX: u64 = 1;
/// The feature of protocol §11 that this build knows: user data may go by transports of its own.
const TRANSPORT1: u64 = 1;

/// Hello is repeated this often until one came (protocol §4).
const HELLO_AGAIN: Duration = Duration::from_secs(1);

/// The state this machine has, or is making, with one peer.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// When the state was made.
    pub(super) made: Moment,
    /// When an initiation of ours last went out behind a Knock.
    pub(super) dialled: Option<Moment>,
    /// When the last Knock of theirs was let in.
    pub(super) admitted_at: Option<Moment>,
    /// How far the epoch of that Knock still reaches.
    pub(super) reach: Reach,
    /// Since when it stands, and where the other side is.
    pub(super) up: Option<Up>,
}

/// A state that stands.
#[derive(Clone, Debug)]
pub(super) struct Up {
    /// Where the other side is.
    pub(super) endpoint: Path,
    /// Whether our Hello went out in this state.
    pub(super) said_hello: bool,
    /// Theirs.
    pub(super) hello: Option<Hello>,
    /// When the last authenticated packet came.
    pub(super) heard: Moment,
}

impl Pair {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            made: now,
            dialled: None,
            admitted_at: None,
            reach: Reach::Everyone,
            up: None,
        }
    }

    /// The session, if it stands and has a path: one that stands by hand alone is of no use yet.
    pub(super) fn usable(&self) -> Option<&Up> {
        self.up.as_ref().filter(|up| up.endpoint.carries_data())
    }
}

impl Node {
    pub(super) fn on_session(&mut self, now: Now, session: SessionId, event: SessionEvent) {
        match (session, event) {
            (SessionId::Pair(peer), SessionEvent::Up { endpoint }) => {
                self.on_pair_up(now, peer, endpoint);
            }
            (SessionId::Pair(peer), SessionEvent::Down) => self.on_pair_gone(now, peer),
            (SessionId::Pair(peer), SessionEvent::NeedsKnock) => self.knock_for_rekey(now, peer),
            (SessionId::Join(join), SessionEvent::Up { endpoint }) => {
                self.on_join_up(now, join, endpoint);
            }
            (SessionId::Join(join), SessionEvent::Down) => self.forget_join(join),
            (SessionId::Join(_), SessionEvent::NeedsKnock) => {}
        }
    }

    fn on_pair_up(&mut self, now: Now, peer: PeerIx, endpoint: Path) {
        let node = self.ids.node(peer);
        if !self.may_open(now, node) {
            return self.close_pair(now, peer, Goodbye::Revoked);
        }
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(now.at));
        let up = Up {
            endpoint,
            said_hello: false,
            hello: None,
            heard: now.at,
        };
        if pair.up.replace(up).is_some() {
            // The other end made its state anew: what went into the old one may be lost.
            pair.made = now.at;
            self.passing.handle_gone(peer);
            self.unlinked.handle_down(SessionId::Pair(peer));
        }
        self.review_pace();
        self.note_met(now, node, endpoint);
        self.note_working(now, peer, endpoint);
        self.proofs.handle_up(now, SessionId::Pair(peer), endpoint);
        self.try_bound_legs(now, peer);
        self.look_closer(now, peer, endpoint);
        self.note_relay_at(peer);
        self.note_way(now, peer);
        self.note_session_time(now, peer);
        if endpoint.carries_data() {
            self.attempts.handle_up(peer);
            self.note_seen(now, peer, endpoint);
            self.note_sent(now, endpoint);
            self.say_hello(now, peer);
        } else {
            self.on_met(now, peer);
        }
        self.drop_join_sessions_of(node);
    }

    fn note_session_time(&mut self, now: Now, peer: PeerIx) {
        let node = self.ids.node(peer);
        let last_session_s = u32::try_from(now.unix_s()).unwrap_or(u32::MAX);
        let row = self
            .rows
            .get(&node)
            .copied()
            .unwrap_or_else(|| Row::of_one_never_heard(node));
        self.write_row(Row {
            last_session_s,
            ..row
        });
    }

    /// The state with a peer ended, by whomever: every core hears it.
    pub(super) fn on_pair_gone(&mut self, now: Now, peer: PeerIx) {
        let Some(gone) = self.pairs.remove(&peer) else {
            return;
        };
        self.review_pace();
        if let Some(up) = gone.up {
            self.note_closed(now, peer);
            self.note_sent(now, up.endpoint);
            self.attempts.handle_gone(now, peer);
        }
        self.timers.clear(&Timer::Hello(SessionId::Pair(peer)));
        self.timers.clear(&Timer::Pathless(peer));
        self.passing.handle_gone(peer);
        self.forget_knocking(peer);
        self.proofs.handle_down(SessionId::Pair(peer));
        self.gossip.handle_unlinked(peer);
        self.unlinked.handle_down(SessionId::Pair(peer));
        self.links.handle_closed(now, peer);
        self.homes.handle_down(now, peer);
        self.candidates.handle_observer_gone(peer);
        self.asking.handle_over(peer);
        self.asking.handle_relay_gone(peer);
        self.mesh_time.forget_link(self.ids.node(peer));
        self.review_reach(now);
    }

    /// Says Bye, and forgets the state.
    pub(super) fn close_pair(&mut self, now: Now, peer: PeerIx, goodbye: Goodbye) {
        let session = SessionId::Pair(peer);
        if self.is_up(peer) {
            self.send(
                session,
                Message::Bye(Bye {
                    reason: goodbye.reason(),
                }),
            );
        }
        self.drop_pair(now, peer);
    }

    /// Forgets the state without a word: it is of no use, or the other side has said the last.
    pub(super) fn drop_pair(&mut self, now: Now, peer: PeerIx) {
        self.outbox.push_back(Output::Close {
            session: SessionId::Pair(peer),
        });
        self.on_pair_gone(now, peer);
    }

    /// Where the session with a peer is, if one stands: perhaps by hand alone, perhaps by a leg that rests.
    pub(super) fn up_path(&self, peer: PeerIx) -> Option<Path> {
        let pair = self.pairs.get(&peer)?;
        Some(pair.up.as_ref()?.endpoint)
    }

    /// Where a session is, if data can go there.
    pub(super) fn open_path(&self, peer: PeerIx) -> Option<Path> {
        self.up_path(peer).filter(|path| path.carries_data())
    }

    /// Whether a session with a peer stands.
    pub(super) fn is_up(&self, peer: PeerIx) -> bool {
        self.up_path(peer).is_some()
    }

    /// What this machine can do and others need not, as Hello and its Peer record say it.
    pub(super) fn features(&self) -> u64 {
        match self.settings.transports {
            true => TRANSPORT1,
            false => 0,
        }
    }

    pub(super) fn own_hello(&self, now: Now, heard: bool, observed: Path) -> Hello {
        Hello {
            wire_min: WIRE_MIN,
            wire_max: WIRE_MAX,
            features: self.features(),
            role: 0,
            boot: self.identity.boot,
            time_ms: now.unix_ms,
            digest: self.registry.digest16(self.mesh_s(now)),
            heard,
            observed: observed.direct(),
        }
    }

    /// Where no path is proven yet, Hello waits for one.
    pub(super) fn say_hello(&mut self, now: Now, peer: PeerIx) {
        let up = self.pairs.get_mut(&peer).and_then(|pair| pair.up.as_mut());
        let Some(up) = up.filter(|up| up.endpoint.carries_data()) else {
            return;
        };
        up.said_hello = true;
        let (heard, endpoint) = (up.hello.is_some(), up.endpoint);
        let session = SessionId::Pair(peer);
        if !heard {
            self.timers
                .set(Timer::Hello(session), now.at.after(HELLO_AGAIN));
        }
        let hello = self.own_hello(now, heard, endpoint);
        self.send(session, Message::Hello(hello));
    }

    pub(super) fn repeat_hello(&mut self, now: Now, session: SessionId) {
        match session {
            SessionId::Pair(peer) => self.say_hello(now, peer),
            SessionId::Join(join) => self.say_join_hello(now, join),
        }
    }

    pub(super) fn on_message(&mut self, now: Now, peer: PeerIx, source: Path, message: Message) {
        let Some(up) = self.pairs.get(&peer).and_then(|pair| pair.up.as_ref()) else {
            return self.counters.count("message_without_session");
        };
        let greeted = up.hello.is_some();
        if message.block() != Block::Session && !greeted {
            return self.counters.count("message_before_hello");
        }
        match self.hearing_of(now, peer) {
            hearing if hearing.takes(&message) => {}
            Hearing::RenewOnly => return self.counters.count("message_of_ended"),
            Hearing::CatchingUp | Hearing::Everything => {
                return self.counters.count("message_of_old_epoch");
            }
        }
        self.note_seen(now, peer, source);
        self.note_leg_heard(now, source);
        self.homes.handle_heard(now, peer);
        match message {
            Message::Hello(hello) => self.on_hello(now, peer, hello),
            Message::Reaching(message) => self.on_reaching(now, peer, message),
            Message::Ping(ping) => {
                self.links.handle_kept(now, peer);
                self.on_ping(now, SessionId::Pair(peer), source, &ping);
            }
            Message::Pong(pong) => self.on_pong(now, SessionId::Pair(peer), source, &pong),
            Message::Bye(_) => {
                self.drop_pair(now, peer);
            }
            Message::Renew => self.on_renew(now, peer),
            Message::Link(link) => self.links.handle_link(now, peer, link.yes),
            Message::Unlink(unlink) => self.links.handle_unlink(now, peer, unlink.reason),
            Message::Introduced(introduced) => self.on_introduced(now, peer, introduced),
            Message::Redeem(_) => self.counters.count("message_unused"),
            Message::Relaying(message) => self.on_relaying(now, peer, message),
            Message::Refused(_) => self.counters.count("renewal_refused"),
            gossip @ (Message::Records(_)
            | Message::Advert(_)
            | Message::Want(_)
            | Message::Digest(_)
            | Message::Slots(_)
            | Message::Granted(_)) => self.on_gossip(now, peer, gossip),
        }
    }

    fn on_hello(&mut self, now: Now, peer: PeerIx, hello: Hello) {
        let features = self.features();
        let Some(up) = self.pairs.get_mut(&peer).and_then(|pair| pair.up.as_mut()) else {
            return;
        };
        let first = up.hello.is_none();
        let answer = !hello.heard || !up.said_hello;
        let (endpoint, observed) = (up.endpoint, hello.observed);
        let time_ms = hello.time_ms;
        let has_transports = hello.features & features & TRANSPORT1 != 0;
        up.hello = Some(hello);
        if let Some(observed) = observed {
            self.note_observed(now, peer, endpoint, observed);
        }
        self.hear_clock(now, peer, time_ms);
        self.timers.clear(&Timer::Hello(SessionId::Pair(peer)));
        if answer {
            self.say_hello(now, peer);
        }
        if first {
            self.on_greeted(now, peer);
        }
        if first && has_transports {
            self.begin_transport(peer);
        }
    }

    /// Both ends have transports: the data thread makes their keys once a packet of a program asks for them.
    fn begin_transport(&mut self, peer: PeerIx) {
        let node = self.ids.node(peer);
        let tunnel = self.members.tunnel_of(node);
        if let (Some(tunnel), Some(psk)) = (tunnel, self.pair_psk(node)) {
            self.outbox.push_back(Output::Transport {
                session: SessionId::Pair(peer),
                other: OtherEnd { node, tunnel, psk },
            });
        }
    }

    /// Both sides may speak: links, renewals and the own lease begin here.
    fn on_greeted(&mut self, now: Now, peer: PeerIx) {
        self.open_for_links(now, peer);
        self.attempts.handle_open(peer);
        self.end_knocking(peer);
        self.on_relay_open(now, peer);
        self.prove_by(now, peer);
        self.homes.handle_up(now, peer);
        self.send_waiting_pings(now, peer);
        self.review_reach(now);
        if !self.has_lease() {
            self.publish_lease(now);
        }
        self.renew_if_due(now, peer);
    }

    /// Lets the overlay have the session, unless it stands for renewal alone.
    pub(super) fn open_for_links(&mut self, now: Now, peer: PeerIx) {
        if self.hearing_of(now, peer) == Hearing::Everything {
            let opener = self.opener_of(peer);
            self.links.handle_open(now, peer, opener);
        }
    }

    /// An ended certificate opens a session with an admin for Renew and nothing else (protocol §8). Admins are heard
    /// all the same: what they say may be the very renewal.
    fn hearing_of(&self, now: Now, peer: PeerIx) -> Hearing {
        let node = self.ids.node(peer);
        let reach = self.pairs.get(&peer).map(|pair| pair.reach);
        if !self.membership(now, node).is_member() && !self.members.is_admin(node) {
            Hearing::RenewOnly
        } else if reach == Some(Reach::Admins) {
            Hearing::CatchingUp
        } else {
            Hearing::Everything
        }
    }

    /// Ends the session of a node that may have none any more: its certificate ended, or lost its authority.
    pub(super) fn close_if_out(&mut self, now: Now, node: NodeId) {
        let Some(peer) = self.ids.find(node).filter(|_| !self.may_open(now, node)) else {
            return;
        };
        self.end_ways_of(peer);
        if self.pairs.contains_key(&peer) {
            self.close_pair(now, peer, Goodbye::Revoked);
        }
    }

    /// An authenticated packet of a peer came by this path.
    fn note_seen(&mut self, now: Now, peer: PeerIx, path: Path) {
        if let Some(address) = path.direct() {
            self.seen.note(now.at, peer, address);
        }
    }

    /// A Ping is answered where it came from.
    pub(super) fn on_ping(&mut self, now: Now, session: SessionId, source: Path, ping: &Ping) {
        self.note_sent(now, source);
        self.proofs.handle_pinged(now, session, source);
        let pong = Pong {
            nonce: ping.nonce,
            path: ping.path,
            observed: source.direct(),
        };
        self.outbox.push_back(Output::Send {
            session,
            message: Message::Pong(pong),
            via: Some(source),
        });
    }

    pub(super) fn on_heard(&mut self, now: Now, one: Used) {
        let Used {
            session: SessionId::Pair(peer),
            heard,
            user,
        } = one
        else {
            return;
        };
        if let Some(up) = self.pairs.get_mut(&peer).and_then(|pair| pair.up.as_mut()) {
            up.heard = up.heard.max(heard);
            self.links.handle_heard(now, peer, heard, user);
            self.proofs.handle_used(now, SessionId::Pair(peer), user);
            self.refresh_session_time(now, peer);
            self.tend_legs(now, peer, user);
            self.tend_guess(now, peer);
        }
    }

    /// A session that stands for hours is as recent as one just made: the run after this one knocks there again.
    fn refresh_session_time(&mut self, now: Now, peer: PeerIx) {
        let node = self.ids.node(peer);
        let noted_s = self.rows.get(&node).map_or(0, |row| row.last_session_s);
        if now.unix_s().saturating_sub(u64::from(noted_s)) >= SESSION_NOTED_AGAIN_S {
            self.note_session_time(now, peer);
        }
    }
}

/// How old the note of a session in use gets, seconds: half of what counts as recent after a start.
const SESSION_NOTED_AGAIN_S: u64 = 300;

/// What is taken from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// All that a member may say.
    Everything,
    /// What keeps the session, records and certificates: it knows no secret of the last 90 days (protocol §2).
    CatchingUp,
    /// What keeps the session, and Renew.
    RenewOnly,
}

impl Hearing {
    fn takes(self, message: &Message) -> bool {
        match self {
            Self::Everything => true,
            Self::CatchingUp => matches!(
                message.block(),
                Block::Session | Block::Gossip | Block::Membership
            ),
            Self::RenewOnly => {
                message.block() == Block::Session || matches!(message, Message::Renew)
            }
        }
    }
}

/// Why a session is closed by this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// A link fell silent or is not wanted.
    Closing,
    /// This agent stops.
    Stopping,
    /// The other side is out.
    Revoked,
}

impl Goodbye {
    pub(super) fn reason(self) -> u64 {
        match self {
            Self::Closing => 0,
            Self::Stopping => 2,
            Self::Revoked => 3,
        }
    }
}
