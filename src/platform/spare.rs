//! UDP sockets beside the main ones: each has a port of its own, which a NAT maps by itself. They are many and mostly
//! silent, so none has buffers until it is found to be of use.

#![expect(
    clippy::disallowed_types,
    reason = "sockets are made in platform/, this one without what the main ones have"
)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use super::udp::Socket;

/// One of them, of IPv4: NATs of IPv6 are left alone.
#[derive(Debug)]
pub struct Spare(UdpSocket);

impl Spare {
    /// Binds one to a port that the kernel chooses.
    pub fn open() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends one datagram, if the kernel takes it now.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.0.send_to(bytes, to).map(drop)
    }

    /// Takes one datagram that is there, into `buffer`: from where, and how long. None: there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<(SocketAddr, usize)> {
        let (len, source) = self.0.recv_from(buffer).ok()?;
        Some((source, len))
    }

    /// The same socket with buffers, for traffic.
    pub fn into_socket(self) -> io::Result<Socket> {
        Socket::of(self.0.into())
    }
}

impl AsFd for Spare {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_socket_keeps_its_port_when_it_comes_into_use() {
        let spare = Spare::open().unwrap();
        let port = spare.0.local_addr().unwrap().port();
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        spare.send(to.local_addr().unwrap(), b"out").unwrap();
        let mut buffer = [0; 16];
        let (len, source) = to.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], source.port()), (&b"out"[..], port));
        assert_eq!(spare.receive(&mut buffer), None);
        to.send_to(b"in", source).unwrap();
        assert_eq!(spare.receive(&mut buffer).unwrap().1, 2);
        assert_eq!(spare.into_socket().unwrap().port().unwrap(), port);
    }
}
