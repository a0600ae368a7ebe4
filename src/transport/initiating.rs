//! The initiator's half of the exchange: Init, what the Response must hold, Done.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{
    exchange::{Exchange, Failure, Meanwhile, Output, Outside, Refused, Role, Stage},
    kem::{KemKey, Shared},
    layout::{Answer, Done, Init, Response, UNCONFIRMED_LEN},
    limits::{BETWEEN_INITS, OLD_KEY, STOP_AFTER},
    opening::Opening,
    schedule::{Schedule, is_confirmed},
    sealing::Sealing,
    suite::{Suite, Suites},
};
use crate::{
    time::Moment,
    wire::exchange::{self as frames, INIT_LEN, RESPONSE_LEN},
};

/// An Init that was sent, with the secrets behind it.
#[derive(Debug)]
pub(super) struct Asking {
    init: Init,
    bytes: [u8; INIT_LEN],
    x25519: Secret,
    kem: KemKey,
}

/// A Done that was sent.
#[derive(Debug)]
pub(super) struct Confirming {
    done: Done,
    suite: Suite,
    /// Under which index the responder's packets come.
    index: u32,
}

/// An ephemeral X25519 key, wiped when it is dropped.
pub(super) struct Secret(StaticSecret);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    pub(super) fn draw(outside: &mut impl Outside) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        outside.random().fill_bytes(&mut bytes[..]);
        Self(StaticSecret::from(*bytes))
    }

    pub(super) fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// What both know; none where the other's key makes it zero for everybody.
    pub(super) fn agree(&self, remote: [u8; 32]) -> Option<Shared> {
        let shared = self.0.diffie_hellman(&PublicKey::from(remote));
        shared
            .was_contributory()
            .then(|| Zeroizing::new(shared.to_bytes()))
    }
}

impl Asking {
    /// Under which index the responder's packets would come.
    pub(super) fn index(&self) -> u32 {
        self.init.index
    }

    /// The frames of the Init.
    pub(super) fn frames(&self) -> [Vec<u8>; 2] {
        frames::init_frames(number(&self.init.xid), &self.bytes)
    }
}

impl Confirming {
    /// The frame of the Done.
    pub(super) fn frame(&self) -> Vec<u8> {
        frames::done_frame(number(&self.done.xid), &self.done.encode())
    }
}

/// The number of an exchange's frames. Of equal messages it is equal.
pub(super) fn number(xid: &[u8; 16]) -> u32 {
    u32::from_le_bytes(*xid.first_chunk().expect("an xid has 16 bytes"))
}

pub(super) fn drawn<const N: usize>(outside: &mut impl Outside) -> [u8; N] {
    let mut bytes = [0; N];
    outside.random().fill_bytes(&mut bytes);
    bytes
}

impl Exchange {
    /// Sends an Init, unless the last is not a second old.
    pub(super) fn try_begin(&mut self, now: Moment, outside: &mut impl Outside) {
        let is_soon = |last| now.since(last) < BETWEEN_INITS;
        if self.last_init.is_some_and(is_soon) {
            return;
        }
        self.last_init = Some(now);
        let x25519 = Secret::draw(outside);
        let Ok(kem) = outside.generate() else {
            self.fail(now, Failure::Keys);
            return;
        };
        let init = Init {
            suites: Suites::of(self.terms.aes),
            index: outside.draw_index(),
            boot: self.terms.boot,
            xid: drawn(outside),
            nonce: drawn(outside),
            x25519: x25519.public(),
            kem: kem.public,
        };
        let asking = Box::new(Asking {
            bytes: init.encode(),
            init,
            x25519,
            kem,
        });
        self.outputs.extend(asking.frames().map(Output::Send));
        let tries = self.tries(now, outside);
        self.stage = Stage::Asking(asking, tries);
    }

    /// The responder asks for an Init: one is sent now, or after the pause.
    pub(super) fn on_please(
        &mut self,
        now: Moment,
        outside: &mut impl Outside,
    ) -> Result<(), Refused> {
        if self.role != Role::Initiator {
            return Err(Refused::Role);
        }
        match &mut self.stage {
            Stage::Idle => self.try_begin(now, outside),
            Stage::Pausing(meanwhile) => *meanwhile = Meanwhile::Please,
            // It is under way.
            Stage::Asking(..) | Stage::Confirming(..) | Stage::Pleading(_) => {}
        }
        Ok(())
    }

    pub(super) fn on_response(
        &mut self,
        now: Moment,
        bytes: &[u8; RESPONSE_LEN],
        outside: &mut impl Outside,
    ) -> Result<(), Refused> {
        let Stage::Asking(asking, _) = &self.stage else {
            return Err(Refused::Unasked);
        };
        let answer = Answer::decode(bytes)?;
        if answer.xid() != asking.init.xid {
            return Err(Refused::Unasked);
        }
        let agreed = match answer {
            Answer::Agreed(response) => {
                let unconfirmed = bytes.first_chunk().expect("a Response is longer");
                let schedule = self.judge(asking, &response, unconfirmed, outside);
                schedule.map(|schedule| (response, schedule))
            }
            Answer::Refused { status, .. } => Err(Failure::Refused(status)),
        };
        match agreed {
            Ok((response, schedule)) => self.on_agreed(now, &response, &schedule, outside),
            Err(why) => self.fail(now, why),
        }
        Ok(())
    }

    /// The keys of a Response, if it is one.
    fn judge(
        &self,
        asking: &Asking,
        response: &Response,
        unconfirmed: &[u8; UNCONFIRMED_LEN],
        outside: &mut impl Outside,
    ) -> Result<Schedule, Failure> {
        if !asking.init.suites.has(response.suite) {
            return Err(Failure::Suite);
        }
        let x25519 = asking.x25519.agree(response.x25519);
        let x25519 = x25519.ok_or(Failure::Keys)?;
        let kem = outside
            .decapsulate(&asking.kem.secret, &response.ciphertext)
            .map_err(|_refused| Failure::Keys)?;
        let schedule = Schedule::derive(&self.ground, &asking.bytes, unconfirmed, (&kem, &x25519));
        if !is_confirmed(&schedule.confirm_responder, &response.confirm) {
            return Err(Failure::Confirm);
        }
        Ok(schedule)
    }

    /// Both have the keys, and the responder opens by them: they seal from now on.
    fn on_agreed(
        &mut self,
        now: Moment,
        response: &Response,
        schedule: &Schedule,
        outside: &mut impl Outside,
    ) {
        let Stage::Asking(asking, _) = &self.stage else {
            return;
        };
        let index = asking.index();
        let confirming = Confirming {
            done: Done {
                xid: response.xid,
                confirm: schedule.confirm_initiator,
            },
            suite: response.suite,
            index,
        };
        self.note_boot(response.boot);
        let (inbound, outbound) = (&schedule.to_initiator, &schedule.to_responder);
        let opening = Opening::new(response.suite, inbound, index);
        self.install(opening, now.after(STOP_AFTER + OLD_KEY));
        self.switch(
            now,
            Sealing::new(now, response.suite, outbound, response.index),
        );
        self.outputs.push_back(Output::Seal(confirming.frame()));
        let tries = self.tries(now, outside);
        self.stage = Stage::Confirming(confirming, tries);
    }

    #[cfg(test)]
    pub(super) fn last_init(&self) -> [u8; INIT_LEN] {
        let Stage::Asking(asking, _) = &self.stage else {
            panic!("no Init was sent");
        };
        asking.bytes
    }

    /// A packet opened under these keys: the responder seals by them.
    pub(super) fn on_confirmed(&mut self, index: u32) {
        let Stage::Confirming(confirming, _) = &self.stage else {
            return;
        };
        if confirming.index == index {
            self.outputs.push_back(Output::Up(confirming.suite));
            self.rest(Stage::Idle);
        }
    }
}
