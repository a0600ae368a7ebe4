//! The responder's half of the exchange: Please, Response, and the first packet under the new keys.

use super::{
    exchange::{Exchange, Failure, Output, Outside, Refused, Role, Stage, Wake},
    initiating::{Secret, drawn, number},
    layout::{CONFIRM_LEN, Done, Init, Response, Xid},
    limits::{BETWEEN_INITS, UNUSED_KEY},
    opening::Opening,
    schedule::{Direction, Schedule, is_confirmed},
    sealing::Sealing,
    suite::Suite,
};
use crate::{
    time::Moment,
    wire::exchange::{self as frames, DONE_LEN, INIT_LEN, RESPONSE_LEN},
};

/// How many exchanges that are over are remembered. A second lies between two, so none of the last seconds comes back.
const OVER: usize = 8;

/// An Init that was answered.
#[derive(Debug)]
pub(super) struct Answered {
    xid: Xid,
    init: Box<[u8; INIT_LEN]>,
    response: [u8; RESPONSE_LEN],
    /// Under which index the initiator's packets come.
    index: u32,
    confirm_initiator: [u8; CONFIRM_LEN],
    /// What seals once one of them has opened.
    outbound: Option<Outbound>,
}

/// A key that does not seal yet.
#[derive(Debug)]
struct Outbound {
    suite: Suite,
    direction: Direction,
    /// The initiator's index.
    index: u32,
}

impl Exchange {
    /// Asks for an Init, unless one was answered and its keys may come into use any moment.
    pub(super) fn try_plead(&mut self, now: Moment, outside: &mut impl Outside) {
        if self.awaits_first() {
            return;
        }
        let frame = frames::please_frame(outside.random().next_u32());
        self.outputs.push_back(Output::Send(frame));
        let tries = self.tries(now, outside);
        self.stage = Stage::Pleading(tries);
    }

    pub(super) fn on_init(
        &mut self,
        now: Moment,
        bytes: Box<[u8; INIT_LEN]>,
        outside: &mut impl Outside,
    ) -> Result<(), Refused> {
        if self.role != Role::Responder {
            return Err(Refused::Role);
        }
        if let Some(answered) = self.answered.as_ref()
            && answered.init == bytes
        {
            let frames = frames::response_frames(number(&answered.xid), &answered.response);
            self.outputs.extend(frames.map(Output::Send));
            return Ok(());
        }
        let init = Init::decode(&bytes)?;
        let is_over = self.over.contains(&init.xid);
        let is_answered = self
            .answered
            .as_ref()
            .is_some_and(|answered| answered.xid == init.xid);
        if is_over || is_answered {
            return Err(Refused::Stale);
        }
        let is_soon = |last| now.since(last) < BETWEEN_INITS;
        if self.last_init.is_some_and(is_soon) {
            return Err(Refused::TooSoon);
        }
        self.last_init = Some(now);
        self.answer(now, &init, bytes, outside)
    }

    fn answer(
        &mut self,
        now: Moment,
        init: &Init,
        bytes: Box<[u8; INIT_LEN]>,
        outside: &mut impl Outside,
    ) -> Result<(), Refused> {
        let secret = Secret::draw(outside);
        let x25519 = secret.agree(init.x25519).ok_or(Refused::Keys)?;
        let (ciphertext, kem) = outside
            .encapsulate(&init.kem)
            .map_err(|_refused| Refused::Keys)?;
        let suite = init.suites.choose(self.terms.aes);
        let index = outside.draw_index();
        let mut response = Response {
            suite,
            index,
            boot: self.terms.boot,
            xid: init.xid,
            nonce: drawn(outside),
            x25519: secret.public(),
            ciphertext,
            confirm: [0; CONFIRM_LEN],
        };
        let unconfirmed = response.encode();
        let unconfirmed = unconfirmed.first_chunk().expect("a Response is longer");
        let schedule = Schedule::derive(&self.ground, &bytes, unconfirmed, (&kem, &x25519));
        response.confirm = schedule.confirm_responder;

        self.note_boot(init.boot);
        self.rest(Stage::Idle);
        let until = now.after(UNUSED_KEY);
        self.install(Opening::new(suite, &schedule.to_responder, index), until);
        self.replace_answer(Some(Answered {
            xid: init.xid,
            init: bytes,
            response: response.encode(),
            index,
            confirm_initiator: schedule.confirm_initiator,
            outbound: Some(Outbound {
                suite,
                direction: schedule.to_initiator,
                index: init.index,
            }),
        }));
        self.timers.set(Wake::Forget, until);
        let frames = frames::response_frames(number(&init.xid), &response.encode());
        self.outputs.extend(frames.map(Output::Send));
        Ok(())
    }

    /// A packet opened under these keys: the initiator has them, so this end seals by them too.
    pub(super) fn on_used(&mut self, now: Moment, index: u32) {
        let answered = self.answered.as_mut();
        let Some(answered) = answered.filter(|answered| answered.index == index) else {
            return;
        };
        if let Some(outbound) = answered.outbound.take() {
            let Outbound {
                suite,
                direction,
                index,
            } = outbound;
            self.switch(now, Sealing::new(now, suite, &direction, index));
            self.outputs.push_back(Output::Up(suite));
        }
    }

    /// The initiator says Done until a packet under the new keys has reached it.
    pub(super) fn on_done(&mut self, index: u32, bytes: &[u8; DONE_LEN]) -> Result<(), Refused> {
        if self.role != Role::Responder {
            return Err(Refused::Role);
        }
        let answered = self.answered.as_ref();
        let answered = answered.filter(|answered| answered.index == index);
        let answered = answered.ok_or(Refused::Unasked)?;
        let done = Done::decode(bytes);
        let is_right = is_confirmed(&answered.confirm_initiator, &done.confirm);
        if !is_right || done.xid != answered.xid {
            return Err(Refused::Confirm);
        }
        self.outputs.push_back(Output::Seal(Vec::new()));
        Ok(())
    }

    /// The initiator asks no more. Keys that it has not used by now it does not have.
    pub(super) fn forget_answer(&mut self, now: Moment) {
        let was_unused = self
            .answered
            .as_ref()
            .is_some_and(|answered| answered.outbound.is_some());
        self.replace_answer(None);
        if was_unused {
            self.fail(now, Failure::Unconfirmed);
        }
    }

    #[cfg(test)]
    pub(super) fn last_response(&self) -> [u8; RESPONSE_LEN] {
        self.answered
            .as_ref()
            .expect("an Init was answered")
            .response
    }

    fn replace_answer(&mut self, answered: Option<Answered>) {
        let before = std::mem::replace(&mut self.answered, answered.map(Box::new));
        if let Some(before) = before {
            self.over.truncate(OVER - 1);
            self.over.push_front(before.xid);
        }
    }
}
