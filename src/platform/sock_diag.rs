//! Who listens on a port of this host, by sock_diag: the same that `ss -l` shows.
//!
//! Knows sockets of the network namespace it is called in. Refuses to know firewalls: a listener may still be cut off.

use std::{io, net::IpAddr};

use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink::Netlink;

/// Which kind of port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A TCP port; listening sockets count.
    Tcp(u16),
    /// A UDP port; bound sockets that are connected to nobody count.
    Udp(u16),
}

/// Who listens on a port, seen from the addresses that were asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// No socket.
    Nobody,
    /// Only sockets that this host alone can reach; one of their addresses.
    LoopbackOnly(IpAddr),
    /// Only sockets on other addresses of this host; one of them.
    Elsewhere(IpAddr),
    /// A socket on one of the addresses asked about, or on all.
    Here,
}

/// Who listens on `port` of the addresses `own`.
///
/// A socket on `[::]` counts for IPv4 too, which is what Linux does unless the program asked otherwise.
pub fn listening(port: Port, own: &[IpAddr]) -> io::Result<Listening> {
    let mut found = Listening::Nobody;
    for address in listeners(port)? {
        found = nearer(found, judge(address, own));
    }
    Ok(found)
}

fn judge(address: IpAddr, own: &[IpAddr]) -> Listening {
    if address.is_unspecified() || own.contains(&address) {
        Listening::Here
    } else if address.is_loopback() {
        Listening::LoopbackOnly(address)
    } else {
        Listening::Elsewhere(address)
    }
}

/// The more reachable of two; the first where they are alike.
fn nearer(first: Listening, second: Listening) -> Listening {
    let rank = |listening: &Listening| match listening {
        Listening::Nobody => 0,
        Listening::LoopbackOnly(_) => 1,
        Listening::Elsewhere(_) => 2,
        Listening::Here => 3,
    };
    if rank(&second) > rank(&first) {
        second
    } else {
        first
    }
}

fn listeners(port: Port) -> io::Result<Vec<IpAddr>> {
    let (protocol, states, number) = match port {
        Port::Tcp(number) => (IPPROTO_TCP, StateFlags::LISTEN, number),
        Port::Udp(number) => (IPPROTO_UDP, StateFlags::all(), number),
    };
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG)?;
    let mut addresses = Vec::new();
    for (family, socket_id) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let found = netlink.dump(SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id,
        }))?;
        addresses.extend(found.iter().filter_map(|message| waits_on(message, number)));
    }
    Ok(addresses)
}

fn waits_on(message: &SockDiagMessage, port: u16) -> Option<IpAddr> {
    let SockDiagMessage::InetResponse(response) = message else {
        return None;
    };
    let id = &response.header.socket_id;
    (id.source_port == port && id.destination_port == 0).then(|| id.source_address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_loopback_listener_is_told_from_one_for_everybody() {
        let own = ["192.0.2.1".parse().unwrap()];
        let inner = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = inner.local_addr().unwrap().port();
        assert_eq!(
            listening(Port::Tcp(port), &own).unwrap(),
            Listening::LoopbackOnly("127.0.0.1".parse().unwrap())
        );
        drop(inner);
        assert_eq!(listening(Port::Tcp(port), &own).unwrap(), Listening::Nobody);

        let outer = TcpListener::bind("[::]:0").unwrap();
        let port = outer.local_addr().unwrap().port();
        assert_eq!(listening(Port::Tcp(port), &own).unwrap(), Listening::Here);
    }

    #[test]
    #[expect(clippy::disallowed_types, reason = "a plain socket to be found")]
    fn a_bound_udp_socket_is_found_and_a_tcp_listener_is_not_mistaken_for_it() {
        let own = ["127.0.0.1".parse().unwrap()];
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = bound.local_addr().unwrap().port();
        assert_eq!(listening(Port::Udp(port), &own).unwrap(), Listening::Here);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening(Port::Udp(port), &own).unwrap(), Listening::Nobody);
    }

    #[test]
    fn a_listener_on_another_own_address_is_nearer_than_one_on_the_loopback() {
        let loopback = Listening::LoopbackOnly("::1".parse().unwrap());
        let elsewhere = Listening::Elsewhere("10.0.0.1".parse().unwrap());
        assert_eq!(nearer(loopback, elsewhere), elsewhere);
        assert_eq!(nearer(elsewhere, loopback), elsewhere);
        assert_eq!(nearer(elsewhere, Listening::Here), Listening::Here);
    }
}
