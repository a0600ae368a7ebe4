//! The TUN device: made, configured, read and written. It goes with the process, and its addresses and routes with it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;

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
pub struct Tun {
    device: tun_rs::SyncDevice,
    mtu: u16,
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun")
            .field("fd", &self.device.as_raw_fd())
            .field("mtu", &self.mtu)
            .finish()
    }
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
        if !(MTU_MIN..=MTU_MAX).contains(&shape.mtu) {
            return Err(OpenTunError::Mtu(shape.mtu));
        }
        let mut builder = blank(&shape.name).mtu(shape.mtu);
        if let Some((v4, _)) = shape.v4 {
            builder = builder.ipv4(v4, 32, None);
        }
        let device = builder
            .build_sync()
            .map_err(|source| refusal(&shape.name, source))?;
        let configure = |source| OpenTunError::Configure {
            name: shape.name.clone(),
            source,
        };
        device.set_nonblocking(true).map_err(configure)?;
        let index = device.if_index().map_err(configure)?;
        // Not by the builder: it leaves the address to duplicate detection, and while that lasts no route may prefer it.
        let own = IpNet::from(IpAddr::V6(shape.v6.0));
        let mut links = Links::open().map_err(configure)?;
        links.add_address(&shape.name, own).map_err(configure)?;
        // Not by the builder either: its ioctl asks for rights over the whole machine, netlink for those over the
        // namespace.
        links.set_queue(&shape.name, QUEUE).map_err(configure)?;
        let tun = Self {
            device,
            mtu: shape.mtu,
        };
        tun.route(shape, index)?;
        Ok(tun)
    }

    /// The device's MTU.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The device's name, as the kernel has it.
    pub fn name(&self) -> io::Result<String> {
        self.device.name()
    }

    /// Reads one packet; None when there is none. Never waits.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.device.recv(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if is_moment(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one packet. Never waits.
    ///
    /// # Errors
    /// The packet is lost.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.device.send(packet).map(|_| ())
    }

    fn route(&self, shape: &Shape, index: u32) -> Result<(), OpenTunError> {
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
            add_route(index, net, to, own).map_err(|source| OpenTunError::Route {
                name: shape.name.clone(),
                net,
                source,
            })?;
        }
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn add_route(index: u32, net: IpNet, to: RouteAddress, own: RouteAddress) -> io::Result<()> {
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
    Netlink::open(NETLINK_ROUTE)?.request(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn is_moment(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

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
