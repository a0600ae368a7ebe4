//! UDP sockets that carry the mesh: one port in both families, and batches of datagrams without a copy or an
//! allocation per datagram.
#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg over buffers that are kept"
)]

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as Plain, Type};

/// Datagrams per system call. More gains little: at 64 the call is 2 % of the work.
const BATCH: usize = 64;

/// Bytes a datagram may have. Ours are at most the device's MTU + 32; a longer one is cut and reported as such.
pub const DATAGRAM_MAX: usize = 2048;

/// Bytes asked for as socket buffers: 20 ms at 1.6 Gbit/s, which is how long a loaded host may keep us waiting.
const BUFFER: usize = 4 << 20;

/// The sockets of one agent.
#[derive(Debug)]
pub struct Pair {
    /// IPv4.
    pub udp4: Socket,
    /// IPv6; none where the host has no IPv6.
    pub udp6: Option<Socket>,
}

/// Why the port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("UDP port {0} is in use; stop its owner or choose another with --port")]
    Busy(u16),
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
    pub fn adopt(udp4: OwnedFd, udp6: Option<OwnedFd>) -> Result<Self, Misfit> {
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
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.fd).finish()
    }
}

struct Inbound {
    buffers: Vec<[u8; DATAGRAM_MAX]>,
    addresses: [libc::sockaddr_storage; BATCH],
}

/// One datagram that came.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// From where.
    pub source: SocketAddr,
    /// Its bytes; cut at [`DATAGRAM_MAX`].
    pub bytes: &'a [u8],
    /// Whether it was cut.
    pub cut: Cut,
}

/// Whether a datagram was longer than the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is whole.
    Whole,
    /// Its end is lost.
    Cut,
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
        wish_path_mtu_discovery(&fd, family)?;
        // SAFETY: all zero bytes are a valid sockaddr_storage: it is integers and bytes throughout.
        let addresses = unsafe { std::mem::zeroed() };
        Ok(Self {
            fd,
            inbound: Box::new(Inbound {
                buffers: vec![[0; DATAGRAM_MAX]; BATCH],
                addresses,
            }),
        })
    }

    /// The port it is bound to.
    pub fn port(&self) -> io::Result<u16> {
        let address = SockRef::from(&self.fd).local_addr()?;
        Ok(address.as_socket().map_or(0, |socket| socket.port()))
    }

    /// Takes at most one batch of datagrams that are there and hands each to `take`. Tells how many; 0 when there was
    /// none. Never waits.
    pub fn receive(&mut self, mut take: impl FnMut(Received<'_>)) -> io::Result<usize> {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|_| libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        });
        // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
        let mut heads: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let Inbound { buffers, addresses } = &mut *self.inbound;
        for (i, (buffer, address)) in buffers.iter_mut().zip(addresses.iter_mut()).enumerate() {
            parts[i].iov_base = buffer.as_mut_ptr().cast();
            parts[i].iov_len = DATAGRAM_MAX;
            heads[i].msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            heads[i].msg_hdr.msg_namelen = size_of_storage();
            heads[i].msg_hdr.msg_iov = &raw mut parts[i];
            heads[i].msg_hdr.msg_iovlen = 1;
        }
        let limit = u32::try_from(BATCH).expect("a batch is small");
        // SAFETY: `heads` holds BATCH headers, each of which points to a buffer, an address and an iovec that outlive
        // the call and that nothing else points to.
        let came = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                heads.as_mut_ptr(),
                limit,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(came) = usize::try_from(came) else {
            return would_block(io::Error::last_os_error());
        };
        for i in 0..came.min(BATCH) {
            let Some(source) = decode(&addresses[i]) else {
                continue;
            };
            let len = usize::try_from(heads[i].msg_len)
                .unwrap_or(0)
                .min(DATAGRAM_MAX);
            let cut = match heads[i].msg_hdr.msg_flags & libc::MSG_TRUNC {
                0 => Cut::Whole,
                _ => Cut::Cut,
            };
            take(Received {
                source,
                bytes: &buffers[i][..len],
                cut,
            });
        }
        Ok(came)
    }

    /// Sends datagrams of this socket's family in as few calls as can be. Never waits; tells how many the kernel did
    /// not take.
    pub fn send<'a>(&self, datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>) -> usize {
        let mut refused = 0;
        let mut batch = Outbound::new();
        for (to, bytes) in datagrams {
            batch.push(to, bytes);
            if batch.used == BATCH {
                refused += batch.flush(&self.fd);
            }
        }
        refused + batch.flush(&self.fd)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A batch on its way out; `'a` keeps the datagrams alive until it is flushed.
struct Outbound<'a> {
    datagrams: [&'a [u8]; BATCH],
    addresses: [SocketAddr; BATCH],
    used: usize,
}

impl<'a> Outbound<'a> {
    fn new() -> Self {
        Self {
            datagrams: [&[]; BATCH],
            addresses: [SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)); BATCH],
            used: 0,
        }
    }

    fn push(&mut self, to: SocketAddr, bytes: &'a [u8]) {
        self.datagrams[self.used] = bytes;
        self.addresses[self.used] = to;
        self.used += 1;
    }

    /// Sends all, skipping each that the kernel refuses; tells how many it refused.
    fn flush(&mut self, fd: &OwnedFd) -> usize {
        let used = std::mem::take(&mut self.used);
        if used == 0 {
            return 0;
        }
        let addresses: [SockAddr; BATCH] =
            std::array::from_fn(|i| SockAddr::from(self.addresses[i]));
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|i| libc::iovec {
            iov_base: self.datagrams[i].as_ptr().cast_mut().cast(),
            iov_len: self.datagrams[i].len(),
        });
        // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
        let mut heads: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for i in 0..used {
            heads[i].msg_hdr.msg_name = addresses[i].as_ptr().cast_mut().cast();
            heads[i].msg_hdr.msg_namelen = addresses[i].len();
            heads[i].msg_hdr.msg_iov = &raw mut parts[i];
            heads[i].msg_hdr.msg_iovlen = 1;
        }
        let (mut next, mut refused) = (0, 0);
        while next < used {
            let left = u32::try_from(used - next).expect("a batch is small");
            // SAFETY: headers `next..used` point to datagrams, addresses and iovecs that outlive the call; the kernel
            // only reads what they point to.
            let sent = unsafe {
                libc::sendmmsg(
                    fd.as_raw_fd(),
                    heads[next..].as_mut_ptr(),
                    left,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => next += sent,
                // The socket's buffer is full: it would refuse each of the others too, at a call apiece.
                _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => {
                    return refused + used - next;
                }
                _ => {
                    // The error is the first datagram's, or one that an earlier datagram left behind.
                    next += 1;
                    refused += 1;
                }
            }
        }
        refused
    }
}

fn size_of_storage() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).expect("128 bytes")
}

/// Nothing to receive is no error; nor is what ICMP said about an earlier datagram, which is told once here.
fn would_block(error: io::Error) -> io::Result<usize> {
    let is_passing = matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    );
    if is_passing { Ok(0) } else { Err(error) }
}

/// Asks for big buffers: beyond the host's limit where we may, else up to it. A host that gives less only drops more.
fn wish_buffers(socket: &OwnedFd) {
    let plain = SockRef::from(socket);
    let _ = plain.set_recv_buffer_size(BUFFER);
    let _ = plain.set_send_buffer_size(BUFFER);
    let size = libc::c_int::try_from(BUFFER).expect("4 MiB");
    let _ = set_option(socket, (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE), size);
    let _ = set_option(socket, (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE), size);
}

/// Fragments where a path is narrower than a datagram, and learns its MTU (design §6).
fn wish_path_mtu_discovery(socket: &OwnedFd, family: Domain) -> io::Result<()> {
    let (option, want) = if family == Domain::IPV4 {
        let option = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
        (option, libc::IP_PMTUDISC_WANT)
    } else {
        let option = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
        (option, libc::IPV6_PMTUDISC_WANT)
    };
    set_option(socket, option, want)
}

fn set_option(
    socket: &impl AsRawFd,
    (level, name): (libc::c_int, libc::c_int),
    value: libc::c_int,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4 bytes");
    // SAFETY: the value is one c_int that outlives the call, and its length is given.
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

fn decode(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, which a sockaddr_storage has room and alignment for.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the kernel wrote a sockaddr_in6, which a sockaddr_storage has room and alignment for.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(socket: &mut Socket) -> Vec<(SocketAddr, Vec<u8>, Cut)> {
        let mut seen = Vec::new();
        while socket
            .receive(|received| seen.push((received.source, received.bytes.to_vec(), received.cut)))
            .unwrap()
            > 0
        {}
        seen
    }

    #[test]
    fn a_batch_longer_than_one_call_arrives_whole_and_in_order() {
        let mut to = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let from = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = SocketAddr::new("127.0.0.1".parse().unwrap(), to.port().unwrap());
        let datagrams: Vec<Vec<u8>> = (0..150u8).map(|i| vec![i; usize::from(i) + 1]).collect();
        assert_eq!(
            from.send(datagrams.iter().map(|d| (address, d.as_slice()))),
            0
        );
        let seen = all(&mut to);
        assert_eq!(
            seen.iter().map(|s| s.1.clone()).collect::<Vec<_>>(),
            datagrams
        );
        assert!(
            seen.iter()
                .all(|s| s.0.port() == from.port().unwrap() && s.2 == Cut::Whole)
        );
    }

    #[test]
    fn batches_go_out_and_come_in_without_an_allocation() {
        let sockets = ["127.0.0.1:0", "[::1]:0"].map(|at| {
            let [to, from] = [(); 2].map(|()| Socket::bind(at.parse().unwrap()).unwrap());
            let at = SockRef::from(&to.fd).local_addr().unwrap();
            (at.as_socket().unwrap(), to, from)
        });
        for (at, mut to, from) in sockets {
            let mut came = 0;
            let asked = crate::platform::allocation::asked_by(|| {
                assert_eq!(from.send([(at, &[7; 1400][..]); 150].into_iter()), 0);
                while to.receive(|one| came += one.bytes.len()).unwrap() > 0 {}
            });
            assert_eq!((asked, came), (0, 150 * 1400));
        }
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_is_told_as_cut() {
        let mut to = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let from = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = SocketAddr::new("127.0.0.1".parse().unwrap(), to.port().unwrap());
        assert_eq!(from.send([(address, &[1; 4000][..])].into_iter()), 0);
        assert_eq!(all(&mut to)[0].2, Cut::Cut);
    }

    #[test]
    fn one_refused_datagram_does_not_stop_the_others() {
        let mut to = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let from = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = SocketAddr::new("127.0.0.1".parse().unwrap(), to.port().unwrap());
        let long = vec![0; 70_000];
        let datagrams: [(SocketAddr, &[u8]); 3] =
            [(address, b"a"), (address, &long), (address, b"b")];
        assert_eq!(from.send(datagrams.into_iter()), 1);
        assert_eq!(all(&mut to).len(), 2);
    }

    #[test]
    fn sockets_go_on_in_other_hands_with_what_waits_in_them() {
        let pair = Pair::bind(0).unwrap();
        let port = pair.port().unwrap();
        let copy = |socket: &Socket| socket.as_fd().try_clone_to_owned().unwrap();
        let (udp4, udp6) = (copy(&pair.udp4), pair.udp6.as_ref().map(copy));
        let to = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
        pair.udp4.send([(to, &b"waits"[..])].into_iter());
        let had_v6 = udp6.is_some();
        drop(pair);
        let mut pair = Pair::adopt(udp4, udp6).unwrap();
        assert_eq!(pair.port().unwrap(), port);
        assert_eq!(pair.udp6.is_some(), had_v6);
        assert_eq!(all(&mut pair.udp4)[0].1, b"waits");
    }

    #[test]
    fn what_an_agent_would_not_have_bound_is_not_taken() {
        let narrow = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(Pair::adopt(narrow.fd, None).unwrap_err(), Misfit);
        let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        assert_eq!(Pair::adopt(tcp.into(), None).unwrap_err(), Misfit);
        let Some(v6) = Pair::bind(0).unwrap().udp6 else {
            return;
        };
        assert_eq!(Pair::adopt(v6.fd, None).unwrap_err(), Misfit);
    }

    #[test]
    fn both_families_share_a_port_and_a_second_agent_is_told() {
        let pair = Pair::bind(0).unwrap();
        let port = pair.port().unwrap();
        if let Some(udp6) = &pair.udp6 {
            assert_eq!(udp6.port().unwrap(), port);
        }
        assert!(matches!(Pair::bind(port), Err(BindError::Busy(busy)) if busy == port));
    }
}
