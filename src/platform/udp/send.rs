//! Datagrams on their way out: as many as can be in one system call, and those that follow each other to one place with
//! one length as one train that the kernel, or the hardware, takes apart again (`UDP_SEGMENT`).

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Range,
    os::fd::{AsRawFd, OwnedFd},
};

use socket2::{Domain, SockAddr};

use super::cutting::{Cutting, Discovery};

/// Messages per system call. More gains little: at 64 the call is 2 % of the work.
const BATCH: usize = 64;

/// Datagrams per system call: some whole trains.
const PARTS: usize = 256;

/// Datagrams in a train: what every kernel with trains takes.
pub(in crate::platform) const TRAIN: usize = 64;

/// Bytes in a train: a UDP datagram of IPv6, and a little less than one of IPv4.
pub(in crate::platform) const TRAIN_BYTES: usize = 65_487;

/// Datagrams that go singly after a train was refused for its own sake: the way to one place may be narrower than its
/// datagrams, and then every train there is refused.
const PAUSE: usize = 4096;

/// One datagram on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: &'a [u8],
    /// The two bits for congestion in its IP header.
    pub ecn: u8,
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// How many the kernel has taken or refused: all, unless the socket is full or the last were to stay.
    pub taken: usize,
    /// How many of those it refused.
    pub refused: usize,
    /// Whether the socket's buffer is full: it takes no more before it can be written again.
    pub is_full: bool,
}

/// What becomes of a last train that has room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// It goes.
    Goes,
    /// Its datagrams stay untaken: those that come next go with them.
    Stays,
}

/// Whether datagrams may go out in trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trains {
    /// They may.
    On,
    /// They were not to.
    Off,
    /// The kernel does not send them by the device they go out of.
    Refused,
}

/// What is kept from one system call to the next: buffers without a pointer in them.
pub(super) struct Outbound {
    pub(super) trains: Trains,
    cutting: Discovery,
    /// How many datagrams go singly before a train is tried again.
    pause: usize,
    /// Bytes in a train, at most: one that is long for the uplink stands before all that comes behind.
    pub(super) train_bytes: usize,
    waiting: Vec<Train>,
    addresses: [SockAddr; BATCH],
    notes: [Notes; BATCH],
}

/// Datagrams that go out as one message.
#[derive(Clone, Debug)]
struct Train {
    to: SocketAddr,
    ecn: u8,
    /// Which of the parts.
    parts: Range<usize>,
    /// Bytes of each but the last.
    size: usize,
    bytes: usize,
    is_closed: bool,
}

impl Train {
    /// The first of one, which is this part.
    fn of(datagram: &Outgoing<'_>, part: usize) -> Self {
        let size = datagram.bytes.len();
        Self {
            to: datagram.to,
            ecn: datagram.ecn,
            parts: part..part + 1,
            size,
            bytes: size,
            is_closed: false,
        }
    }

    fn takes(&self, datagram: &Outgoing<'_>, most: usize) -> bool {
        let len = datagram.bytes.len();
        !self.is_closed
            && self.to == datagram.to
            && self.ecn == datagram.ecn
            && (1..=self.size).contains(&len)
            && self.parts.len() < TRAIN
            && self.bytes + len <= most
    }

    fn has_room(&self, most: usize) -> bool {
        !self.is_closed && self.parts.len() < TRAIN && self.bytes + self.size <= most
    }

    fn take(&mut self, len: usize) {
        self.parts.end += 1;
        self.bytes += len;
        self.is_closed = len < self.size;
    }
}

/// What is said about a message to the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Notes {
    segment: Note<u16>,
    ecn: Note<libc::c_int>,
}

/// One control message as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy)]
struct Note<T> {
    head: libc::cmsghdr,
    value: T,
}

impl<T: Copy> Note<T> {
    fn new((level, kind): (libc::c_int, libc::c_int), value: T) -> Self {
        // SAFETY: all zero bytes are a valid cmsghdr: it is integers throughout.
        let mut head: libc::cmsghdr = unsafe { std::mem::zeroed() };
        // Its type is not the same with every C library.
        #[allow(
            clippy::useless_conversion,
            clippy::unnecessary_fallible_conversions,
            reason = "glibc's is a usize"
        )]
        {
            head.cmsg_len = (std::mem::offset_of!(Self, value) + size_of::<T>())
                .try_into()
                .expect("a few bytes");
        }
        head.cmsg_level = level;
        head.cmsg_type = kind;
        Self { head, value }
    }
}

const SEGMENT: (libc::c_int, libc::c_int) = (libc::SOL_UDP, libc::UDP_SEGMENT);
const ECN4: (libc::c_int, libc::c_int) = (libc::IPPROTO_IP, libc::IP_TOS);
const ECN6: (libc::c_int, libc::c_int) = (libc::IPPROTO_IPV6, libc::IPV6_TCLASS);

impl Outbound {
    /// # Errors
    /// The kernel refuses what is asked of the socket.
    pub(super) fn new(fd: &OwnedFd, family: Domain) -> io::Result<Self> {
        let nowhere = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Ok(Self {
            trains: Trains::Off,
            cutting: Discovery::new(fd, family)?,
            pause: 0,
            train_bytes: TRAIN_BYTES,
            waiting: Vec::with_capacity(BATCH),
            addresses: std::array::from_fn(|_| SockAddr::from(nowhere)),
            notes: [Notes {
                segment: Note::new(SEGMENT, 0),
                ecn: Note::new(ECN4, 0),
            }; BATCH],
        })
    }

    /// Whether a train was refused a moment ago.
    pub(super) fn is_pausing(&self) -> bool {
        self.pause > 0
    }

    /// Sends datagrams, which routers may cut if anyone may, until the socket is full; of a last train that has room, what `tail`
    /// says.
    pub(super) fn send<'a>(
        &mut self,
        fd: &OwnedFd,
        datagrams: impl Iterator<Item = Outgoing<'a>>,
        (who, tail): (Cutting, Tail),
    ) -> Sent {
        let is_single = self.is_pausing() || self.trains != Trains::On;
        let is_host = who == Cutting::Nobody && is_single;
        self.cutting
            .tell(fd, if is_host { Cutting::Host } else { who });
        let mut parts = [IoSlice::new(&[]); PARTS];
        let mut used = 0;
        let mut sent = Sent::default();
        for datagram in datagrams {
            match self.train_for(&datagram).filter(|_| used < PARTS) {
                Some(train) => train.take(datagram.bytes.len()),
                None => {
                    if used == PARTS || self.waiting.len() == BATCH {
                        self.flush(fd, &parts, &mut sent);
                        if sent.is_full {
                            return sent;
                        }
                        used = 0;
                    }
                    self.waiting.push(Train::of(&datagram, used));
                }
            }
            parts[used] = IoSlice::new(datagram.bytes);
            used += 1;
            self.pause = self.pause.saturating_sub(1);
        }
        let may_join = self.may_join();
        let last = self.waiting.last().filter(|_| may_join);
        if tail == Tail::Stays && last.is_some_and(|train| train.has_room(self.train_bytes)) {
            self.waiting.pop();
        }
        self.flush(fd, &parts, &mut sent);
        sent
    }

    fn may_join(&self) -> bool {
        self.trains == Trains::On && self.pause == 0 && self.cutting.takes_trains()
    }

    /// The train that a datagram goes with: that of the one before it.
    fn train_for(&mut self, datagram: &Outgoing<'_>) -> Option<&mut Train> {
        let (may_join, most) = (self.may_join(), self.train_bytes);
        let last = self.waiting.last_mut().filter(|_| may_join);
        last.filter(|train| train.takes(datagram, most))
    }

    /// Sends all that waits, until the socket is full; what the kernel refuses as a train goes singly.
    fn flush(&mut self, fd: &OwnedFd, parts: &[IoSlice<'_>; PARTS], sent: &mut Sent) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut next = 0;
        while let Some(rest) = waiting.get(next..).filter(|rest| !rest.is_empty())
            && !sent.is_full
        {
            match self.transmit(fd, parts, rest) {
                Ok(many) => {
                    let trains = rest.iter().take(many);
                    sent.taken += trains.map(|train| train.parts.len()).sum::<usize>();
                    next += many;
                }
                Err(error) if is_full(&error) => sent.is_full = true,
                // The error is the first message's, or one that an earlier datagram left behind.
                Err(error) => {
                    self.send_singly(fd, parts, (&rest[0], &error), sent);
                    next += 1;
                }
            }
        }
        waiting.clear();
        self.waiting = waiting;
    }

    /// What was refused as a train, or since nobody may cut it, may be taken as datagrams that this host may.
    fn send_singly(
        &mut self,
        fd: &OwnedFd,
        parts: &[IoSlice<'_>; PARTS],
        (train, error): (&Train, &io::Error),
        sent: &mut Sent,
    ) {
        let before = self.cutting.told;
        let is_too_long = error.raw_os_error() == Some(libc::EMSGSIZE);
        if train.parts.len() == 1 && !(is_too_long && before == Cutting::Nobody) {
            sent.taken += 1;
            sent.refused += 1;
            return;
        }
        if before == Cutting::Nobody {
            self.cutting.tell(fd, Cutting::Host);
        }
        if error.raw_os_error() == Some(libc::EIO) {
            self.trains = Trains::Refused;
        }
        // Of those that may be cut each train may be refused, and one that goes alone says nothing of others.
        if train.parts.len() > 1 && before != Cutting::Anyone {
            self.pause = PAUSE;
        }
        for part in train.parts.clone() {
            let single = Train {
                parts: part..part + 1,
                ..train.clone()
            };
            match self.transmit(fd, parts, &[single]) {
                Ok(_one) => {}
                Err(error) if is_full(&error) => {
                    sent.is_full = true;
                    break;
                }
                Err(_refused) => sent.refused += 1,
            }
            sent.taken += 1;
        }
        self.cutting.tell(fd, before);
    }

    /// One system call; tells how many messages went out: one or more.
    fn transmit(
        &mut self,
        fd: &OwnedFd,
        parts: &[IoSlice<'_>; PARTS],
        trains: &[Train],
    ) -> io::Result<usize> {
        // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
        let mut heads: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let mut pieces = [NO_PIECE; PARTS];
        let mut unused = &mut pieces[..];
        for (i, train) in trains.iter().enumerate().take(BATCH) {
            let head = &mut heads[i].msg_hdr;
            self.addresses[i] = SockAddr::from(train.to);
            head.msg_name = self.addresses[i].as_ptr().cast_mut().cast();
            head.msg_namelen = self.addresses[i].len();
            let used = gather(&parts[train.parts.clone()], unused);
            let (gathered, rest) = unused.split_at_mut(used);
            head.msg_iov = gathered.as_mut_ptr();
            head.msg_iovlen = gathered.len();
            unused = rest;
            let (notes, len) = self.notes[i].about(train);
            head.msg_control = notes;
            head.msg_controllen = len;
        }
        let many = u32::try_from(trains.len().min(BATCH)).expect("a batch is small");
        // SAFETY: the first `many` headers point to datagrams, addresses, iovecs and notes that outlive the call; the
        // kernel only reads what they point to.
        let sent =
            unsafe { libc::sendmmsg(fd.as_raw_fd(), heads.as_mut_ptr(), many, libc::MSG_DONTWAIT) };
        match usize::try_from(sent) {
            Ok(sent) if sent > 0 => Ok(sent),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

const NO_PIECE: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// Says where parts lie; those that lie one behind the other are one piece, which costs the kernel less than many. Tells
/// how many pieces there are.
fn gather(parts: &[IoSlice<'_>], pieces: &mut [libc::iovec]) -> usize {
    let mut used = 0_usize;
    for part in parts {
        let base: *mut libc::c_void = part.as_ptr().cast_mut().cast();
        let before = used.checked_sub(1).and_then(|last| pieces.get_mut(last));
        match before {
            Some(before) if before.iov_base.addr() + before.iov_len == base.addr() => {
                before.iov_len += part.len();
            }
            Some(_) | None => {
                pieces[used] = libc::iovec {
                    iov_base: base,
                    iov_len: part.len(),
                };
                used += 1;
            }
        }
    }
    used
}

/// Whether the socket's buffer is full.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Notes {
    /// Writes down what is to be said about a train; where that lies, and how many bytes of it count.
    fn about(&mut self, train: &Train) -> (*mut libc::c_void, usize) {
        let is_train = train.parts.len() > 1;
        if is_train {
            self.segment.value = u16::try_from(train.size).unwrap_or(u16::MAX);
        }
        if train.ecn != 0 {
            let kind = if train.to.is_ipv4() { ECN4 } else { ECN6 };
            self.ecn = Note::new(kind, train.ecn.into());
        }
        match (is_train, train.ecn != 0) {
            (true, true) => ((&raw mut *self).cast(), size_of::<Self>()),
            (true, false) => ((&raw mut self.segment).cast(), size_of::<Note<u16>>()),
            (false, true) => ((&raw mut self.ecn).cast(), size_of::<Note<libc::c_int>>()),
            (false, false) => (std::ptr::null_mut(), 0),
        }
    }
}
