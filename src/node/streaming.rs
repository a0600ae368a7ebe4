//! A peer is reached on a TLS stream where UDP goes nowhere (design §9, protocol §1): who dials, whom, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    addr::{Path, Underlay},
    ids::{JoinId, PeerIx, SessionId, StreamIx},
    node::{Node, Timer, output::Output},
    paths::{
        allowed::{is_one_link, is_private},
        distress::Cause,
    },
    time::{Moment, Now},
    wire::sealed::{Header, Kind},
};

/// How long UDP is given in an attempt.
const AFTER: Duration = Duration::from_millis(1500);

/// How long after one try the next one to the same peer comes at the earliest.
const AGAIN: Duration = Duration::from_secs(15);

/// How many are dialled at one time.
const AT_ONCE: usize = 2;

/// How soon a peer has its turn that found so many being dialled.
const TURN_AGAIN: Duration = Duration::from_millis(500);

/// How young a sign of life by UDP from elsewhere must be to show that UDP is not blocked here.
const UDP_WORKS: Duration = Duration::from_secs(20);

/// How often a peer that is reached on a stream is tried by UDP: a firewall may open, a laptop may move.
const UDP_AGAIN: Duration = Duration::from_secs(10);

/// How often that UDP gets out again has every path tried: a peer that answers by it now and then must not move us for ever.
const UDP_BACK_EVERY: Duration = Duration::from_mins(10);

/// Flag of a Peer record: it takes streams (protocol §11).
pub(super) const TAKES_STREAMS: u64 = 16;

/// The streams of this machine to others.
#[derive(Clone, Debug, Default)]
pub(super) struct Streaming {
    standing: BTreeMap<PeerIx, Standing>,
    dialling: BTreeSet<PeerIx>,
    tried: BTreeMap<PeerIx, Moment>,
    /// Where joiners come from who are to be introduced on a stream that they began here.
    joiners: BTreeMap<StreamIx, Underlay>,
    /// When UDP was last found to get out again.
    udp_back: Option<Moment>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Standing {
    stream: StreamIx,
    /// Which machine took it: where the session that stands on it proves the peer to be.
    host: Option<IpAddr>,
}

/// How a stream that this machine asked for went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// It stands.
    Opened {
        /// To whom.
        peer: PeerIx,
        /// Its number.
        stream: StreamIx,
        /// Which machine took it, if that is known.
        host: Option<IpAddr>,
    },
    /// It cannot be had.
    Failed {
        /// To whom.
        peer: PeerIx,
    },
    /// One of ours began a stream here.
    Taken {
        /// From where.
        from: Underlay,
    },
    /// Somebody with a token begins one here, to be introduced to its issuer. It may come to stand.
    Introducing {
        /// Its number.
        stream: StreamIx,
        /// From where.
        from: Underlay,
    },
    /// It stood, by whomever it was begun, and is over.
    Closed {
        /// Its number.
        stream: StreamIx,
    },
}

impl Node {
    /// The keys under which a stream may begin here; none: it is not for us.
    pub fn stream_keys(&self, now: Now, header: &Header) -> Vec<[u8; 32]> {
        match header.kind {
            Kind::Knock => self
                .openers(now, header.epoch)
                .map(|opener| opener.secret.stream_key())
                .collect(),
            Kind::Join => self
                .invites
                .find(JoinId(header.hint), now.unix_s())
                .into_iter()
                .map(|invite| invite.secret.join_key())
                .collect(),
            Kind::Introduce => self
                .introduce_keys(JoinId(header.hint))
                .iter()
                .map(|key| *key.key())
                .collect(),
            Kind::Beacon | Kind::Punch => Vec::new(),
        }
    }

    /// Whether others may begin streams here: they are taken, and this machine may be reachable. That it is shows only when
    /// somebody did.
    pub fn offers_streams(&self) -> bool {
        let own = self.candidates.own();
        self.settings.streams && own.into_iter().any(Underlay::is_public)
    }

    /// What the own Peer record says of streams.
    pub(super) fn stream_flag(&self, now: Now) -> u64 {
        match self.settings.streams && self.is_reached(now) {
            true => TAKES_STREAMS,
            false => 0,
        }
    }

    /// The addresses of this machine's interfaces on the default route, with the port.
    pub fn interfaces(&self) -> &[Underlay] {
        self.candidates.interfaces()
    }

    /// A session is wanted: if UDP brings none, a stream is tried.
    pub(super) fn plan_stream(&mut self, now: Now, peer: PeerIx) {
        if self.takes_streams(peer) && !self.streaming.standing.contains_key(&peer) {
            let at = now.at.after(AFTER);
            self.timers.set_earlier(Timer::Stream(peer), at);
        }
    }

    pub(super) fn on_stream_due(&mut self, now: Now, peer: PeerIx) {
        if self.streaming.standing.contains_key(&peer) {
            return self.try_udp_again(now, peer);
        }
        let is_wanted = self.attempts.is_under_way(peer) && !self.is_up(peer);
        let tried = self.streaming.tried.get(&peer).copied();
        let is_young = tried.is_some_and(|tried| now.at.since(tried) < AGAIN);
        if !is_wanted || is_young || self.udp_works(now) {
            return;
        }
        if self.streaming.dialling.len() >= AT_ONCE {
            let turn = now.at.after(TURN_AGAIN);
            return self.timers.set(Timer::Stream(peer), turn);
        }
        self.open_stream(now, peer);
    }

    fn open_stream(&mut self, now: Now, peer: PeerIx) {
        let node = self.ids.node(peer);
        let Some((epoch, secret)) = self.members.newest_epoch() else {
            return;
        };
        let header = Header {
            kind: Kind::Knock,
            epoch: u8::try_from(epoch % 256).unwrap_or(0),
            hint: [0; 8],
        };
        let secret = secret.clone();
        let to = self.stream_addresses(now, peer);
        if to.is_empty() || !self.may_open(now, node) {
            return;
        }
        self.streaming.tried.insert(peer, now.at);
        self.streaming.dialling.insert(peer);
        self.counters.count("stream_dialled");
        self.outbox.push_back(Output::OpenStream {
            peer,
            to,
            header,
            secret,
        });
    }

    /// Where a peer may take streams, those that mean the same everywhere first. A private address is somebody else's
    /// unless the peer is on one link with this machine.
    fn stream_addresses(&self, now: Now, peer: PeerIx) -> Vec<Underlay> {
        let candidates = self.candidates.of(now, peer);
        let (private, mut to): (Vec<Underlay>, Vec<Underlay>) = candidates
            .into_iter()
            .partition(|address| is_private(address.ip()));
        let is_near = |other: &Underlay| {
            let mut own = self.candidates.interfaces().iter();
            own.any(|own| is_one_link(own.ip(), other.ip()))
        };
        to.extend(private.into_iter().filter(is_near));
        to
    }

    pub(super) fn on_stream(&mut self, now: Now, event: StreamEvent) {
        match event {
            StreamEvent::Opened { peer, stream, host } => {
                self.streaming.dialling.remove(&peer);
                let standing = Standing { stream, host };
                self.streaming.standing.insert(peer, standing);
                self.timers
                    .set(Timer::Stream(peer), now.at.after(UDP_AGAIN));
                self.offer_path(now, peer, Path::Stream(stream));
            }
            StreamEvent::Failed { peer } => {
                self.streaming.dialling.remove(&peer);
            }
            StreamEvent::Taken { from } => self.note_stream_taken(now, from),
            StreamEvent::Introducing { stream, from } => {
                self.streaming.joiners.insert(stream, from);
                self.note_stream_taken(now, from);
            }
            StreamEvent::Closed { stream } => self.on_stream_closed(now, stream),
        }
    }

    /// The path is gone: a session that is known to have another goes on there. Whoever was reached by it alone is dialled
    /// anew when somebody wants him, links at once.
    fn on_stream_closed(&mut self, now: Now, stream: StreamIx) {
        self.streaming.joiners.remove(&stream);
        let to = self.streaming.standing.iter();
        let ended: Vec<PeerIx> = to
            .filter(|(_, known)| known.stream == stream)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in ended {
            self.streaming.standing.remove(&peer);
            self.timers.clear(&Timer::Stream(peer));
        }
        let path = Path::Stream(stream);
        let peers = self.pairs.keys().copied();
        let is_lost = |peer: &PeerIx| self.up_path(*peer) == Some(path);
        let lost: Vec<PeerIx> = peers.filter(is_lost).collect();
        let has_other = |peer: &PeerIx| self.proofs.has_other(now, SessionId::Pair(*peer));
        let (moving, ending): (Vec<PeerIx>, Vec<PeerIx>) = lost.into_iter().partition(has_other);
        self.proofs.handle_path_gone(now, path);
        for peer in moving {
            let session = SessionId::Pair(peer);
            self.proofs.handle_unheard(now, session, Cause::Gone);
        }
        for peer in ending {
            self.drop_pair(now, peer);
        }
    }

    /// A path to a peer became known: it is dialled in an attempt, or Pinged in the session that stands.
    pub(super) fn offer_path(&mut self, now: Now, peer: PeerIx, path: Path) {
        if self.is_up(peer) {
            self.proofs
                .handle_candidates(now, SessionId::Pair(peer), &[path]);
        } else {
            let purpose = crate::paths::attempt::Purpose::Link;
            self.attempts.start(now, peer, purpose, [path].as_slice());
        }
    }

    fn try_udp_again(&mut self, now: Now, peer: PeerIx) {
        let session = SessionId::Pair(peer);
        let paths = self.paths_to(now, peer);
        let host = self.host_of(peer);
        let is_there = |path: &Path| path.direct().is_some_and(|at| Some(at.ip()) == host);
        let paths = paths.into_iter().filter(|path| path.direct().is_some());
        let (there, elsewhere): (Vec<Path>, Vec<Path>) = paths.partition(is_there);
        for path in there {
            self.proofs.ask_host(now, session, path);
        }
        self.proofs.handle_candidates(now, session, &elsewhere);
        self.timers
            .set(Timer::Stream(peer), now.at.after(UDP_AGAIN));
    }

    /// The machine at which a peer is, as the session on a stream to there shows.
    fn host_of(&self, peer: PeerIx) -> Option<IpAddr> {
        let standing = self.streaming.standing.get(&peer)?;
        standing.host.filter(|_| self.is_on_stream(peer))
    }

    /// A session that is on a stream to outside goes to `endpoint` from now on. Where that is the first by UDP, UDP gets out
    /// again, to others too.
    pub(super) fn note_udp_back(&mut self, now: Now, peer: PeerIx, endpoint: Path) {
        let outside = endpoint.direct().is_some_and(Underlay::is_public);
        let last = self.streaming.udp_back;
        let is_news = last.is_none_or(|at| now.at.since(at) >= UDP_BACK_EVERY);
        if outside && is_news && self.is_on_stream(peer) && !self.udp_works(now) {
            self.streaming.udp_back = Some(now.at);
            self.on_woke(now);
            self.settle(now);
        }
    }

    /// Whether the data of a session goes on a stream of ours.
    fn is_on_stream(&self, peer: PeerIx) -> bool {
        let stream = self.stream_to(peer);
        stream.is_some() && stream == self.up_path(peer)
    }

    /// The stream to a peer, if one stands.
    pub(super) fn stream_to(&self, peer: PeerIx) -> Option<Path> {
        let standing = self.streaming.standing.get(&peer)?;
        Some(Path::Stream(standing.stream))
    }

    /// Where a joiner comes from who sends what is to be handed on by this path.
    pub(super) fn joiner_at(&self, path: Path) -> Option<Underlay> {
        match path {
            Path::Direct(address) => Some(address),
            Path::Stream(stream) => self.streaming.joiners.get(&stream).copied(),
            Path::Relay(_) | Path::Handed(_) => None,
        }
    }

    fn takes_streams(&self, peer: PeerIx) -> bool {
        let record = self.members.peer(self.ids.node(peer));
        record.is_some_and(|record| record.flags & TAKES_STREAMS != 0)
    }

    /// Whether somebody outside this site was heard by UDP a moment ago: then it is not UDP that is blocked.
    fn udp_works(&self, now: Now) -> bool {
        self.pairs
            .values()
            .filter_map(|pair| pair.up.as_ref())
            .any(|up| {
                let outside = up.endpoint.direct().is_some_and(Underlay::is_public);
                outside && now.at.since(up.heard) < UDP_WORKS
            })
    }
}
