//! One netlink socket that asks and waits for the answer.
//!
//! Knows how requests, dumps and batches are framed and acknowledged. Refuses to know what they ask.
#![expect(unsafe_code, reason = "netlink-sys takes sockets as raw descriptors")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{NetlinkAddr, getsockname};

/// The kernel cuts a dump into datagrams of at most 32 KiB; a smaller buffer would lose messages.
const RECEIVE_BYTES: usize = 64 * 1024;

/// A netlink socket of one protocol, in the network namespace that its thread was in when it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One message of a batch and the flags it goes with.
pub(crate) type Flagged<T> = (T, u16);

impl Netlink {
    /// Opens and binds a socket; `protocol` is one of [`netlink_sys::protocols`].
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Goes on with a socket that [`Netlink::open`] made in an earlier run of this program.
    ///
    /// # Errors
    /// It is no netlink socket, or has no port.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        getsockname::<NetlinkAddr>(fd.as_raw_fd())?;
        // SAFETY: `into_raw_fd` gives up a descriptor that was owned until here; the socket is its one owner.
        let socket = unsafe { Socket::from_raw_fd(fd.into_raw_fd()) };
        let mut netlink = Self {
            socket,
            sequence: 0,
        };
        if netlink.port()? == 0 {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        netlink.forget()?;
        Ok(netlink)
    }

    /// The socket's own address: what the kernel knows it by.
    pub(crate) fn port(&self) -> io::Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.socket.as_raw_fd())?.pid())
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request<T>(&mut self, message: T, flags: u16) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        self.batch(vec![(message, flags | NLM_F_ACK)])
    }

    /// Sends messages in one datagram and waits for the acknowledgement of each that has `NLM_F_ACK`.
    ///
    /// # Errors
    /// The first refusal of the kernel. Further answers may still wait in the socket: it is to be dropped, or
    /// to [`Netlink::forget`] them.
    pub(crate) fn batch<T>(&mut self, messages: Vec<Flagged<T>>) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut bytes = Vec::new();
        let mut awaited = 0;
        let first = self.sequence.wrapping_add(1);
        for (message, flags) in messages {
            bytes.extend(self.frame(message, flags));
            awaited += usize::from(flags & NLM_F_ACK != 0);
        }
        self.socket.send(&bytes, 0)?;
        while awaited > 0 {
            let answers = self.receive::<T>()?;
            for answer in answers
                .into_iter()
                .filter(|one| one.header.sequence_number >= first)
            {
                awaited -= usize::from(is_acknowledged(&answer.payload)?);
            }
        }
        Ok(())
    }

    /// Asks for everything that `message` names.
    pub(crate) fn dump<T>(&mut self, message: T) -> io::Result<Vec<T>>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        let bytes = self.frame(message, NLM_F_DUMP);
        self.socket.send(&bytes, 0)?;
        let mut found = Vec::new();
        let mut is_whole = false;
        while !is_whole {
            let answers = self.receive::<T>()?;
            for answer in answers
                .into_iter()
                .filter(|one| one.header.sequence_number == self.sequence)
            {
                is_acknowledged(&answer.payload)?;
                is_whole |= matches!(answer.payload, NetlinkPayload::Done(_));
                found.extend(content(answer.payload));
            }
        }
        Ok(found)
    }

    /// Throws away what waits in the socket.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn frame<T: NetlinkSerializable>(&mut self, message: T, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut framed = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        framed.finalize();
        let mut bytes = vec![0; framed.buffer_len()];
        framed.serialize(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes
    }

    fn receive<T: NetlinkDeserializable>(&self) -> io::Result<Vec<NetlinkMessage<T>>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        let mut found = Vec::new();
        while rest.len() >= HEADER_BYTES {
            let one = NetlinkMessage::<T>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = usize::try_from(one.header.length).unwrap_or(usize::MAX);
            rest = rest
                .get(length.next_multiple_of(ALIGN)..)
                .unwrap_or_default();
            found.push(one);
        }
        Ok(found)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn content<T>(payload: NetlinkPayload<T>) -> Option<T> {
    if let NetlinkPayload::InnerMessage(one) = payload {
        Some(one)
    } else {
        None
    }
}

/// Whether this is the kernel's yes; its no is the error.
fn is_acknowledged<T>(payload: &NetlinkPayload<T>) -> io::Result<bool> {
    let NetlinkPayload::Error(error) = payload else {
        return Ok(false);
    };
    match error.code {
        None => Ok(true),
        Some(_) => Err(error.to_io()),
    }
}

/// `NLMSG_ALIGNTO`.
const ALIGN: usize = 4;

/// `sizeof(struct nlmsghdr)`.
const HEADER_BYTES: usize = 16;
