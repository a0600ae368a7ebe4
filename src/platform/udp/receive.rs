//! Datagrams that came: several messages in one system call, each with one datagram or, where the socket takes trains
//! (`UDP_GRO`), with many of one length from one sender.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

use super::DATAGRAM_MAX;

/// Messages per system call where each is one datagram.
const BATCH: usize = 64;

/// Messages per system call where each may be a train: 256 KB, so that the other direction soon has its turn.
const TRAINS: usize = 4;

/// A message with so many bytes is long: the next one is taken alone, into the same buffer, which lies in the processor's
/// cache still. The system calls are nothing beside what it holds.
pub const LONG: usize = 4 << 10;

/// The longest train.
const TRAIN_BYTES: usize = 65_536;

/// Words for what the kernel says about a message: how it is cut, and how its IP header was marked.
const NOTES: usize = 16;

/// Datagrams of one length, but for the last, that came from one place.
#[derive(Debug)]
pub struct Received<'a> {
    /// From where.
    pub source: SocketAddr,
    /// The two bits for congestion in their IP headers.
    pub ecn: u8,
    /// Whether they were cut.
    pub cut: Cut,
    /// They, one behind the other.
    pub bytes: &'a mut [u8],
    /// Bytes of each but the last; 1 at least.
    pub size: usize,
}

impl Received<'_> {
    /// Each of them.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = &*self.bytes;
        // An empty datagram is one too.
        let empty = bytes.is_empty().then_some(bytes);
        bytes.chunks(self.size).chain(empty)
    }
}

/// Whether a datagram was longer than the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is whole.
    Whole,
    /// Its end is lost.
    Cut,
}

/// The buffers of one socket.
pub(super) struct Inbound {
    buffer: Vec<u8>,
    /// Bytes of the buffer for each message.
    each: usize,
    /// Whether one of the last messages was [`LONG`].
    is_long: bool,
    addresses: [libc::sockaddr_storage; BATCH],
    notes: [[u64; NOTES]; BATCH],
}

impl Inbound {
    /// Buffers for single datagrams.
    pub(super) fn single() -> Self {
        Self::with(BATCH, DATAGRAM_MAX)
    }

    /// Buffers for trains.
    pub(super) fn trains() -> Self {
        Self::with(TRAINS, TRAIN_BYTES)
    }

    fn with(messages: usize, each: usize) -> Self {
        Self {
            buffer: vec![0; messages * each],
            each,
            is_long: false,
            // SAFETY: all zero bytes are a valid sockaddr_storage: it is integers and bytes throughout.
            addresses: unsafe { std::mem::zeroed() },
            notes: [[0; NOTES]; BATCH],
        }
    }

    /// Takes at most one batch of messages that are there and hands each to `take`. Never waits.
    pub(super) fn receive(
        &mut self,
        fd: &OwnedFd,
        mut take: impl FnMut(Received<'_>),
    ) -> io::Result<Came> {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|_| libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        });
        // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
        let mut heads: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let messages = match self.is_long {
            true => 1,
            false => self.buffer.len() / self.each,
        };
        let rooms = self.buffer.chunks_exact_mut(self.each);
        for (i, (room, address)) in rooms.zip(&mut self.addresses).enumerate() {
            parts[i].iov_base = room.as_mut_ptr().cast();
            parts[i].iov_len = room.len();
            let head = &mut heads[i].msg_hdr;
            head.msg_name = std::ptr::from_mut(address).cast();
            head.msg_namelen = size_of_storage();
            head.msg_iov = &raw mut parts[i];
            head.msg_iovlen = 1;
            head.msg_control = self.notes[i].as_mut_ptr().cast();
            head.msg_controllen = size_of_val(&self.notes[i]);
        }
        let limit = u32::try_from(messages).expect("a batch is small");
        // SAFETY: the first `limit` headers each point to a buffer, an address, notes and an iovec that outlive the call
        // and that nothing else points to.
        let came = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                heads.as_mut_ptr(),
                limit,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.is_long = false;
        let Ok(came) = usize::try_from(came) else {
            return nothing(io::Error::last_os_error());
        };
        let rooms = self.buffer.chunks_exact_mut(self.each);
        for (i, room) in rooms.enumerate().take(came) {
            let Some(source) = decode(&self.addresses[i]) else {
                continue;
            };
            let len = usize::try_from(heads[i].msg_len).unwrap_or(0);
            let bytes = &mut room[..len.min(self.each)];
            self.is_long |= len >= LONG;
            let said = said(&heads[i].msg_hdr);
            let size = said.size.unwrap_or(len).max(1);
            let is_cut = heads[i].msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || size > DATAGRAM_MAX;
            take(Received {
                source,
                ecn: said.ecn,
                cut: if is_cut { Cut::Cut } else { Cut::Whole },
                bytes,
                size,
            });
        }
        Ok(match came == messages {
            true => Came::Full,
            false => Came::All,
        })
    }
}

/// Whether there may be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The batch was full: there may be more.
    Full,
    /// That was all.
    All,
}

/// What the kernel said about a message.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    size: Option<usize>,
    ecn: u8,
}

fn said(head: &libc::msghdr) -> Said {
    let mut said = Said::default();
    // SAFETY: the kernel wrote the notes and their length into this header.
    let mut note = unsafe { libc::CMSG_FIRSTHDR(head) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header within the notes, aligned as the notes are.
    while let Some(found) = unsafe { note.as_ref() } {
        // SAFETY: the note's bytes lie behind its head, within the notes.
        let data = unsafe { libc::CMSG_DATA(note) };
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: of this kind the value is a c_int.
                let size = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                said.size = usize::try_from(size).ok().filter(|size| *size > 0);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                // SAFETY: of this kind the value is one byte.
                said.ecn = unsafe { data.read() } & 3;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // SAFETY: of this kind the value is a c_int.
                let class = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                said.ecn = u8::try_from(class & 3).unwrap_or(0);
            }
            _ => {}
        }
        // SAFETY: as above.
        note = unsafe { libc::CMSG_NXTHDR(head, note) };
    }
    said
}

fn size_of_storage() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).expect("128 bytes")
}

/// Nothing to receive is no error; nor is what ICMP said about an earlier datagram, which is told once here.
fn nothing(error: io::Error) -> io::Result<Came> {
    let is_passing = matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    );
    if is_passing {
        Ok(Came::All)
    } else {
        Err(error)
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
