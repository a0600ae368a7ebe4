//! Whether this kernel sends and takes trains of datagrams without losing or changing a byte: some do not (Linux 7.0 to
//! 7.1.4 garble trains whose last datagram is as long as the others). Tried over the loopback, once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Came, Outgoing, Socket};

/// How long what was sent may take to come: over the loopback it is there when the call returns, unless the machine has
/// much else to do.
const WITHIN: Duration = Duration::from_millis(500);

/// Trains that are tried: how many datagrams, how long, and how long the last is. One alone; all as long as each other, a
/// short last one, an odd length, and as many bytes as there may be.
const TRAINS: [(usize, usize, usize); 5] = [
    (1, 100, 100),
    (5, 1452, 1452),
    (7, 1452, 33),
    (3, 717, 716),
    (45, 1452, 1452),
];

/// What is wrong with trains on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It takes none.
    #[error("this kernel has none")]
    Refused,
    /// What comes out is not what went in.
    #[error("this kernel changes what goes through")]
    Garbled,
}

/// Tries how trains go out, or how they come in.
///
/// # Errors
/// What is wrong. Where it cannot be tried, for want of an open loopback, nothing is.
pub fn try_trains(receiving: bool) -> Result<(), Flaw> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (Ok(mut from), Ok(mut to)) = (Socket::bind(any), Socket::bind(any)) else {
        return Ok(());
    };
    let Ok(port) = to.port() else {
        return Ok(());
    };
    from.send_trains(true);
    if receiving && to.receive_trains().is_err() {
        return Err(Flaw::Refused);
    }
    let to_there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for (count, len, last) in TRAINS {
        let datagrams: Vec<Vec<u8>> = (0..count)
            .map(|i| pattern(i, if i + 1 == count { last } else { len }))
            .collect();
        let outgoing = datagrams.iter().map(|bytes| Outgoing {
            to: to_there,
            bytes,
            ecn: 0,
        });
        if from.send(outgoing).refused != 0 {
            return Ok(());
        }
        if from.trains() != super::Trains::On || from.is_pausing() {
            return Err(Flaw::Refused);
        }
        match collect(&mut to, count) {
            Ok(came) if came == datagrams => {}
            // Not even one alone comes: the loopback is closed.
            Ok(came) if count == 1 && came.is_empty() => return Ok(()),
            Ok(_) => return Err(Flaw::Garbled),
            Err(_cannot_be_tried) => return Ok(()),
        }
    }
    Ok(())
}

/// Bytes that differ from datagram to datagram and from place to place.
fn pattern(which: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((at * 7 + at / 251 + which * 31) % 256).unwrap_or(0);
    (0..len).map(byte).collect()
}

fn collect(socket: &mut Socket, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut came = Vec::new();
    let timeout = PollTimeout::try_from(WITHIN).map_err(io::Error::other)?;
    while came.len() < count {
        let ready = poll(
            &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
            timeout,
        )?;
        if ready == 0 {
            break;
        }
        while socket.receive(|all| came.extend(all.datagrams().map(<[u8]>::to_vec)))? == Came::Full
        {
        }
    }
    Ok(came)
}
