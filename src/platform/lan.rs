//! The LANs this machine is in, and multicast there: a socket of its own to hear with, and the agent's main sockets to
//! speak with (protocol §2).
//!
//! Knows groups, interfaces and sources. Refuses to know what is said.
#![expect(
    unsafe_code,
    reason = "tokio registers a descriptor on our word that it stays the same"
)]

use std::{
    collections::BTreeSet,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use ipnet::IpNet;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::{link::Links, udp};

/// Where Beacons and Joins are heard: both groups at this port.
pub const PORT: u16 = 41_821;

/// The group of IPv4.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 255, 163, 92);

/// The group of IPv6; on each link a group of its own.
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xa35c);

/// Interfaces looked at; a host of containers has hundreds that are nobody's LAN.
const PLACES_MAX: usize = 16;

/// A sealed datagram has at most 1,200 bytes.
const DATAGRAM_MAX: usize = 1280;

/// One LAN this machine is in: an interface that is no tunnel and no loopback, and has addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The interface's number.
    pub link: u32,
    /// Its addresses with their prefixes, none of them link-local.
    pub nets: Vec<IpNet>,
}

impl Place {
    /// Whether an address is a neighbour's here.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&address))
    }

    fn v4(&self) -> Option<Ipv4Addr> {
        self.nets.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        })
    }

    fn v6(&self) -> Option<Ipv6Addr> {
        self.nets.iter().find_map(|net| match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(net.addr()),
        })
    }
}

/// The LANs this machine is in, without the device `tun` and all other tunnels.
///
/// Link-local addresses do not count: without the number of the interface, which means nothing to another machine, nobody
/// can dial them. A LAN where this machine has no other address is none.
pub fn places(tun: Option<&str>) -> io::Result<Vec<Place>> {
    let mut links = Links::open()?;
    let all = links.list()?;
    let addresses = links.addresses()?;
    let lans = all
        .into_iter()
        .filter(|link| link.is_lan && Some(link.name.as_str()) != tun);
    let places = lans.map(|link| Place {
        link: link.index,
        nets: addresses
            .iter()
            .filter(|address| address.link == link.index && address.usable)
            .map(|address| address.net)
            .filter(|net| !is_link_local(net.addr()))
            .collect(),
    });
    Ok(places
        .filter(|place| !place.nets.is_empty())
        .take(PLACES_MAX)
        .collect())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Speaks to a LAN, from the agent's main sockets.
#[derive(Debug)]
pub struct Mouth {
    udp4: OwnedFd,
    udp6: Option<OwnedFd>,
}

impl Mouth {
    /// Speaks from these sockets, which stay where they are.
    pub fn of(pair: &udp::Pair) -> io::Result<Self> {
        let udp4 = pair.udp4.as_fd().try_clone_to_owned()?;
        SockRef::from(&udp4).set_multicast_ttl_v4(1)?;
        let udp6 = pair.udp6.as_ref().map(|udp6| udp6.as_fd());
        let udp6 = udp6.map(|udp6| udp6.try_clone_to_owned()).transpose()?;
        if let Some(udp6) = &udp6 {
            SockRef::from(udp6).set_multicast_hops_v6(1)?;
        }
        Ok(Self { udp4, udp6 })
    }

    /// Sends a datagram to both groups of each LAN, always from an address that others can dial. Tells how many the kernel
    /// took. Never waits.
    pub fn say(&self, places: &[Place], datagram: &[u8]) -> usize {
        let mut taken = 0;
        for place in places {
            if let Some(source) = place.v4() {
                taken += usize::from(self.say4(place.link, source, datagram).is_ok());
            }
            if let (Some(udp6), Some(source)) = (&self.udp6, place.v6()) {
                taken += usize::from(say6(udp6, place.link, source, datagram).is_ok());
            }
        }
        taken
    }

    fn say4(&self, link: u32, source: Ipv4Addr, datagram: &[u8]) -> nix::Result<usize> {
        let from = libc::in_pktinfo {
            ipi_ifindex: index(link),
            ipi_spec_dst: libc::in_addr {
                s_addr: source.to_bits().to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(GROUP4, PORT));
        sendmsg(
            self.udp4.as_raw_fd(),
            &[IoSlice::new(datagram)],
            &[ControlMessage::Ipv4PacketInfo(&from)],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )
    }
}

/// The kernel would take the link-local address as source of what goes to a group of the link; nobody could dial that.
fn say6(udp6: &OwnedFd, link: u32, source: Ipv6Addr, datagram: &[u8]) -> nix::Result<usize> {
    let from = libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: source.octets(),
        },
        ipi6_ifindex: link,
    };
    let to = SockaddrIn6::from(SocketAddrV6::new(GROUP6, PORT, 0, link));
    sendmsg(
        udp6.as_raw_fd(),
        &[IoSlice::new(datagram)],
        &[ControlMessage::Ipv6PacketInfo(&from)],
        MsgFlags::MSG_DONTWAIT,
        Some(&to),
    )
}

fn index(link: u32) -> libc::c_int {
    libc::c_int::try_from(link).unwrap_or(0)
}

/// Hears one group on the LANs it was told of. Several agents of one host hear the same.
#[derive(Debug)]
pub struct Ear {
    socket: AsyncFd<Listening>,
    is_v4: bool,
    joined: BTreeSet<u32>,
}

/// A datagram that came to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overheard {
    /// From where.
    pub source: SocketAddr,
    /// On which interface.
    pub link: u32,
    /// What.
    pub bytes: Vec<u8>,
}

impl Ear {
    /// Hears nothing yet.
    ///
    /// # Errors
    /// The host has not this family, or another program keeps the port to itself.
    ///
    /// # Panics
    /// Outside a tokio runtime with its IO driver.
    pub fn v4() -> io::Result<Self> {
        let ear = Self::open(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT).into())?;
        setsockopt(ear.socket.get_ref(), sockopt::Ipv4PacketInfo, &true)?;
        Ok(ear)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// As [`Ear::v4`].
    ///
    /// # Panics
    /// As [`Ear::v4`].
    pub fn v6() -> io::Result<Self> {
        let ear = Self::open(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0).into())?;
        setsockopt(ear.socket.get_ref(), sockopt::Ipv6RecvPacketInfo, &true)?;
        Ok(ear)
    }

    fn open(at: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(at),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(at))?;
        // SAFETY: `Listening` owns its socket, gives the same descriptor as long as it lives, and is not changed inside the
        // `AsyncFd`.
        let registered = unsafe { AsyncFd::register(Listening(socket.into())) };
        Ok(Self {
            socket: registered.map_err(io::Error::from)?,
            is_v4: at.is_ipv4(),
            joined: BTreeSet::new(),
        })
    }

    /// Hears on these LANs from now on, and on no other.
    pub fn follow(&mut self, places: &[Place]) {
        let wanted: BTreeSet<u32> = places.iter().map(|place| place.link).collect();
        for gone in self.joined.difference(&wanted) {
            // The interface itself may be gone, and the membership with it.
            let _gone_already = self.leave(*gone);
        }
        let joined = wanted.into_iter().filter(|link| self.join(*link).is_ok());
        self.joined = joined.collect();
    }

    /// Being in the group already is what was wanted.
    fn join(&self, link: u32) -> io::Result<()> {
        let socket = SockRef::from(self.socket.get_ref());
        let joined = if self.is_v4 {
            socket.join_multicast_v4_n(&GROUP4, &InterfaceIndexOrAddress::Index(link))
        } else {
            socket.join_multicast_v6(&GROUP6, link)
        };
        match joined {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            done => done,
        }
    }

    fn leave(&self, link: u32) -> io::Result<()> {
        let socket = SockRef::from(self.socket.get_ref());
        if self.is_v4 {
            socket.leave_multicast_v4_n(&GROUP4, &InterfaceIndexOrAddress::Index(link))
        } else {
            socket.leave_multicast_v6(&GROUP6, link)
        }
    }

    /// Waits for the next datagram to the group; what came to this host alone, or by another interface, is thrown away. May be
    /// dropped and called again without losing anything.
    pub async fn hear(&mut self) -> io::Result<Overheard> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|listening| listening.get_ref().receive()) {
                Ok(Ok(Some(heard))) if self.joined.contains(&heard.link) => return Ok(heard),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

#[derive(Debug)]
struct Listening(OwnedFd);

impl Listening {
    fn receive(&self) -> io::Result<Option<Overheard>> {
        let mut bytes = [0; DATAGRAM_MAX];
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<SockaddrStorage>(
            self.0.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let arrived = received.cmsgs()?.find_map(|message| {
            if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
                let to = Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr));
                let link = u32::try_from(info.ipi_ifindex).ok()?;
                return (to == GROUP4).then_some(link);
            }
            let ControlMessageOwned::Ipv6PacketInfo(info) = message else {
                return None;
            };
            let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            (to == GROUP6).then_some(info.ipi6_ifindex)
        });
        let length = received.bytes;
        let source = received.address.and_then(plain);
        let heard = source.zip(arrived);
        Ok(heard.map(|(source, link)| Overheard {
            source,
            link,
            bytes: bytes[..length].to_vec(),
        }))
    }
}

fn plain(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddrV4::new(v4.ip(), v4.port()).into());
    let v6 = || {
        let v6 = address.as_sockaddr_in6()?;
        Some(SocketAddrV6::new(v6.ip(), v6.port(), 0, 0).into())
    };
    v4.or_else(v6)
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
