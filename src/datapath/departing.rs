//! What a shard has for the network goes out: each datagram by its socket, those that follow each other by the same one in
//! as few system calls as can be, and all in their order.

use super::{openings::Openings, outbox::Outbox};
use crate::{
    addr::Underlay,
    platform::udp::{Outgoing, Pair},
};

/// How a datagram goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    /// By the socket that is kept for an address.
    kept: Option<Underlay>,
    is_v4: bool,
    may_be_cut: bool,
}

/// Sends all datagrams; tells how many were refused.
pub(super) fn send(out: &Outbox, sockets: &mut Pair, openings: &mut Openings) -> usize {
    let mut refused = 0;
    let mut next = 0;
    while let Some(way) = way(out, openings, next) {
        let start = next;
        next += 1;
        while self::way(out, openings, next) == Some(way) {
            next += 1;
        }
        let all = (start..next).filter_map(|number| out.datagrams.get(number));
        let all = all.map(|(target, bytes)| Outgoing {
            to: target.to.socket(),
            bytes,
            ecn: target.ecn.bits(),
        });
        let socket = match way.kept {
            Some(to) => openings.socket(to),
            None if way.is_v4 => Some(&mut sockets.udp4),
            None => sockets.udp6.as_mut(),
        };
        refused += match socket {
            Some(socket) if way.may_be_cut => socket.send_in_fragments(all),
            Some(socket) => socket.send(all),
            None => next - start,
        };
    }
    refused
}

fn way(out: &Outbox, openings: &Openings, number: usize) -> Option<Way> {
    let (target, datagram) = out.datagrams.get(number)?;
    let to = target.to;
    Some(Way {
        kept: openings.leads_to(to).then_some(to),
        is_v4: to.socket().is_ipv4(),
        may_be_cut: out.may_be_cut(to, datagram),
    })
}
