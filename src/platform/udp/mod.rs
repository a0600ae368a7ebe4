//! UDP sockets that carry the mesh: one port in both families, and batches of datagrams without a copy or an
//! allocation per datagram.
#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg over buffers that are kept"
)]

mod cutting;
mod receive;
mod send;
mod sharing;
#[cfg(test)]
mod tests;
mod trial;

pub use receive::{Came, Cut, LONG, Received};
pub use send::{Outgoing, Sent, Tail, Trains};
pub use trial::{Flaw, try_trains};

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use cutting::Cutting;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use receive::Inbound;
use send::Outbound;
pub(super) use send::{TRAIN, TRAIN_BYTES};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as Plain, Type};

/// Bytes a datagram may have. Ours are at most the device's MTU + 32; a longer one is cut and reported as such.
pub const DATAGRAM_MAX: usize = 2048;

/// Bytes asked for as socket buffers, at most: 20 ms at 1.6 Gbit/s, which is how long a loaded host may keep us waiting.
const BUFFER: usize = 4 << 20;

/// Bytes asked for to send from, at first: fewer than a device's queue holds, which drops what it does not.
const SEND_BUFFER: usize = 512 << 10;

/// Bytes to send from, at least: some datagrams.
const SEND_BUFFER_MIN: usize = 16 << 10;

/// How long half a full buffer may take to leave: what is in it delays all that comes behind, in no order but its own.
const DRAIN: Duration = Duration::from_millis(4);

/// Whether a socket takes several datagrams as one message.
const RECEIVE_TRAINS: (libc::c_int, libc::c_int) = (libc::SOL_UDP, libc::UDP_GRO);

/// The sockets of one agent.
#[derive(Debug)]
pub struct Pair {
    /// IPv4.
    pub udp4: Socket,
    /// IPv6; none where the host has no IPv6.
    pub udp6: Option<Socket>,
}

/// One of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// The descriptors of a pair: whoever holds them holds the port, and what comes meanwhile waits in them.
#[derive(Debug)]
pub struct Held {
    /// IPv4.
    pub udp4: OwnedFd,
    /// IPv6; none where the host has no IPv6.
    pub udp6: Option<OwnedFd>,
}

impl Held {
    /// The same sockets once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        let udp6 = self.udp6.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(Self {
            udp4: self.udp4.try_clone()?,
            udp6,
        })
    }
}

/// Why the port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "UDP port {0} is in use; stop its owner or choose another (network.port in the configuration, or --port)"
    )]
    Busy(u16),
    /// A port below 1024 without the right to it.
    #[error(
        "UDP port {0} needs CAP_NET_BIND_SERVICE, which the packaged unit does not have: choose one from 1024 on (network.port in the configuration, or --port)"
    )]
    Forbidden(u16),
    /// The host said no.
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
}

impl Pair {
    /// Takes `port` in both families; 0 lets the kernel choose.
    ///
    /// # Errors
    /// Nothing is bound then.
    pub fn bind(port: u16) -> Result<Self, BindError> {
        let failed = |error: io::Error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                BindError::Busy(port)
            } else if error.kind() == io::ErrorKind::PermissionDenied && port < 1024 {
                BindError::Forbidden(port)
            } else {
                BindError::Socket(error)
            }
        };
        for _ in 0..16 {
            let udp4 = Socket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())
                .map_err(failed)?;
            let chosen = udp4.port().map_err(BindError::Socket)?;
            match Socket::bind(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, chosen, 0, 0).into()) {
                Ok(udp6) => {
                    return Ok(Self {
                        udp4,
                        udp6: Some(udp6),
                    });
                }
                // The kernel chose a port that is free in one family only.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(failed(error));
                }
                Err(error) if has_no_v6(&error) => return Ok(Self { udp4, udp6: None }),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(BindError::Busy(port))
    }

    /// Takes sockets that an earlier process bound; where there is none for v6, its port is tried.
    ///
    /// # Errors
    /// They are no pair of ours; both are closed.
    pub fn adopt(Held { udp4, udp6 }: Held) -> Result<Self, Misfit> {
        let udp4 = Socket::adopt(udp4, Domain::IPV4)?;
        let port = udp4.port().map_err(|_unreadable| Misfit)?;
        let udp6 = match udp6 {
            Some(fd) => {
                let udp6 = Socket::adopt(fd, Domain::IPV6)?;
                if !udp6.port().is_ok_and(|other| other == port) {
                    return Err(Misfit);
                }
                Some(udp6)
            }
            None => Socket::bind(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into()).ok(),
        };
        Ok(Self { udp4, udp6 })
    }

    /// The port.
    pub fn port(&self) -> io::Result<u16> {
        self.udp4.port()
    }

    /// The socket of a family.
    pub fn socket(&mut self, family: Family) -> Option<&mut Socket> {
        match family {
            Family::V4 => Some(&mut self.udp4),
            Family::V6 => self.udp6.as_mut(),
        }
    }

    /// The same sockets once more, to hold the port after this pair is closed.
    pub fn hold(&self) -> io::Result<Held> {
        let udp6 = self.udp6.as_ref().map(|udp6| udp6.fd.try_clone());
        Ok(Held {
            udp4: self.udp4.fd.try_clone()?,
            udp6: udp6.transpose()?,
        })
    }
}

/// A descriptor is not what an agent of this version would have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not what this version would have made")]
pub struct Misfit;

fn has_no_v6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// One bound, non-blocking socket with the buffers of its batches.
pub struct Socket {
    fd: OwnedFd,
    inbound: Box<Inbound>,
    outbound: Box<Outbound>,
    send_buffer: usize,
    unsent_when_full: usize,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.fd).finish()
    }
}

impl Socket {
    /// Binds one family. The v6 socket takes no v4.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let plain = Plain::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            plain.set_only_v6(true)?;
        }
        plain.bind(&SockAddr::from(address))?;
        Self::around(plain.into(), Domain::for_address(address))
    }

    /// Takes a non-blocking socket of IPv4 that stands already. Nobody waits for it where it is full, so that it has all the
    /// room there may be.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        let mut socket = Self::around(socket, Domain::IPV4)?;
        socket.set_send_buffer(BUFFER);
        Ok(socket)
    }

    /// Takes a socket that an earlier process bound to a port of all addresses.
    fn adopt(fd: OwnedFd, family: Domain) -> Result<Self, Misfit> {
        let socket = SockRef::from(&fd);
        let bound = socket.local_addr().ok().and_then(|at| at.as_socket());
        let is_kind = socket.domain().is_ok_and(|is| is == family)
            && socket.r#type().is_ok_and(|is| is == Type::DGRAM)
            && socket.protocol().is_ok_and(|is| is == Some(Protocol::UDP))
            && socket.peer_addr().is_err();
        let is_place = bound.is_some_and(|at| at.ip().is_unspecified() && at.port() != 0);
        let is_apart = family == Domain::IPV4 || socket.only_v6().is_ok_and(|is| is);
        if !(is_kind && is_place && is_apart) {
            return Err(Misfit);
        }
        socket.set_nonblocking(true).map_err(|_refused| Misfit)?;
        Self::around(fd, family).map_err(|_refused| Misfit)
    }

    fn around(fd: OwnedFd, family: Domain) -> io::Result<Self> {
        wish_buffers(&fd);
        wish_marks(&fd, family);
        // One of an earlier process may take trains.
        let _refused = set_option(&fd, RECEIVE_TRAINS, 0);
        let outbound = Box::new(Outbound::new(&fd, family)?);
        Ok(Self {
            fd,
            inbound: Box::new(Inbound::single()),
            outbound,
            send_buffer: SEND_BUFFER,
            unsent_when_full: 0,
        })
    }

    /// Sends in trains from now on, or no longer.
    pub fn send_trains(&mut self, on: bool) {
        self.outbound.trains = if on { Trains::On } else { Trains::Off };
    }

    /// Takes trains from now on, if the kernel makes any.
    ///
    /// # Errors
    /// It does not; datagrams come singly.
    pub fn receive_trains(&mut self) -> io::Result<()> {
        set_option(&self.fd, RECEIVE_TRAINS, 1)?;
        *self.inbound = Inbound::trains();
        Ok(())
    }

    /// Whether a train was refused a moment ago.
    fn is_pausing(&self) -> bool {
        self.outbound.is_pausing()
    }

    /// Whether it sends in trains.
    pub fn trains(&self) -> Trains {
        self.outbound.trains
    }

    /// The port it is bound to.
    pub fn port(&self) -> io::Result<u16> {
        let address = SockRef::from(&self.fd).local_addr()?;
        Ok(address.as_socket().map_or(0, |socket| socket.port()))
    }

    /// Takes at most one batch of datagrams that are there and hands them to `take`. Never waits.
    pub fn receive(&mut self, take: impl FnMut(Received<'_>)) -> io::Result<Came> {
        self.inbound.receive(&self.fd, take)
    }

    /// Sends datagrams that are known to be too long for their way, so that routers may cut them in IPv4, and in IPv6 cut
    /// to what every link carries. Otherwise as [`Socket::send`].
    pub fn send_in_fragments<'a>(&mut self, datagrams: impl Iterator<Item = Outgoing<'a>>) -> Sent {
        let how = (Cutting::Anyone, Tail::Goes);
        self.outbound.send(&self.fd, datagrams, how)
    }

    /// Sends datagrams of this socket's family in as few calls as can be, until it is full. Never waits.
    pub fn send<'a>(&mut self, datagrams: impl Iterator<Item = Outgoing<'a>>) -> Sent {
        self.send_with(datagrams, Tail::Goes)
    }

    /// The same; says what becomes of the last train.
    pub fn send_with<'a>(
        &mut self,
        datagrams: impl Iterator<Item = Outgoing<'a>>,
        tail: Tail,
    ) -> Sent {
        let how = (Cutting::Nobody, tail);
        self.outbound.send(&self.fd, datagrams, how)
    }

    /// It was full. When it can be written again, [`Socket::fit_send_buffer`] wants to know how much has left.
    pub fn note_full(&mut self) {
        self.unsent_when_full = unsent(&self.fd);
    }

    /// Waits until it can be written again, or the limit.
    pub fn await_room(&self, limit: Duration) {
        let mut room = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let _whatever_came = poll(&mut room, limit);
    }

    /// It was full for so long. Its buffer is to hold what leaves in some milliseconds: a longer one delays all that comes
    /// behind, a shorter one leaves the uplink without work. Where nothing leaves, what stands in it may be for a neighbour
    /// that does not answer (three seconds, with ARP), and others must not wait for that: it gets the room it had at first.
    pub fn fit_send_buffer(&mut self, took: Duration) {
        let drained = Drained {
            of: self.unsent_when_full,
            left: unsent(&self.fd),
            took,
        };
        let fitting = match drained.is_stuck() {
            true => self.send_buffer.max(SEND_BUFFER),
            false => drained.fitting(self.send_buffer),
        };
        if fitting.abs_diff(self.send_buffer) > self.send_buffer / 8 {
            self.set_send_buffer(fitting);
        }
    }

    fn set_send_buffer(&mut self, bytes: usize) {
        wish_buffer(&self.fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes);
        self.send_buffer = bytes;
        self.outbound.train_bytes = match bytes < SEND_BUFFER {
            true => bytes.min(TRAIN_BYTES) / 2,
            false => TRAIN_BYTES,
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What has left a socket that was full, in the kernel's count: with all that it keeps beside a datagram.
#[derive(Clone, Copy, Debug)]
struct Drained {
    of: usize,
    left: usize,
    took: Duration,
}

impl Drained {
    fn is_stuck(self) -> bool {
        self.left > self.of - self.of / 16
    }

    /// The buffer to send from in the place of one of so many bytes; it is never changed by more than a half.
    fn fitting(self, bytes: usize) -> usize {
        let drained = self.of.saturating_sub(self.left);
        let fitting = drained as u128 * DRAIN.as_micros() / self.took.as_micros().max(1);
        let near = usize::try_from(fitting)
            .unwrap_or(usize::MAX)
            .clamp(bytes / 2, bytes * 2);
        // It tells when half has left. Where much less is there, it was we who came late.
        let is_late = self.left <= self.of / 4;
        let fitting = if is_late { near.max(bytes) } else { near };
        fitting.clamp(SEND_BUFFER_MIN, BUFFER)
    }
}

/// What a socket has sent and no device has taken yet (udp(7), `SIOCOUTQ`), in the kernel's count.
fn unsent(socket: &OwnedFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one c_int, which outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer == 0 {
        usize::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

/// Asks for big buffers: a host that gives less only drops more, or makes us wait more often.
fn wish_buffers(socket: &OwnedFd) {
    wish_buffer(socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, BUFFER);
    wish_buffer(socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
}

/// Beyond the host's limit where we may, else up to it.
fn wish_buffer(socket: &OwnedFd, force: libc::c_int, ask: libc::c_int, bytes: usize) {
    let size = libc::c_int::try_from(bytes).expect("4 MiB at most");
    if set_option(socket, (libc::SOL_SOCKET, force), size).is_err() {
        let _refused = set_option(socket, (libc::SOL_SOCKET, ask), size);
    }
}

/// Has the kernel say how routers marked what comes. Where it does not, congestion is not handed on.
fn wish_marks(socket: &OwnedFd, family: Domain) {
    let option = if family == Domain::IPV4 {
        (libc::IPPROTO_IP, libc::IP_RECVTOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)
    };
    let _refused = set_option(socket, option, 1);
}

/// `value` is of the type that the kernel takes for this option.
fn set_option<T: Copy>(
    socket: &impl AsRawFd,
    (level, name): (libc::c_int, libc::c_int),
    value: T,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("some bytes");
    // SAFETY: the value outlives the call, and its length is given; where it points to something, so does that.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            len,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
