//! What a shard has for the network goes out: each datagram by its socket, those that follow each other by the same one in
//! as few system calls as can be, and all in their order.

use super::{openings::Openings, outbox::Outbox};
use crate::{
    addr::Underlay,
    platform::{
        clock,
        udp::{Family, Outgoing, Pair, Sent, Tail},
    },
};

/// How a datagram goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    /// By the socket that is kept for an address.
    kept: Option<Underlay>,
    family: Family,
    may_be_cut: bool,
}

/// What became of the datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Departed {
    /// How many the kernel has taken or refused, from the first on.
    pub(super) taken: usize,
    /// How many of those it refused.
    pub(super) refused: usize,
    /// Whose main socket is full. What comes behind waits with what was for it, whatever its family: they keep their order,
    /// and it is a matter of milliseconds.
    pub(super) full: Option<Family>,
}

/// Sends datagrams, until a main socket is full. What `tail` says is said of the last.
pub(super) fn send(
    out: &Outbox,
    sockets: &mut Pair,
    openings: &mut Openings,
    tail: Tail,
) -> Departed {
    let mut departed = Departed::default();
    while let Some(way) = way(out, openings, departed.taken) {
        let start = departed.taken;
        let mut next = start + 1;
        while self::way(out, openings, next) == Some(way) {
            next += 1;
        }
        let all = (start..next).filter_map(|number| out.datagrams.get(number));
        let all = all.map(|(target, bytes)| Outgoing {
            to: target.to.socket(),
            bytes,
            ecn: target.ecn.bits(),
        });
        if let Some(to) = way.kept
            && openings.note_sent(clock::moment(), to)
            && let Some(socket) = sockets.socket(way.family)
        {
            // As with a kept socket: nobody waits where it is full.
            socket.send(all.clone());
        }
        let socket = match way.kept {
            Some(to) => openings.socket(to),
            None => sockets.socket(way.family),
        };
        let is_last = next == out.datagrams.len();
        let tail = match way.kept {
            None if is_last => tail,
            Some(_) | None => Tail::Goes,
        };
        let sent = match socket {
            Some(socket) if way.may_be_cut => socket.send_in_fragments(all),
            Some(socket) => socket.send_with(all, tail),
            None => refused(next - start),
        };
        departed.refused += sent.refused;
        if way.kept.is_none() && (sent.is_full || tail == Tail::Stays) {
            departed.taken += sent.taken;
            departed.full = sent.is_full.then_some(way.family);
            return departed;
        }
        // Nobody waits for a socket that is kept for one address.
        departed.refused += next - start - sent.taken;
        departed.taken = next;
    }
    departed
}

fn refused(many: usize) -> Sent {
    Sent {
        taken: many,
        refused: many,
        is_full: false,
    }
}

fn way(out: &Outbox, openings: &Openings, number: usize) -> Option<Way> {
    let (target, datagram) = out.datagrams.get(number)?;
    let to = target.to;
    Some(Way {
        kept: openings.leads_to(to).then_some(to),
        family: Family::of(to.socket()),
        may_be_cut: out.may_be_cut(to, datagram),
    })
}
