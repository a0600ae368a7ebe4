//! The TUN device: made, taken over, configured, read and written. It goes with the last descriptor of it, and its
//! addresses and routes with it: with the process, unless a service manager keeps a copy.
#![expect(
    unsafe_code,
    reason = "ioctls ask which device a descriptor is, and say what its packets look like"
)]

use std::{
    io::{self, IoSlice, IoSliceMut},
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

use super::{
    link::{Link, Links},
    netlink::Netlink,
    udp::{TRAIN, TRAIN_BYTES},
};

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
    /// Whether programs' packets may come longer than the MTU, to be cut here.
    pub long_packets: bool,
    /// How many threads read it.
    pub queues: Queues,
}

/// How many threads may read a device at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queues {
    /// One.
    #[default]
    One,
    /// Several, each with a queue of its own ([`Tun::queue`]).
    Many,
}

/// Bytes before each packet, by which the kernel says what is left to be done to it, little-endian.
pub const HEAD: usize = 10;

/// The longest packet that is read.
pub const PACKET_MAX: usize = 65_535;

/// What is left to be done to packets that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongPackets {
    /// Nothing, as was asked.
    Off,
    /// Nothing: the kernel does not know how to.
    Refused,
    /// TCP is to be cut, and checksums are to be finished.
    Tcp,
    /// The same, and equal UDP datagrams.
    TcpAndUdp,
}

/// What WireGuard adds to a packet.
const OVERHEAD: usize = 32;

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
    /// A device of this name is there, and none of ours.
    #[error("interface {0} is there already and not Webmesh's; set tun.name to another name")]
    Foreign(String),
    /// An MTU that is not carried.
    #[error(
        "a TUN device with MTU {0} is not carried; set tun.mtu between {MTU_MIN} and {MTU_MAX}"
    )]
    Mtu(u16),
    /// The device of an earlier run is read by one thread, and is to be read by several, or the other way round.
    #[error("interface {0} was made for another number of threads")]
    Queues(String),
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

/// A TUN device of ours: non-blocking, one packet per read and write, [`HEAD`] bytes before it.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    mtu: u16,
    long_packets: LongPackets,
}

/// Whether a device of this name could be had now. It is made and gone at once.
///
/// # Errors
/// [`Tun::open`] would fail in the same way.
pub fn try_out(name: &str) -> Result<(), OpenTunError> {
    make(name, Queues::One).map(drop)
}

/// Whether what is called so, if anything is, may be a device of ours: a TUN device.
///
/// # Errors
/// It is none. What cannot be asked is left to be found when the device is made.
pub fn must_be_ours(name: &str) -> Result<(), OpenTunError> {
    let links = Links::open().and_then(|mut links| links.list());
    let is_foreign = |link: &Link| link.name == name && !link.is_tun();
    match links.unwrap_or_default().iter().any(is_foreign) {
        true => Err(OpenTunError::Foreign(name.to_owned())),
        false => Ok(()),
    }
}

/// Ours are never persistent: who opens one that is has come into somebody else's, which has addresses and a purpose.
fn must_go_with_us(name: &str, device: BorrowedFd<'_>) -> Result<(), OpenTunError> {
    match interface(device) {
        Ok((_, flags)) if flags & libc::IFF_PERSIST != 0 => {
            Err(OpenTunError::Foreign(name.to_owned()))
        }
        Ok(_) => Ok(()),
        Err(source) => Err(refusal(name, source)),
    }
}

/// Makes a device with what all of ours have in common; it is not up yet.
fn make(name: &str, queues: Queues) -> Result<tun_rs::SyncDevice, OpenTunError> {
    must_be_ours(name)?;
    let are_many = queues == Queues::Many;
    let blank = tun_rs::DeviceBuilder::new().name(name).with(|guard| {
        guard.offload(true).multi_queue(are_many);
    });
    let device = blank.enable(false).build_sync();
    let device = device.map_err(|source| refusal(name, source))?;
    must_go_with_us(name, device.as_fd())?;
    Ok(device)
}

impl Tun {
    /// Makes the device, gives it its addresses, and routes the network to it.
    ///
    /// # Errors
    /// Nothing is left behind then.
    pub fn open(shape: &Shape) -> Result<Self, OpenTunError> {
        let device = make(&shape.name, shape.queues)?;
        let fd = device.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| refusal(&shape.name, source))?;
        Spare(fd).shape(shape)
    }

    /// One more queue of the device, for another thread. The kernel puts a flow where the last packet the other way was
    /// written, and a new one where its hash says.
    ///
    /// # Errors
    /// The device has one queue only, or the kernel gives no more.
    pub fn queue(&self) -> io::Result<Self> {
        let (name, flags) = interface(self.fd.as_fd())?;
        if flags & libc::IFF_MULTI_QUEUE == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut both_ways = std::fs::File::options();
        both_ways.read(true).write(true);
        let fd = OwnedFd::from(both_ways.open("/dev/net/tun")?);
        join(&fd, &name)?;
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { fd, ..*self })
    }

    /// The device's MTU.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The device's name, as the kernel has it.
    pub fn name(&self) -> io::Result<String> {
        interface(self.fd.as_fd()).map(|(name, _)| name)
    }

    /// What is left to be done to packets that are read.
    pub fn long_packets(&self) -> LongPackets {
        self.long_packets
    }

    /// Reads one packet, and what is left to be done to it; None when there is none. Never waits.
    pub fn read(&self, head: &mut [u8; HEAD], packet: &mut [u8]) -> io::Result<Option<usize>> {
        let parts = &mut [IoSliceMut::new(head), IoSliceMut::new(packet)];
        match nix::sys::uio::readv(&self.fd, parts) {
            Ok(len) => Ok(Some(len.saturating_sub(HEAD))),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one packet: what is left to be done to it, and its parts. Never waits.
    ///
    /// # Errors
    /// The packet is lost.
    pub fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        nix::sys::uio::writev(&self.fd, parts)?;
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
    /// Takes a device that an earlier process made, if it has this name and is of the kind that is made here. What packets
    /// have before them cannot be asked in full: that the same version made it must be known.
    ///
    /// # Errors
    /// It is another; the descriptor comes back.
    pub fn adopt(fd: OwnedFd, name: &str) -> Result<Self, OwnedFd> {
        let kind = libc::IFF_TUN | libc::IFF_VNET_HDR;
        let kinds = kind | libc::IFF_TAP | libc::IFF_PERSIST;
        match interface(fd.as_fd()) {
            Ok((is, flags)) if is == name && flags & kinds == kind => Ok(Self(fd)),
            Ok(_) | Err(_) => Err(fd),
        }
    }

    /// The device's number in this namespace.
    ///
    /// # Errors
    /// It is in another, or gone.
    pub fn index(&self) -> io::Result<u32> {
        Links::open()?.index(&interface(self.0.as_fd())?.0)
    }

    fn queues(&self) -> io::Result<Queues> {
        let (_, flags) = interface(self.0.as_fd())?;
        Ok(match flags & libc::IFF_MULTI_QUEUE {
            0 => Queues::One,
            _ => Queues::Many,
        })
    }

    /// Takes away the addresses that it is not to have, with their routes.
    ///
    /// # Errors
    /// Some of them may still be there.
    pub fn withdraw(&self, shape: &Shape) -> io::Result<()> {
        withdraw(&mut Links::open()?, self.index()?, shape)
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
        if self.queues().map_err(configure)? != shape.queues {
            return Err(OpenTunError::Queues(shape.name.clone()));
        }
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|error| configure(error.into()))?;
        // Before it is up: no packet comes in another form.
        let long_packets = take_long_packets(&self.0, shape.long_packets).map_err(configure)?;
        let mut links = Links::open().map_err(configure)?;
        let index = address(&mut links, shape).map_err(configure)?;
        route(&mut links, shape, index)?;
        Ok(Tun {
            fd: self.0,
            mtu: shape.mtu,
            long_packets,
        })
    }
}

/// Takes a device away whoever has it open, and closes the descriptor. Where it is no device it is only closed.
pub fn destroy(fd: OwnedFd) {
    if let Ok((name, _)) = interface(fd.as_fd()) {
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
    // A long packet is best cut into as many as go out as one train on the underlay.
    let most = TRAIN.min(TRAIN_BYTES / (usize::from(shape.mtu) + OVERHEAD));
    // A kernel that does not know this only makes more segments of some packets.
    let _unknown = links.set_segments(name, u32::try_from(most).unwrap_or(1));
    links.up(name)?;
    let index = links.index(name)?;
    withdraw(links, index, shape)?;
    let had = addresses_of(links, index)?;
    for net in wanted(shape).iter().filter(|net| !had.contains(net)) {
        links.add_address(name, *net)?;
    }
    Ok(index)
}

fn withdraw(links: &mut Links, index: u32, shape: &Shape) -> io::Result<()> {
    let wanted = wanted(shape);
    let had = addresses_of(links, index)?;
    for net in had.iter().filter(|net| !wanted.contains(net)) {
        links.remove_address(&shape.name, *net)?;
    }
    Ok(())
}

fn wanted(shape: &Shape) -> Vec<IpNet> {
    let v4 = shape.v4.map(|(own, _)| IpNet::from(IpAddr::V4(own)));
    let v6 = IpNet::from(IpAddr::V6(shape.v6.0));
    v4.into_iter().chain([v6]).collect()
}

fn addresses_of(links: &mut Links, index: u32) -> io::Result<Vec<IpNet>> {
    let all = links.addresses()?.into_iter();
    let own = all.filter(|address| address.link == index && !is_link_local(address.net));
    Ok(own.map(|address| address.net).collect())
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
fn interface(fd: BorrowedFd<'_>) -> io::Result<(String, libc::c_int)> {
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
        .flat_map(|letter| letter.to_be_bytes())
        .take_while(|letter| *letter != 0)
        .collect();
    let name = String::from_utf8(name)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((name, libc::c_int::from(flags)))
}

/// Makes a descriptor one more queue of a device.
fn join(fd: &OwnedFd, name: &str) -> io::Result<()> {
    // SAFETY: all zero bytes are a valid ifreq: it is integers and bytes throughout, and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let kind = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(kind).unwrap_or(0);
    // The last letter stays 0.
    let letters = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    for (letter, byte) in letters.zip(name.bytes()) {
        *letter = libc::c_char::from_be_bytes([byte]);
    }
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq that outlives the call.
    unsafe { tun_set_interface(fd.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Has the kernel leave as much to us as is wanted and it can; everything it says is little-endian from then on.
fn take_long_packets(fd: &OwnedFd, wanted: bool) -> io::Result<LongPackets> {
    let little_endian: libc::c_int = 1;
    // SAFETY: the descriptor is open, and TUNSETVNETLE reads one c_int that outlives the call.
    unsafe { tun_set_little_endian(fd.as_raw_fd(), &raw const little_endian) }?;
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let ask = |what: libc::c_uint| {
        // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes a number.
        unsafe { tun_set_offload(fd.as_raw_fd(), libc::c_int::try_from(what).unwrap_or(0)) }
    };
    if wanted {
        if ask(tcp | udp).is_ok() {
            return Ok(LongPackets::TcpAndUdp);
        }
        if ask(tcp).is_ok() {
            return Ok(LongPackets::Tcp);
        }
    }
    ask(0)?;
    Ok(if wanted {
        LongPackets::Refused
    } else {
        LongPackets::Off
    })
}

nix::ioctl_write_ptr_bad!(
    /// TUNSETVNETLE.
    tun_set_little_endian,
    libc::TUNSETVNETLE,
    libc::c_int
);

nix::ioctl_write_int_bad!(
    /// TUNSETOFFLOAD.
    tun_set_offload,
    libc::TUNSETOFFLOAD
);

nix::ioctl_write_ptr_bad!(
    /// TUNSETIFF.
    tun_set_interface,
    libc::TUNSETIFF,
    libc::ifreq
);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_no_tun_device_is_not_taken_and_is_named() {
        let said = must_be_ours("lo").unwrap_err().to_string();
        assert_eq!(
            said,
            "interface lo is there already and not Webmesh's; set tun.name to another name"
        );
        must_be_ours("no-such-link").unwrap();
        // Also where there is no right to make one.
        assert_eq!(try_out("lo").unwrap_err().to_string(), said);
    }
}
