//! Two ends, and a network between them that does as it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_lc_rs::digest;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use zeroize::Zeroizing;

use crate::{
    ids::{Boot, NetworkId, NodeId},
    time::Moment,
    transport::{
        Carrier, Content, Exchange, Failure, NotOpened, Opening, Order, Output, Outside, Refused,
        Sealing, Terms,
        kem::{self, KemKey, KemRefused, SECRET_KEY_LEN, Shared},
        layout::{CIPHERTEXT_LEN, KEM_KEY_LEN},
        padded,
        schedule::End,
        suite::{Aes, Suite},
    },
    wire::exchange::{self as frames, Exchange as Frame, Side},
};

pub(super) const NETWORK: NetworkId = NetworkId([1; 32]);
pub(super) const PSK: [u8; 32] = [2; 32];
/// The lower node id: she begins.
pub(super) const ALICE: End = End {
    node: NodeId([3; 32]),
    tunnel: [4; 32],
};
pub(super) const BOB: End = End {
    node: NodeId([5; 32]),
    tunnel: [6; 32],
};
/// From one end to the other.
pub(super) const WAY: Duration = Duration::from_millis(10);

pub(super) const ALICE_SIDE: usize = 0;
pub(super) const BOB_SIDE: usize = 1;

/// Whether ML-KEM is computed, or something as good to a test about messages and times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kem {
    Real,
    Cheap,
}

pub(super) struct Source {
    random: ChaCha12Rng,
    kem: Kem,
    /// Indexes that were drawn and not retired.
    drawn: BTreeSet<u32>,
}

impl Source {
    pub(super) fn new(seed: u64, kem: Kem) -> Self {
        Self {
            random: ChaCha12Rng::seed_from_u64(seed),
            kem,
            drawn: BTreeSet::new(),
        }
    }
}

impl Outside for Source {
    fn random(&mut self) -> &mut dyn RngCore {
        &mut self.random
    }

    fn draw_index(&mut self) -> u32 {
        let index = 1 << 24 | self.random.next_u32() >> 8;
        assert!(self.drawn.insert(index), "drawn again");
        index
    }

    fn generate(&mut self) -> Result<KemKey, KemRefused> {
        if self.kem == Kem::Real {
            return kem::generate();
        }
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        let mut key = KemKey {
            public: [0; KEM_KEY_LEN],
            secret: Zeroizing::new([0; SECRET_KEY_LEN]),
        };
        key.public[..32].copy_from_slice(&seed);
        key.secret[..32].copy_from_slice(&seed);
        Ok(key)
    }

    fn encapsulate(
        &mut self,
        public: &[u8; KEM_KEY_LEN],
    ) -> Result<([u8; CIPHERTEXT_LEN], Shared), KemRefused> {
        if self.kem == Kem::Real {
            return kem::encapsulate(public);
        }
        let mut ciphertext = [0; CIPHERTEXT_LEN];
        self.random.fill_bytes(&mut ciphertext[..32]);
        let shared = cheap(public, &ciphertext);
        Ok((ciphertext, shared))
    }

    fn decapsulate(
        &mut self,
        secret: &[u8; SECRET_KEY_LEN],
        ciphertext: &[u8; CIPHERTEXT_LEN],
    ) -> Result<Shared, KemRefused> {
        if self.kem == Kem::Real {
            return kem::decapsulate(secret, ciphertext);
        }
        Ok(cheap(secret, ciphertext))
    }
}

fn cheap(key: &[u8], ciphertext: &[u8]) -> Shared {
    let both = [&key[..32], ciphertext].concat();
    let hash = digest::digest(&digest::SHA256, &both);
    Zeroizing::new(hash.as_ref().try_into().unwrap())
}

/// What a datagram is to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    InitFirst,
    InitSecond,
    ResponseFirst,
    ResponseSecond,
    Done,
    Please,
    Keepalive,
    User,
}

#[derive(Clone, Debug)]
enum Datagram {
    /// A control frame in WireGuard.
    Frame(Vec<u8>),
    /// A user packet in WireGuard.
    Packet(u64),
    /// A transport's.
    Sealed(Vec<u8>),
}

/// One end, and what a data thread holds for it.
pub(super) struct Peer {
    pub(super) exchange: Exchange,
    pub(super) source: Source,
    pub(super) openings: BTreeMap<u32, Opening>,
    pub(super) sealing: Option<Box<Sealing>>,
    pub(super) failures: Vec<Failure>,
    pub(super) refused: Vec<Refused>,
    pub(super) ups: Vec<Suite>,
    /// User packets that arrived, and how many of them under a transport.
    pub(super) arrived: Vec<u64>,
    pub(super) by_transport: usize,
    /// Datagrams under an index that nobody has, or that did not open.
    pub(super) lost: usize,
    pub(super) most_keys: usize,
    pub(super) switches: usize,
    sent: u64,
}

/// How long each copy of a datagram is under way; none: it is lost.
pub(super) type Fate<'a> = dyn FnMut(Piece, usize) -> Vec<Duration> + 'a;

pub(super) struct World<'a> {
    pub(super) now: Moment,
    pub(super) ends: [Peer; 2],
    /// What was sent, in order: by whom, what, when.
    pub(super) log: Vec<(usize, Piece, Moment)>,
    sent: BTreeMap<Piece, usize>,
    under_way: BTreeMap<(Moment, u64), (usize, Datagram)>,
    fate: Box<Fate<'a>>,
    serial: u64,
}

pub(super) fn always(_: Piece, _: usize) -> Vec<Duration> {
    vec![WAY]
}

/// These are lost.
pub(super) fn losing(lost: &'static [Piece]) -> impl FnMut(Piece, usize) -> Vec<Duration> {
    move |piece, _| {
        if lost.contains(&piece) {
            vec![]
        } else {
            vec![WAY]
        }
    }
}

pub(super) fn terms(aes: Aes, boot: u8) -> Terms {
    Terms {
        aes,
        boot: Boot([boot; 8]),
    }
}

pub(super) fn exchange(local: End, remote: End, terms: Terms) -> Exchange {
    Exchange::new(NETWORK, (local, remote), PSK, terms).unwrap()
}

fn end(exchange: Exchange, source: Source) -> Peer {
    Peer {
        exchange,
        source,
        openings: BTreeMap::new(),
        sealing: None,
        failures: Vec::new(),
        refused: Vec::new(),
        ups: Vec::new(),
        arrived: Vec::new(),
        by_transport: 0,
        lost: 0,
        most_keys: 0,
        switches: 0,
        sent: 0,
    }
}

impl<'a> World<'a> {
    pub(super) fn new(
        seed: u64,
        kem: Kem,
        fate: impl FnMut(Piece, usize) -> Vec<Duration> + 'a,
    ) -> Self {
        let hard = |boot| terms(Aes::InHardware, boot);
        let alice = exchange(ALICE, BOB, hard(7));
        let bob = exchange(BOB, ALICE, hard(8));
        Self::of([alice, bob], seed, kem, fate)
    }

    pub(super) fn of(
        [alice, bob]: [Exchange; 2],
        seed: u64,
        kem: Kem,
        fate: impl FnMut(Piece, usize) -> Vec<Duration> + 'a,
    ) -> Self {
        Self {
            now: Moment(1_000_000_000),
            ends: [
                end(alice, Source::new(2 * seed, kem)),
                end(bob, Source::new(2 * seed + 1, kem)),
            ],
            log: Vec::new(),
            sent: BTreeMap::new(),
            under_way: BTreeMap::new(),
            fate: Box::new(fate),
            serial: 0,
        }
    }

    pub(super) fn set_fate(&mut self, fate: impl FnMut(Piece, usize) -> Vec<Duration> + 'a) {
        self.fate = Box::new(fate);
    }

    /// A program at one end sends a packet, as the data thread would.
    pub(super) fn send_user(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let number = end.sent;
        end.sent += 1;
        let wants = end
            .sealing
            .as_ref()
            .is_none_or(|sealing| sealing.is_worn(self.now));
        if wants {
            end.exchange.handle_wanted(self.now, &mut end.source);
        }
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[12..].copy_from_slice(&number.to_le_bytes());
        match self.seal(at, &packet, padded(20, 1400)) {
            Some(sealed) => {
                self.ends[at].exchange.handle_user_data(self.now);
                self.post(at, Piece::User, Datagram::Sealed(sealed));
            }
            None => self.post(at, Piece::User, Datagram::Packet(number)),
        }
        self.drain(at);
    }

    pub(super) fn want(&mut self, at: usize) {
        let end = &mut self.ends[at];
        end.exchange.handle_wanted(self.now, &mut end.source);
        self.drain(at);
    }

    /// How many indexes an end has drawn and not retired.
    pub(super) fn drawn(&self, at: usize) -> usize {
        self.ends[at].source.drawn.len()
    }

    pub(super) fn close(&mut self, at: usize) {
        self.ends[at].exchange.handle_closed();
        self.drain(at);
    }

    /// Lets time pass, and all that happens in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now.after(time);
        loop {
            let arrival = self.under_way.keys().next().map(|(at, _)| *at);
            let timers = self
                .ends
                .iter()
                .filter_map(|end| end.exchange.poll_timeout());
            let Some(next) = timers.chain(arrival).min().filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            for at in [ALICE_SIDE, BOB_SIDE] {
                let end = &mut self.ends[at];
                end.exchange.handle_timeout(self.now, &mut end.source);
                self.drain(at);
            }
            while let Some(first) = self.under_way.first_entry()
                && first.key().0 <= self.now
            {
                let (to, datagram) = first.remove();
                self.deliver(to, datagram);
                self.drain(to);
            }
        }
        self.now = until;
    }

    pub(super) fn has_all(&self, at: usize) -> bool {
        let mut arrived = self.ends[at].arrived.clone();
        arrived.sort_unstable();
        arrived == (0..self.ends[1 - at].sent).collect::<Vec<_>>()
    }

    /// How often something was sent.
    pub(super) fn count(&self, wanted: Piece) -> usize {
        self.sent.get(&wanted).copied().unwrap_or(0)
    }

    /// When something was sent, after its first time.
    pub(super) fn times(&self, wanted: Piece) -> Vec<Duration> {
        let times = self.log.iter().filter(|(_, piece, _)| *piece == wanted);
        let times: Vec<_> = times.map(|(_, _, at)| *at).collect();
        times.iter().map(|at| at.since(times[0])).collect()
    }

    /// A frame arrives that nobody sent.
    pub(super) fn inject(&mut self, to: usize, frame: Vec<u8>) {
        self.deliver(to, Datagram::Frame(frame));
        self.drain(to);
    }

    fn seal(&mut self, at: usize, packet: &[u8], padded: usize) -> Option<Vec<u8>> {
        let end = &mut self.ends[at];
        let sealing = end.sealing.as_ref()?;
        let mut run = sealing.run(self.now, 1, padded).ok()?;
        let mut out = vec![0; 1500];
        let len = run.seal(packet, padded, &mut out).unwrap();
        out.truncate(len);
        Some(out)
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.ends[at].exchange.poll_output() {
            let end = &mut self.ends[at];
            match output {
                Output::Send(frame) => {
                    let piece = piece(&frame);
                    self.post(at, piece, Datagram::Frame(frame));
                }
                Output::Install(opening) => {
                    end.openings.insert(opening.index(), *opening);
                    end.most_keys = end.most_keys.max(end.openings.len());
                }
                Output::Switch(sealing) => {
                    end.sealing = Some(sealing);
                    end.switches += 1;
                }
                Output::Seal(frame) => {
                    let piece = if frame.is_empty() {
                        Piece::Keepalive
                    } else {
                        piece(&frame)
                    };
                    let sealed = self.seal(at, &frame, frame.len()).expect("a key seals");
                    self.post(at, piece, Datagram::Sealed(sealed));
                }
                Output::Up(suite) => end.ups.push(suite),
                Output::Withdraw => end.sealing = None,
                Output::Retire(index) => {
                    assert!(end.source.drawn.remove(&index), "drawn and retired once");
                    end.openings.remove(&index);
                }
                Output::Failed(why) => end.failures.push(why),
            }
        }
    }

    fn post(&mut self, from: usize, piece: Piece, datagram: Datagram) {
        let sent = self.sent.entry(piece).or_default();
        let before = *sent;
        *sent += 1;
        self.log.push((from, piece, self.now));
        for delay in (self.fate)(piece, before) {
            self.serial += 1;
            let key = (self.now.after(delay), self.serial);
            self.under_way.insert(key, (1 - from, datagram.clone()));
        }
    }

    fn deliver(&mut self, to: usize, datagram: Datagram) {
        let end = &mut self.ends[to];
        let result = match datagram {
            Datagram::Packet(number) => {
                end.arrived.push(number);
                Ok(())
            }
            Datagram::Frame(frame) => {
                let carrier = Carrier::WireGuard;
                end.exchange
                    .handle_frame(self.now, carrier, &frame, &mut end.source)
            }
            Datagram::Sealed(bytes) => return self.open(to, &bytes),
        };
        end.refused.extend(result.err());
    }

    fn open(&mut self, to: usize, bytes: &[u8]) {
        let end = &mut self.ends[to];
        let index = u32::from_le_bytes(*bytes[4..].first_chunk().unwrap());
        let Some(opening) = end.openings.get_mut(&index) else {
            end.lost += 1;
            return;
        };
        let mut bytes = bytes.to_vec();
        let opened = match opening.open(self.now, &mut bytes) {
            Ok(opened) => opened,
            Err(NotOpened::Replay(_)) => return,
            Err(_) => {
                end.lost += 1;
                return;
            }
        };
        if opened.order == Order::First {
            end.exchange.handle_opened(self.now, index);
        }
        match opened.content {
            Content::Keepalive => {}
            Content::Packet(packet) => {
                end.exchange.handle_user_data(self.now);
                end.by_transport += 1;
                let number = packet[12..].first_chunk().unwrap();
                end.arrived.push(u64::from_le_bytes(*number));
            }
            Content::Frame(frame) => {
                let carrier = Carrier::Transport(index);
                let result = end
                    .exchange
                    .handle_frame(self.now, carrier, frame, &mut end.source);
                end.refused.extend(result.err());
            }
            Content::Other => panic!("nobody seals this"),
        }
    }
}

fn piece(frame: &[u8]) -> Piece {
    match frames::decode(frame).unwrap() {
        Frame::Init(half) if half.side == Side::First => Piece::InitFirst,
        Frame::Init(_) => Piece::InitSecond,
        Frame::Response(half) if half.side == Side::First => Piece::ResponseFirst,
        Frame::Response(_) => Piece::ResponseSecond,
        Frame::Done(_) => Piece::Done,
        Frame::Please => Piece::Please,
    }
}
