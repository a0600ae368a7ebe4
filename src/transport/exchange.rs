//! The state of one pair: which keys there are, which seal, and the exchange that makes the next.
//!
//! ```text
//! initiator (lower node id)                         responder
//!                          <--- Please ---          wants keys and must not begin
//! Init (two halves)        --------------->         installs its receive key
//!                          <--------------- Response (two halves)
//! confirmed: installs, seals by the new key
//! Done, user packets       ===============>         opened one: seals by the new key
//!                          <===============         keepalive, user packets
//! opened one: it is through
//! ```

use std::collections::VecDeque;

use rand_core::RngCore;

use super::{
    halves::Halves,
    initiating::{Asking, Confirming},
    kem::{self, KemKey, KemRefused, SECRET_KEY_LEN, Shared},
    layout::{CIPHERTEXT_LEN, KEM_KEY_LEN, Xid},
    limits::{GIVE_UP, LAPSE, OLD_KEY, PAUSE, RECEIVE_KEYS, RESEND, STOP_AFTER},
    opening::Opening,
    responding::Answered,
    schedule::{End, Ground},
    sealing::Sealing,
    suite::{Aes, Suite},
};
use crate::{
    ids::{Boot, NetworkId},
    time::{Moment, Timers},
    wire::{
        Malformed,
        exchange::{self as frames, Exchange as Frame, INIT_LEN, RESPONSE_LEN},
    },
};

/// What an exchange cannot make by itself: the shell's random numbers and indexes, and ML-KEM, whose randomness is its
/// own ([`super::kem`]). A test puts stored values here.
pub trait Outside {
    /// A generator fit for keys.
    fn random(&mut self) -> &mut dyn RngCore;

    /// A receive index: the thread's number in the top byte, 24 random bits below. It is one that was not drawn before,
    /// or whose [`Output::Retire`] is [`super::limits::INDEX_REUSE`] ago.
    fn draw_index(&mut self) -> u32;

    /// Makes an ML-KEM key pair.
    ///
    /// # Errors
    /// There is none to be had.
    fn generate(&mut self) -> Result<KemKey, KemRefused> {
        kem::generate()
    }

    /// Seals a fresh secret to a key.
    ///
    /// # Errors
    /// It is no key.
    fn encapsulate(
        &mut self,
        public: &[u8; KEM_KEY_LEN],
    ) -> Result<([u8; CIPHERTEXT_LEN], Shared), KemRefused> {
        kem::encapsulate(public)
    }

    /// Opens a secret.
    ///
    /// # Errors
    /// The key is broken.
    fn decapsulate(
        &mut self,
        secret: &[u8; SECRET_KEY_LEN],
        ciphertext: &[u8; CIPHERTEXT_LEN],
    ) -> Result<Shared, KemRefused> {
        kem::decapsulate(secret, ciphertext)
    }
}

/// What this machine brings to every exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its AES.
    pub aes: Aes,
    /// Its run.
    pub boot: Boot,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send this control frame in the WireGuard session.
    Send(Vec<u8>),
    /// Open datagrams of its index by this key from now on.
    Install(Box<Opening>),
    /// Seal user packets by this key from now on, and let the one before go.
    Switch(Box<Sealing>),
    /// Seal this control frame by the key that seals, and send it where user packets go; empty: a keepalive.
    Seal(Vec<u8>),
    /// Both ends have the newest keys.
    Up(Suite),
    /// Send user packets by WireGuard from now on, and let the sealing key go.
    Withdraw,
    /// Let the opening key of this index go, if there is one, and keep the index from others for
    /// [`super::limits::INDEX_REUSE`]. Comes once for every index that was drawn.
    Retire(u32),
    /// An attempt has ended; what seals now goes on. The next is made [`PAUSE`] later.
    Failed(Failure),
}

/// Why an attempt came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer in 10 s.
    #[error("the peer does not answer: its long control frames or ours are lost on the way")]
    Silent,
    /// The keys were agreed upon, and then nothing came under them.
    #[error("nothing comes through under the new keys")]
    Unconfirmed,
    /// The peer said no.
    #[error("the peer refuses, reason {0}")]
    Refused(u8),
    /// The peer chose a suite that was not offered.
    #[error("the peer chose a cipher that was not offered")]
    Suite,
    /// An X25519 or ML-KEM key is none.
    #[error("a key of the exchange is no key")]
    Keys,
    /// The peer has other keys: another psk, other ids, or other messages.
    #[error("the two ends do not have the same keys")]
    Confirm,
}

/// Why a frame of the exchange was dropped. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not in the layout.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A Done in WireGuard, or another frame elsewhere.
    #[error("not sealed as this message must be")]
    Carrier,
    /// The sender has the other role.
    #[error("not for this end to say")]
    Role,
    /// It answers nothing that was asked.
    #[error("answers nothing that was asked")]
    Unasked,
    /// It belongs to an exchange that another has followed.
    #[error("of an exchange that is over")]
    Stale,
    /// Less than a second after the last.
    #[error("too soon after the last")]
    TooSoon,
    /// Its keys are none.
    #[error("a key of the exchange is no key")]
    Keys,
    /// Its confirmation is wrong.
    #[error("wrong confirmation")]
    Confirm,
}

/// Both ends are the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer has no transport with itself")]
pub struct EqualNodes;

/// What brought a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The pair's WireGuard session.
    WireGuard,
    /// A datagram that opened under this index.
    Transport(u32),
}

/// The transports of one pair, at one end. Not `Clone`, as its keys are not.
#[derive(Debug)]
pub struct Exchange {
    pub(super) ground: Ground,
    pub(super) role: Role,
    pub(super) terms: Terms,
    pub(super) stage: Stage,
    /// What the responder answered last.
    pub(super) answered: Option<Box<Answered>>,
    /// Exchanges that the responder answered before.
    pub(super) over: VecDeque<Xid>,
    pub(super) last_init: Option<Moment>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) timers: Timers<Wake>,
    receive_keys: VecDeque<ReceiveKey>,
    is_sealing: bool,
    last_user: Moment,
    remote_boot: Option<Boot>,
    inits: Halves<INIT_LEN>,
    responses: Halves<RESPONSE_LEN>,
}

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The lower node id.
    Initiator,
    /// The other.
    Responder,
}

/// What is under way.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing.
    Idle,
    /// An attempt came to nothing.
    Pausing(Meanwhile),
    /// The initiator waits for a Response.
    Asking(Box<Asking>, Tries),
    /// The initiator waits for the first packet under the new keys.
    Confirming(Confirming, Tries),
    /// The responder waits for an Init.
    Pleading(Tries),
}

/// What came in a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// Nothing.
    Nothing,
    /// A Please.
    Please,
}

/// How often a message was sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    pub(super) since: Moment,
    pub(super) again: usize,
}

/// A key that this end opens by. The last one is the newest.
#[derive(Clone, Copy, Debug)]
struct ReceiveKey {
    index: u32,
    opened: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// What waits for an answer is sent again.
    Resend,
    /// It is given up.
    GiveUp,
    /// The pause is over.
    Resume,
    /// Nobody may have used the transport for long.
    Lapse,
    /// The sealing key is too old.
    Stop,
    /// An answer is not asked for again.
    Forget,
    /// A half waited for long enough.
    Half,
    /// The key of an index is not needed any more.
    Retire(u32),
}

impl Exchange {
    /// A pair without keys.
    ///
    /// # Errors
    /// Both are the same node.
    pub fn new(
        network: NetworkId,
        (local, remote): (End, End),
        psk: [u8; 32],
        terms: Terms,
    ) -> Result<Self, EqualNodes> {
        let (role, initiator, responder) = match local.node.cmp(&remote.node) {
            std::cmp::Ordering::Less => (Role::Initiator, local, remote),
            std::cmp::Ordering::Greater => (Role::Responder, remote, local),
            std::cmp::Ordering::Equal => return Err(EqualNodes),
        };
        Ok(Self {
            ground: Ground {
                network,
                initiator,
                responder,
                psk,
            },
            role,
            terms,
            stage: Stage::Idle,
            answered: None,
            over: VecDeque::new(),
            last_init: None,
            outputs: VecDeque::new(),
            timers: Timers::default(),
            receive_keys: VecDeque::new(),
            is_sealing: false,
            last_user: Moment(0),
            remote_boot: None,
            inits: Halves::default(),
            responses: Halves::default(),
        })
    }

    /// A user packet waits that no key seals, or the one that does is worn ([`Sealing::is_worn`]). May be said for every
    /// packet; nothing else begins an exchange.
    pub fn handle_wanted(&mut self, now: Moment, outside: &mut impl Outside) {
        self.last_user = now;
        if !matches!(self.stage, Stage::Idle) {
            return;
        }
        match self.role {
            Role::Initiator => self.try_begin(now, outside),
            Role::Responder => self.try_plead(now, outside),
        }
    }

    /// User data was sealed or opened.
    pub fn handle_user_data(&mut self, now: Moment) {
        self.last_user = self.last_user.max(now);
    }

    /// Takes in a frame of the exchange ([`frames::is_exchange`]). Say first that its datagram opened, where it was
    /// the first of its key ([`Exchange::handle_opened`]).
    ///
    /// # Errors
    /// The frame is dropped, and the keys are what they were.
    pub fn handle_frame(
        &mut self,
        now: Moment,
        carrier: Carrier,
        frame: &[u8],
        outside: &mut impl Outside,
    ) -> Result<(), Refused> {
        match (frames::decode(frame)?, carrier) {
            (Frame::Init(half), Carrier::WireGuard) => {
                self.timers.set(Wake::Half, now.after(GIVE_UP));
                match self.inits.take(half) {
                    Some(init) => self.on_init(now, init, outside),
                    None => Ok(()),
                }
            }
            (Frame::Response(half), Carrier::WireGuard) => {
                self.timers.set(Wake::Half, now.after(GIVE_UP));
                match self.responses.take(half) {
                    Some(response) => self.on_response(now, &response, outside),
                    None => Ok(()),
                }
            }
            (Frame::Please, Carrier::WireGuard) => self.on_please(now, outside),
            (Frame::Done(done), Carrier::Transport(index)) => self.on_done(index, done),
            (Frame::Init(_) | Frame::Response(_) | Frame::Please, Carrier::Transport(_))
            | (Frame::Done(_), Carrier::WireGuard) => Err(Refused::Carrier),
        }
    }

    /// The first datagram under an index opened ([`super::opening::Order::First`]): the other end has these keys.
    pub fn handle_opened(&mut self, now: Moment, index: u32) {
        let Some(place) = self.receive_keys.iter().position(|key| key.index == index) else {
            return;
        };
        self.receive_keys[place].opened = true;
        let mut newer = self.receive_keys.iter().skip(place + 1);
        // One that another has followed goes when it was to go, however late its first datagram is.
        if !newer.any(|key| key.opened) {
            self.timers.set(Wake::Retire(index), now.after(STOP_AFTER));
        }
        for older in self.receive_keys.iter().take(place) {
            let wake = Wake::Retire(older.index);
            self.timers.set_earlier(wake, now.after(OLD_KEY));
        }
        match self.role {
            Role::Initiator => self.on_confirmed(index),
            Role::Responder => self.on_used(now, index),
        }
    }

    /// Carries out what is due.
    pub fn handle_timeout(&mut self, now: Moment, outside: &mut impl Outside) {
        while let Some(wake) = self.timers.pop_due(now) {
            match wake {
                Wake::Resend => self.resend(outside),
                Wake::GiveUp => self.on_given_up(now),
                Wake::Resume => self.resume(now, outside),
                Wake::Lapse => self.lapse(now),
                Wake::Stop => self.withdraw(),
                Wake::Forget => self.forget_answer(now),
                Wake::Half => {
                    self.inits.clear();
                    self.responses.clear();
                }
                Wake::Retire(index) => self.retire(index),
            }
        }
    }

    /// The WireGuard session ended, or this machine woke from a snapshot: no key is used any more. What was under way
    /// has ended too, without a word of it.
    pub fn handle_closed(&mut self) {
        self.withdraw();
        self.retire_all();
        self.abandon();
        self.stage = Stage::Idle;
        self.answered = None;
        self.over.clear();
        self.last_init = None;
        self.remote_boot = None;
        self.inits.clear();
        self.responses.clear();
        self.timers = Timers::default();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Exchange::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// Begins to wait for an answer.
    pub(super) fn tries(&mut self, now: Moment, outside: &mut impl Outside) -> Tries {
        let tries = Tries {
            since: now,
            again: 0,
        };
        self.set_resend(tries, outside);
        self.timers.set(Wake::GiveUp, now.after(GIVE_UP));
        tries
    }

    /// Nothing waits for an answer any more.
    pub(super) fn rest(&mut self, stage: Stage) {
        self.stage = stage;
        for wake in [Wake::Resend, Wake::GiveUp, Wake::Resume] {
            self.timers.clear(&wake);
        }
    }

    /// An attempt has ended without keys.
    pub(super) fn fail(&mut self, now: Moment, why: Failure) {
        self.abandon();
        self.rest(Stage::Pausing(Meanwhile::Nothing));
        self.timers.set(Wake::Resume, now.after(PAUSE));
        self.outputs.push_back(Output::Failed(why));
    }

    /// Adds a receive key; the oldest gives way.
    pub(super) fn install(&mut self, opening: Opening, until: Moment) {
        let index = opening.index();
        if self.receive_keys.len() == RECEIVE_KEYS
            && let Some(oldest) = self.receive_keys.front().map(|key| key.index)
        {
            self.retire(oldest);
        }
        self.receive_keys.push_back(ReceiveKey {
            index,
            opened: false,
        });
        self.timers.set(Wake::Retire(index), until);
        self.outputs.push_back(Output::Install(Box::new(opening)));
    }

    /// Seals by a new key from now on.
    pub(super) fn switch(&mut self, now: Moment, sealing: Sealing) {
        self.is_sealing = true;
        self.timers.set(Wake::Stop, now.after(STOP_AFTER));
        self.timers.set(Wake::Lapse, now.after(LAPSE));
        self.outputs.push_back(Output::Switch(Box::new(sealing)));
    }

    /// Seals by nothing any more.
    pub(super) fn withdraw(&mut self) {
        self.timers.clear(&Wake::Stop);
        self.timers.clear(&Wake::Lapse);
        if std::mem::take(&mut self.is_sealing) {
            self.outputs.push_back(Output::Withdraw);
        }
    }

    /// Whether a receive key waits for its first packet.
    pub(super) fn awaits_first(&self) -> bool {
        self.receive_keys.iter().any(|key| !key.opened)
    }

    /// The other end says from which run of its agent it talks: keys of another run are known to nobody.
    pub(super) fn note_boot(&mut self, boot: Boot) {
        let before = self.remote_boot.replace(boot);
        if before.is_none_or(|before| before == boot) {
            return;
        }
        self.withdraw();
        self.retire_all();
    }

    fn set_resend(&mut self, tries: Tries, outside: &mut impl Outside) {
        if let Some(after) = RESEND.get(tries.again) {
            // 80 % to 120 %.
            let permille = 800 + outside.random().next_u32() % 401;
            let at = tries.since.after(*after * permille / 1000);
            self.timers.set(Wake::Resend, at);
        }
    }

    fn resend(&mut self, outside: &mut impl Outside) {
        let tries = match &mut self.stage {
            Stage::Idle | Stage::Pausing(_) => return,
            Stage::Asking(asking, tries) => {
                let sent = asking.frames().map(Output::Send);
                self.outputs.extend(sent);
                tries
            }
            Stage::Confirming(confirming, tries) => {
                self.outputs.push_back(Output::Seal(confirming.frame()));
                tries
            }
            Stage::Pleading(tries) => {
                let frame = frames::please_frame(outside.random().next_u32());
                self.outputs.push_back(Output::Send(frame));
                tries
            }
        };
        tries.again += 1;
        let tries = *tries;
        self.set_resend(tries, outside);
    }

    fn on_given_up(&mut self, now: Moment) {
        match &self.stage {
            Stage::Idle | Stage::Pausing(_) => {}
            Stage::Asking(..) | Stage::Pleading(_) => self.fail(now, Failure::Silent),
            // What the other end seals under these keys is still opened: only our own packets are lost.
            Stage::Confirming(..) => {
                self.withdraw();
                self.fail(now, Failure::Unconfirmed);
            }
        }
    }

    fn resume(&mut self, now: Moment, outside: &mut impl Outside) {
        let Stage::Pausing(meanwhile) = self.stage else {
            return;
        };
        self.stage = Stage::Idle;
        if meanwhile == Meanwhile::Please {
            self.try_begin(now, outside);
        }
    }

    fn lapse(&mut self, now: Moment) {
        if now.since(self.last_user) >= LAPSE {
            self.withdraw();
        } else {
            self.timers.set(Wake::Lapse, self.last_user.after(LAPSE));
        }
    }

    /// The index of an Init that gets no key.
    fn abandon(&mut self) {
        if let Stage::Asking(asking, _) = &self.stage {
            let index = asking.index();
            self.outputs.push_back(Output::Retire(index));
        }
    }

    fn retire_all(&mut self) {
        while let Some(index) = self.receive_keys.front().map(|key| key.index) {
            self.retire(index);
        }
    }

    fn retire(&mut self, index: u32) {
        self.timers.clear(&Wake::Retire(index));
        self.receive_keys.retain(|key| key.index != index);
        self.outputs.push_back(Output::Retire(index));
    }
}
