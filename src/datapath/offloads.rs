//! Which work on many packets at once is left to the kernel, and why some of it is not.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use crate::platform::{
    tun::{LongPackets, Tun},
    udp::{Flaw, Pair, Socket, Trains, try_trains},
};

/// Whether something is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// If a trial finds it sound.
    #[default]
    Auto,
    /// Without a trial.
    On,
    /// No.
    Off,
}

/// What is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Long packets to and from the TUN.
    pub tun: Wish,
    /// Trains of datagrams to the network.
    pub gso: Wish,
    /// Trains of datagrams from it.
    pub gro: Wish,
}

/// Why something is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The configuration says so.
    Asked,
    /// The kernel does not have it.
    Refused,
    /// The kernel has it and changes what goes through.
    Garbled,
}

const ON: u8 = 0;
const ASKED: u8 = 1;
const REFUSED: u8 = 2;
const GARBLED: u8 = 3;

/// One kind of work: whether it is left to the kernel. Written by the data thread alone, read by anybody.
#[derive(Debug, Default)]
pub struct Offload(AtomicU8);

impl Offload {
    /// Why it is not used; None while it is.
    pub fn off(&self) -> Option<Why> {
        match self.0.load(Ordering::Relaxed) {
            ON => None,
            ASKED => Some(Why::Asked),
            GARBLED => Some(Why::Garbled),
            _ => Some(Why::Refused),
        }
    }

    pub(super) fn set(&self, off: Option<Why>) {
        let value = match off {
            None => ON,
            Some(Why::Asked) => ASKED,
            Some(Why::Refused) => REFUSED,
            Some(Why::Garbled) => GARBLED,
        };
        self.0.store(value, Ordering::Relaxed);
    }
}

/// All kinds.
#[derive(Debug, Default)]
pub struct Offloads {
    /// Long packets to and from the TUN.
    pub tun: Offload,
    /// Trains of datagrams to the network.
    pub gso: Offload,
    /// Trains of datagrams from it.
    pub gro: Offload,
    /// The kernel changes what it cuts: no datagrams are joined for the host.
    cuts_badly: bool,
}

impl Offloads {
    /// Sets the sockets up as it is wished and this kernel can.
    pub(super) fn start(wishes: Wishes, sockets: &mut Pair) -> Arc<Self> {
        let offloads = Self::judge(wishes, |receiving| try_trains(receiving).err());
        offloads.apply_to(sockets);
        Arc::new(offloads)
    }

    /// Sets up a pair as it was found to be right.
    pub(super) fn apply_to(&self, sockets: &mut Pair) {
        self.apply(&mut sockets.udp4);
        if let Some(udp6) = &mut sockets.udp6 {
            self.apply(udp6);
        }
    }

    /// What is used, by what is wished and what a trial of sending, or of `receiving`, finds.
    fn judge(wishes: Wishes, trial: impl Fn(bool) -> Option<Flaw>) -> Self {
        let is_tried = [wishes.tun, wishes.gso].contains(&Wish::Auto);
        let cutting = is_tried.then(|| trial(false)).flatten();
        let offloads = Self {
            // The same code of the kernel cuts trains, and joined packets for a program that takes datagrams singly.
            cuts_badly: wishes.tun == Wish::Auto && cutting == Some(Flaw::Garbled),
            ..Self::default()
        };
        offloads.gso.set(why_not(wishes.gso, || cutting));
        offloads.gro.set(why_not(wishes.gro, || trial(true)));
        offloads
    }

    /// Whether datagrams may be joined for the host.
    pub(super) fn may_join_datagrams(&self) -> bool {
        !self.cuts_badly
    }

    /// Sets one socket up like the others.
    pub(super) fn apply(&self, socket: &mut Socket) {
        socket.send_trains(self.gso.off().is_none());
        if self.gro.off().is_none() && socket.receive_trains().is_err() {
            self.gro.set(Some(Why::Refused));
        }
    }

    /// Notes what a device can.
    pub(super) fn note_device(&self, tun: &Tun) {
        self.tun.set(match tun.long_packets() {
            LongPackets::Off => Some(Why::Asked),
            LongPackets::Refused => Some(Why::Refused),
            LongPackets::Tcp | LongPackets::TcpAndUdp => None,
        });
    }

    /// Notes what the sockets have found out.
    pub(super) fn note_sockets(&self, sockets: &Pair) {
        let all = [Some(&sockets.udp4), sockets.udp6.as_ref()];
        if all
            .into_iter()
            .flatten()
            .any(|socket| socket.trains() == Trains::Refused)
        {
            self.gso.set(Some(Why::Refused));
        }
    }
}

/// Why something is not used, by what is wished and what a trial finds.
fn why_not(wish: Wish, flaw: impl FnOnce() -> Option<Flaw>) -> Option<Why> {
    match wish {
        Wish::Off => Some(Why::Asked),
        Wish::On => None,
        Wish::Auto => flaw().map(|flaw| match flaw {
            Flaw::Refused => Why::Refused,
            Flaw::Garbled => Why::Garbled,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: fn(bool) -> Option<Flaw> = |_receiving| None;
    const GARBLING: fn(bool) -> Option<Flaw> = |_receiving| Some(Flaw::Garbled);

    fn all(wish: Wish) -> Wishes {
        Wishes {
            tun: wish,
            gso: wish,
            gro: wish,
        }
    }

    /// Why trains go out, why they come in, and whether datagrams are joined for the host.
    fn found(wishes: Wishes, trial: fn(bool) -> Option<Flaw>) -> (Option<Why>, Option<Why>, bool) {
        let offloads = Offloads::judge(wishes, trial);
        (
            offloads.gso.off(),
            offloads.gro.off(),
            offloads.may_join_datagrams(),
        )
    }

    #[test]
    fn what_a_trial_finds_counts_unless_somebody_decided() {
        let garbled = Some(Why::Garbled);
        assert_eq!(found(all(Wish::Auto), SOUND), (None, None, true));
        assert_eq!(found(all(Wish::Auto), GARBLING), (garbled, garbled, false));
        assert_eq!(found(all(Wish::On), GARBLING), (None, None, true));
        let asked = Some(Why::Asked);
        let never: fn(bool) -> Option<Flaw> = |_receiving| panic!("nothing is to be tried");
        assert_eq!(found(all(Wish::Off), never), (asked, asked, true));
        let old: fn(bool) -> Option<Flaw> = |receiving| receiving.then_some(Flaw::Refused);
        assert_eq!(
            found(all(Wish::Auto), old),
            (None, Some(Why::Refused), true)
        );
    }

    /// Whoever turns trains off because they are bad gets no bad datagrams from the device either.
    #[test]
    fn a_kernel_that_cuts_badly_is_found_for_the_device_too() {
        let wishes = Wishes {
            tun: Wish::Auto,
            ..all(Wish::Off)
        };
        assert!(!Offloads::judge(wishes, GARBLING).may_join_datagrams());
    }
}
