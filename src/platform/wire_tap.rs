//! Reading every frame that passes an interface, as `tcpdump` does.
//!
//! Knows AF_PACKET. Refuses to know what the frames mean.
#![expect(unsafe_code, reason = "nix offers no bind for AF_PACKET")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::link::Links;

/// 32 MiB: what passes while the reader waits for a processor. Without rights for it the kernel gives its usual limit.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// A tap on one interface of the network namespace it was opened in.
#[derive(Debug)]
pub struct WireTap(Socket);

impl WireTap {
    /// Opens a tap on the interface `name`.
    pub fn open(name: &str) -> io::Result<Self> {
        let index = Links::open()?.index(name)?;
        let every = u16::try_from(libc::ETH_P_ALL)
            .expect("an ethertype has 16 bits")
            .to_be();
        let socket = Socket::new(
            Domain::PACKET,
            Type::RAW,
            Some(Protocol::from(i32::from(every))),
        )?;
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET
            .try_into()
            .expect("an address family has 16 bits");
        address.sll_protocol = every;
        address.sll_ifindex = index.try_into().expect("interface numbers are small");
        // SAFETY: the pointer and the length describe `address`, which outlives the call.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of_val(&address)
                    .try_into()
                    .expect("an address is small"),
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        let _ = nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::RcvBufForce,
            &RECEIVE_BUFFER_BYTES,
        )
        .or_else(|_| {
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::RcvBuf,
                &RECEIVE_BUFFER_BYTES,
            )
        });
        Ok(Self(socket))
    }

    /// Waits for the next frame and puts it, with its Ethernet header, at the start of `buffer`; gives its length.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut (&self.0), buffer)
    }
}

impl AsFd for WireTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
