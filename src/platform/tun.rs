//! The TUN device: made, taken over, configured, read and written. It goes with the last descriptor of it, and its
//! addresses and routes with it: with the process, unless a service manager keeps a copy.
#![expect(unsafe_code, reason = "an ioctl asks which device a descriptor is")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};

use super::{link::Links, netlink::Netlink};

/// What the device is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its MTU, [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu: u16,
    /// The own IPv4 address and the pool that is routed here; none: IPv6 only.
    pub v4: Option<(Ipv4Addr, Ipv4Net)>,
    /// The own IPv6 address and the prefix that is routed here.
    pub v6: (Ipv6Addr, Ipv6Net),
}

/// Packets in the device's own queue. Short: what waits there is latency that nobody sees (design §6).
const QUEUE: u32 = 128;

/// The least MTU: what IPv6 is owed (RFC 8200 §5).
pub const MTU_MIN: u16 = 1280;

/// The greatest MTU: with what WireGuard adds, a packet fits into a buffer for datagrams.
pub const MTU_MAX: u16 = 1984;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum OpenTunError {
    /// No /dev/net/tun.
    #[error("/dev/net/tun is missing; load the tun module (modprobe tun)")]
    Missing,
    /// Not allowed.
    #[error("no right to make a TUN device; run as root or give CAP_NET_ADMIN")]
    Forbidden,
    /// Another process has one of this name.
    #[error("interface {0} is held by another process; stop it or set tun.name")]
    Busy(String),
    /// An MTU that is not carried.
    #[error(
        "a TUN device with MTU {0} is not carried; set tun.mtu between {MTU_MIN} and {MTU_MAX}"
    )]
    Mtu(u16),
    /// The device is there, and could not be configured.
    #[error("cannot configure interface {name}")]
    Configure {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A route of this host has the same destination.
    #[error("cannot route {net} to interface {name}")]
    Route {
        /// Its name.
        name: String,
        /// The destination.
        net: IpNet,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A TUN device of ours: non-blocking, one packet per read and write, no header before it.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    mtu: u16,
}

/// Whether a device of this name could be had now. It is made and gone at once.
///
/// # Errors
/// [`Tun::open`] would fail in the same way.
pub fn try_out(name: &str) -> Result<(), OpenTunError> {
    let device = blank(name).enable(false).build_sync();
    device.map(drop).map_err(|source| refusal(name, source))
}

/// What all our devices have in common.
fn blank(name: &str) -> tun_rs::DeviceBuilder {
    tun_rs::DeviceBuilder::new().name(name).with(|guard| {
        guard.offload(false).multi_queue(false);
    })
}

impl Tun {
    /// Makes the device, gives it its addresses, and routes the network to it.
    ///
    /// # Errors
    /// Nothing is left behind then.
    pub fn open(shape: &Shape) -> Result<Self, OpenTunError> {
        let device = blank(&shape.name).build_sync();
        let device = device.map_err(|source| refusal(&shape.name, source))?;
        let fd = device.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| refusal(&shape.name, source))?;
        Spare(fd).shape(shape)
    }

    /// The device's MTU.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The device's name, as the kernel has it.
    pub fn name(&self) -> io::Result<String> {
        interface(&self.fd).map(|(name, _)| name)
    }

    /// Reads one packet; None when there is none. Never waits.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(&self.fd, buffer) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one packet. Never waits.
    ///
    /// # Errors
    /// The packet is lost.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.fd, packet)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A device that is there, and still to be shaped: a new one, or one that an earlier process made.
#[derive(Debug)]
pub struct Spare(OwnedFd);

impl Spare {
    /// Takes a device that an earlier process made, if it has this name and is of the kind that is made here. Whether
    /// packets have protocol information before them cannot be asked: that the same version made it must be known.
    ///
    /// # Errors
    /// It is another; the descriptor comes back.
    pub fn adopt(fd: OwnedFd, name: &str) -> Result<Self, OwnedFd> {
        let kinds = libc::IFF_TUN
            | libc::IFF_TAP
            | libc::IFF_MULTI_QUEUE
            | libc::IFF_VNET_HDR
            | libc::IFF_PERSIST;
        match interface(&fd) {
            Ok((is, flags)) if is == name && flags & kinds == libc::IFF_TUN => Ok(Self(fd)),
            Ok(_) | Err(_) => Err(fd),
        }
    }

    /// The device's number in this namespace.
    ///
    /// # Errors
    /// It is in another, or gone.
    pub fn index(&self) -> io::Result<u32> {
        Links::open()?.index(&interface(&self.0)?.0)
    }

    /// Gives it its addresses and takes others away, and routes the network to it. What it has already stays as it is:
    /// connections of programs go on.
    ///
    /// # Errors
    /// The device is closed.
    pub fn shape(self, shape: &Shape) -> Result<Tun, OpenTunError> {
        if !(MTU_MIN..=MTU_MAX).contains(&shape.mtu) {
            return Err(OpenTunError::Mtu(shape.mtu));
        }
        let configure = |source| OpenTunError::Configure {
            name: shape.name.clone(),
            source,
        };
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|error| configure(error.into()))?;
        let mut links = Links::open().map_err(configure)?;
        let index = address(&mut links, shape).map_err(configure)?;
        route(&mut links, shape, index)?;
        Ok(Tun {
            fd: self.0,
            mtu: shape.mtu,
        })
    }
}

/// Takes a device away whoever has it open, and closes the descriptor. Where it is no device it is only closed.
pub fn destroy(fd: OwnedFd) {
    if let Ok((name, _)) = interface(&fd) {
        remove(&name);
    }
}

/// Takes a device away whoever has it open; it may be gone already.
pub fn remove(name: &str) {
    let removed = Links::open().and_then(|mut links| links.remove(name));
    if let Err(error) = removed {
        tracing::debug!(name, %error, "Device was not removed");
    }
}

/// MTU, queue and addresses. Netlink asks for rights over the namespace, where the old ioctls ask for those over the
/// whole machine.
fn address(links: &mut Links, shape: &Shape) -> io::Result<u32> {
    let name = shape.name.as_str();
    links.set_mtu(name, u32::from(shape.mtu))?;
    links.set_queue(name, QUEUE)?;
    links.up(name)?;
    let index = links.index(name)?;
    let wanted: Vec<IpNet> = shape
        .v4
        .map(|(own, _)| IpNet::from(IpAddr::V4(own)))
        .into_iter()
        .chain([IpNet::from(IpAddr::V6(shape.v6.0))])
        .collect();
    let had: Vec<IpNet> = links
        .addresses()?
        .into_iter()
        .filter(|address| address.link == index && !is_link_local(address.net))
        .map(|address| address.net)
        .collect();
    for net in had.iter().filter(|net| !wanted.contains(net)) {
        links.remove_address(name, *net)?;
    }
    for net in wanted.iter().filter(|net| !had.contains(net)) {
        links.add_address(name, *net)?;
    }
    Ok(index)
}

/// The kernel gives every device one of these.
fn is_link_local(net: IpNet) -> bool {
    match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}

fn route(links: &mut Links, shape: &Shape, index: u32) -> Result<(), OpenTunError> {
    let had = links.routes().map_err(|source| OpenTunError::Configure {
        name: shape.name.clone(),
        source,
    })?;
    let v4 = shape.v4.map(|(own, net)| {
        (
            IpNet::V4(net),
            RouteAddress::Inet(net.network()),
            RouteAddress::Inet(own),
        )
    });
    let v6 = (
        IpNet::V6(shape.v6.1),
        RouteAddress::Inet6(shape.v6.1.network()),
        RouteAddress::Inet6(shape.v6.0),
    );
    for (net, to, own) in v4.into_iter().chain([v6]) {
        let is_there = had
            .iter()
            .any(|route| route.link == Some(index) && route.to == net.trunc());
        let flags = if is_there { NLM_F_REPLACE } else { NLM_F_EXCL };
        add_route(index, net, (to, own), flags).map_err(|source| OpenTunError::Route {
            name: shape.name.clone(),
            net,
            source,
        })?;
    }
    Ok(())
}

fn add_route(
    index: u32,
    net: IpNet,
    (to, own): (RouteAddress, RouteAddress),
    flags: u16,
) -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = net.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = match net {
        IpNet::V4(_) => RouteScope::Link,
        IpNet::V6(_) => RouteScope::Universe,
    };
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(to),
        RouteAttribute::Oif(index),
        RouteAttribute::PrefSource(own),
    ];
    Netlink::open(NETLINK_ROUTE)?
        .request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | flags)
}

/// The name and the flags of the device behind a descriptor.
fn interface(fd: &OwnedFd) -> io::Result<(String, libc::c_int)> {
    // SAFETY: all zero bytes are a valid ifreq: it is integers and bytes throughout, and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and TUNGETIFF writes one ifreq into what outlives the call; a descriptor that is
    // no TUN device's refuses the number.
    unsafe { tun_get_interface(fd.as_raw_fd(), &raw mut request) }?;
    // SAFETY: TUNGETIFF filled in the flags; every bit pattern is a c_short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let name = request
        .ifr_name
        .iter()
        .map(|letter| letter.cast_unsigned())
        .take_while(|letter| *letter != 0)
        .collect();
    let name = String::from_utf8(name)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((name, libc::c_int::from(flags)))
}

nix::ioctl_read_bad!(
    /// TUNGETIFF.
    tun_get_interface,
    nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()),
    libc::ifreq
);

fn refusal(name: &str, source: io::Error) -> OpenTunError {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return OpenTunError::Missing;
    }
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenTunError::Forbidden,
        Some(libc::EBUSY) => OpenTunError::Busy(name.to_owned()),
        _ => OpenTunError::Configure {
            name: name.to_owned(),
            source,
        },
    }
}
