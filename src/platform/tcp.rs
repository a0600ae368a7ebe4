//! TCP of the underlay: the listeners of TLS streams, on the agent's own port or handed over by the service manager.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens at an address of this host. Not at all of them at once: those of the mesh are among them.
///
/// # Errors
/// The port is taken by another program, the address is gone, or the kernel refuses.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes a listener that the service manager opened.
///
/// # Errors
/// It is something else than a socket that listens for TCP.
pub fn handed(fd: OwnedFd) -> io::Result<std::net::TcpListener> {
    let socket = Socket::from(fd);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_is_taken_and_nothing_else() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        let taken = handed(listener.into()).unwrap();
        assert_eq!(taken.local_addr().unwrap(), at);
        let client = std::net::TcpStream::connect(at).unwrap();
        handed(client.into()).unwrap_err();
        let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        handed(datagrams.into()).unwrap_err();
        handed(std::fs::File::open("/dev/null").unwrap().into()).unwrap_err();
    }
}
