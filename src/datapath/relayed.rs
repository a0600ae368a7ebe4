//! What goes through relays: frames that this machine carries for others, frames to itself, and how both ends are bound.

use crate::{
    addr::Path,
    relay::{
        LegEvent, Order,
        ways::{Frame, Refusal},
    },
    time::Moment,
    wire::datagram::{
        Datagram, RELAY_HEAD, RelayBinding, RelayStep, Relayed, classify, relay_head,
    },
};

use super::{
    command::Event,
    drops::DropReason,
    inbound::Source,
    shard::Shard,
    train::{Arrived, Train},
};

impl Shard {
    /// Frames are of one of our legs, or go on to the other end of a way. Of data that a relay brought it is not known here
    /// that the address it came from has it.
    pub(super) fn on_relayed<'a>(
        &mut self,
        now: Moment,
        source: Source,
        (session, run): (u32, Train<'a>),
        arrived: &mut Arrived<'a>,
    ) {
        match self.out.legs.received(source.path, session) {
            Some(leg) => {
                let path = Path::Relay(leg);
                let inner = &mut run.unframed();
                self.take_train(now, Source { path, ..source }, inner, arrived);
            }
            None => {
                for frame in run.datagrams() {
                    let carried = match classify(frame) {
                        Ok(Datagram::Relayed(relayed)) => self.carry_on(now, source, relayed),
                        Ok(_) | Err(_) => Err(DropReason::InUnknownDatagram),
                    };
                    if let Err(reason) = carried {
                        self.drops.count(reason);
                    }
                }
            }
        }
    }

    /// The frame is copied once, into a buffer to be sent from, with another id before it.
    fn carry_on(
        &mut self,
        now: Moment,
        source: Source,
        relayed: Relayed<'_>,
    ) -> Result<(), DropReason> {
        let frame = Frame {
            source: source.path,
            id: relayed.session.to_le_bytes(),
            len: relayed.datagram.len(),
            nested: relayed.datagram.first() == Some(&0x20),
        };
        let onward = match self.ways.forward(now, &frame) {
            Ok(onward) => onward,
            Err(Refusal::OtherAway) if self.ways.hold(now, &frame, relayed.datagram) => {
                return Ok(());
            }
            Err(other) => return Err(refusal(other)),
        };
        let whole = RELAY_HEAD + relayed.datagram.len();
        let room = self.out.room()?.get_mut(..whole);
        let room = room.ok_or(DropReason::NoBuffer)?;
        let (head, datagram) = room.split_at_mut(RELAY_HEAD);
        head.copy_from_slice(&relay_head(onward.id));
        datagram.copy_from_slice(relayed.datagram);
        // As a router would: what was written on the way here is known at its end.
        self.out.commit_carried(whole, onward.path, source.ecn)
    }

    /// One of the three datagrams that bind an end.
    pub(super) fn on_binding(
        &mut self,
        now: Moment,
        source: Path,
        binding: &RelayBinding,
    ) -> Result<(), DropReason> {
        if binding.step == RelayStep::Challenge {
            let answered = self.out.legs.handle_challenge(now, source, binding);
            let (answer, news) = answered.ok_or(DropReason::InRelayStranger)?;
            if let Some(leg) = news {
                let event = LegEvent::Bound;
                self.out.events.push_back(Event::Leg { leg, event });
            }
            return self.out.send(&answer.encode(), source);
        }
        if !self.ways.has_end(binding.id) {
            return Err(DropReason::InRelayStranger);
        }
        let depth = self.out.legs.depth(source);
        let random = self.random_bytes();
        let said = self
            .ways
            .handle_binding(now, (source, depth), binding, random);
        match said.map_err(refusal)? {
            Some(challenge) => self.out.send(&challenge.encode(), source),
            None => self.send_on_held(now, binding.id),
        }
    }

    /// An end is bound: what waited for it goes there.
    fn send_on_held(&mut self, now: Moment, id: [u8; 4]) -> Result<(), DropReason> {
        for (onward, datagram) in self.ways.take_held(now, id) {
            self.scratch.clear();
            self.scratch.extend_from_slice(&relay_head(onward.id));
            self.scratch.extend_from_slice(&datagram);
            self.out.send(&self.scratch, onward.path)?;
        }
        Ok(())
    }

    /// Carries out an order of the control plane.
    pub(super) fn carry_out_relay(&mut self, now: Moment, order: Order) {
        let random = self.random_bytes();
        let legs = &mut self.out.legs;
        let bind = match order {
            Order::Limit(limit) => {
                self.ways.set_limit(limit);
                None
            }
            Order::OpenWay(ends) => {
                let way = ends[0].id;
                let counters = self.ways.open(now, ends);
                self.out.events.push_back(Event::Way { way, counters });
                None
            }
            Order::CloseWay(id) => {
                self.ways.close(id);
                None
            }
            Order::AddLeg { leg, given } => legs.add(now, leg, given, random),
            Order::BindLeg(leg) => legs.bind(now, leg, random),
            Order::MoveLeg { leg, relay } => legs.relocate(now, leg, relay, random),
            Order::RestLeg(leg) => {
                legs.set_resting(leg, true);
                None
            }
            Order::WakeLeg(leg) => {
                legs.set_resting(leg, false);
                self.send_over(now, leg);
                None
            }
            Order::DropLeg(leg) => {
                legs.remove(leg);
                None
            }
        };
        if let Some((to, binding)) = bind {
            self.push_datagram(&binding.encode(), to);
        }
    }

    /// Binds, answers and challenges that are due, and ways that are over.
    pub(super) fn run_relay_timers(&mut self, now: Moment) {
        let mut due = Vec::new();
        let events = &mut self.out.events;
        self.out.legs.handle_timers(
            now,
            |to, binding| due.push((to, binding)),
            |leg, event| events.push_back(Event::Leg { leg, event }),
        );
        let Self { ways, random, .. } = self;
        due.extend(ways.poll_challenges(now, || super::shard::draw(random)));
        for (to, binding) in due {
            self.push_datagram(&binding.encode(), to);
        }
        while let Some(way) = self.ways.poll_over(now) {
            self.out.events.push_back(Event::WayOver { way });
        }
    }
}

fn refusal(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Stranger => DropReason::InRelayStranger,
        Refusal::OtherAway => DropReason::RelayOtherAway,
        Refusal::TooDeep => DropReason::RelayTooDeep,
        Refusal::Quota => DropReason::RelayQuota,
    }
}
