//! Sockets on this machine's mesh addresses, bound to the TUN device so that only what came through it reaches them.

#![expect(
    clippy::disallowed_types,
    reason = "the sockets of splices serve this host's programs; they are no part of the underlay"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// How long to stop accepting after an accept failed (no descriptor left): long enough not to spin.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Takes the next connection, but not before `earliest`. The pause after an accept that failed is part of this wait, so
/// that the connections that stand go on meanwhile.
///
/// # Errors
/// When to ask again.
pub(super) async fn accept(
    listener: &TcpListener,
    earliest: Option<Instant>,
) -> Result<TcpStream, Instant> {
    if let Some(earliest) = earliest {
        tokio::time::sleep_until(earliest).await;
    }
    match listener.accept().await {
        Ok((stream, _)) => Ok(stream),
        Err(_none_left) => Err(Instant::now() + ACCEPT_PAUSE),
    }
}

/// A UDP socket of the control plane.
pub(super) type Udp = tokio::net::UdpSocket;

/// Where this machine is in the mesh: its addresses and the device that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MeshSide {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Ipv6Addr,
    pub(super) device: String,
}

impl MeshSide {
    /// The own addresses.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain([IpAddr::V6(self.v6)]).collect()
    }

    /// The own address from which to speak to a target on this host: of its family, so that a program behind a splice sees
    /// this machine and never 127.0.0.1. Other hosts would not know the way back to it, so they are left to the kernel.
    pub(super) fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        if !target.is_loopback() && !is_here(target) {
            return None;
        }
        match target {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => Some(IpAddr::V6(self.v6)),
        }
    }

    /// Listens for TCP on an own address.
    pub(super) fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.bound(address, Type::STREAM, Protocol::TCP)?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    }

    /// Receives UDP on an own address.
    pub(super) fn listen_udp(&self, address: SocketAddr) -> io::Result<Udp> {
        Udp::from_std(self.bound(address, Type::DGRAM, Protocol::UDP)?.into())
    }

    /// A TCP connection to a target; to one on this host from the own mesh address.
    pub(super) async fn connect_tcp(&self, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = match target {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        if let Some(source) = self.source_for(target.ip()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(target).await
    }

    /// A UDP socket connected to a target; to one on this host from the own mesh address.
    pub(super) fn connect_udp(&self, target: SocketAddr) -> io::Result<Udp> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_nonblocking(true)?;
        if let Some(source) = self.source_for(target.ip()) {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&target.into())?;
        Udp::from_std(socket.into())
    }

    fn bound(&self, address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(kind == Type::STREAM)?;
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
            }
        }
        socket.bind_device(Some(self.device.as_bytes()))?;
        socket.bind(&address.into())?;
        Ok(socket)
    }
}

/// Whether this host has the address: the kernel binds to no other.
fn is_here(address: IpAddr) -> bool {
    std::net::UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_here_is_spoken_to_from_the_mesh_and_one_elsewhere_is_not() {
        let side = MeshSide {
            v4: Some(Ipv4Addr::new(100, 71, 3, 4)),
            v6: Ipv6Addr::LOCALHOST,
            device: "wm0".into(),
        };
        let own = side.v4.map(IpAddr::V4);
        assert_eq!(side.source_for([127, 0, 0, 1].into()), own);
        assert_eq!(side.source_for([192, 0, 2, 7].into()), None);
    }
}
