//! The guard (design §11): drops packets for, or from, addresses of the network that come in by any other way than the
//! TUN device.
//!
//! Linux takes a packet for any own address on any interface. Without the guard a neighbour on the LAN reaches mesh
//! addresses with no tunnel, no identity and no policy; with a forged source he speaks as a peer.
//!
//! Knows the one table it is made of. Refuses to know what a network is: it is given addresses.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use ipnet::IpNet;
use netlink_packet_netfilter::{
    NetfilterProtoFamily,
    nftables::{InetHookNumber, MetaKey, TableFlags},
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    netlink::Netlink,
    nftables::{
        self, End, Place, Step, Table, accept, address, commit, counter, drop_it, go_to, interface,
    },
};

/// What is guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The TUN device: the one way in.
    pub device: String,
    /// The addresses of the network.
    pub nets: Vec<IpNet>,
    /// Interfaces behind which there are only guests of this host; a `*` at the end stands for any rest of a name.
    pub local: Vec<String>,
}

/// The table in the kernel. It goes when this is dropped, and with the process; a duplicate of the descriptor
/// ([`Guard::as_fd`]) elsewhere keeps it.
#[derive(Debug)]
pub struct Guard {
    netlink: Netlink,
    table: Table,
    /// None: taken from an earlier run, which may have guarded something else.
    shape: Option<Shape>,
}

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// No CAP_NET_ADMIN.
    #[error("no right to set nf_tables")]
    Forbidden,
    /// No nf_tables, or without what the guard needs.
    #[error("this kernel has no nf_tables")]
    Missing,
    /// No tables that go with their owner.
    #[error("this kernel keeps nf_tables when their owner dies")]
    Ownerless,
    /// There is a table of this name, and it is somebody else's.
    #[error("the nf_tables table {0} is held by another process")]
    Held(String),
    /// The descriptor from an earlier run owns no such table.
    #[error("the descriptor does not own the nf_tables table {0}")]
    Lost(String),
    /// Anything else.
    #[error("the kernel refuses the nf_tables table")]
    Refused(#[source] io::Error),
}

impl GuardError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Forbidden => "run the agent as root or give it CAP_NET_ADMIN",
            Self::Missing => "sudo modprobe nf_tables",
            Self::Ownerless => "run a kernel of 5.12 or newer",
            Self::Held(_) | Self::Lost(_) => "stop the other agent on this host",
            Self::Refused(_) => {
                "let no interface but the mesh's device bring packets for its addresses"
            }
        }
    }
}

impl Guard {
    /// Guards these addresses from now on. All of it is set at once.
    ///
    /// # Errors
    /// Nothing is set then.
    pub fn set(shape: Shape) -> Result<Self, GuardError> {
        let table = table_of(&shape.device);
        let mut netlink =
            Netlink::open(NETLINK_NETFILTER).map_err(|error| match error.raw_os_error() {
                Some(libc::EPROTONOSUPPORT) => GuardError::Missing,
                _ => GuardError::Refused(error),
            })?;
        let hook = Place {
            kind: "filter",
            hook: InetHookNumber::PreRouting,
            priority: PRIORITY_RAW,
        };
        let mut steps = vec![
            table.made(TableFlags::Owner),
            table.chain(DROPPED, None),
            table.rule(DROPPED, vec![counter(), drop_it()]),
            table.chain(ENTERING, Some(hook)),
        ];
        steps.extend(rules(&table, &shape));
        commit(&mut netlink, steps).map_err(|error| refusal(&table, error))?;
        Ok(Self {
            netlink,
            table,
            shape: Some(shape),
        })
    }

    /// Goes on with the table that an earlier run of this program left with its descriptor, for the same device. It
    /// guards what it guarded until [`Guard::change`].
    ///
    /// # Errors
    /// The descriptor owns no such table; it is closed.
    pub fn from_fd(fd: OwnedFd, device: &str) -> Result<Self, GuardError> {
        let table = table_of(device);
        let lost = |_| GuardError::Lost(table.name.clone());
        let mut netlink = Netlink::from_fd(fd).map_err(lost)?;
        let owner = table.owner(&mut netlink).map_err(lost)?;
        if owner != Some(netlink.port().map_err(lost)?) {
            return Err(GuardError::Lost(table.name));
        }
        Ok(Self {
            netlink,
            table,
            shape: None,
        })
    }

    /// Guards something else. There is no moment without a guard, and the count goes on.
    ///
    /// # Errors
    /// It guards what it guarded; or, for another device, nothing any more.
    pub fn change(&mut self, shape: Shape) -> Result<(), GuardError> {
        if self.shape.as_ref() == Some(&shape) {
            return Ok(());
        }
        if table_of(&shape.device) != self.table {
            *self = Self::set(shape)?;
            return Ok(());
        }
        let mut steps = vec![self.table.emptied(ENTERING)];
        steps.extend(rules(&self.table, &shape));
        if let Err(error) = commit(&mut self.netlink, steps) {
            let _what_is_left_is_of_no_use = self.netlink.forget();
            return Err(refusal(&self.table, error));
        }
        self.shape = Some(shape);
        Ok(())
    }

    /// Ends it now, though a duplicate of its descriptor may be open elsewhere.
    ///
    /// # Errors
    /// It stands until the last duplicate is closed.
    pub fn remove(mut self) -> io::Result<()> {
        commit(&mut self.netlink, vec![self.table.gone()])
    }

    /// How many packets it has dropped.
    ///
    /// # Errors
    /// The table is gone, or cannot be asked.
    pub fn dropped(&mut self) -> io::Result<u64> {
        let rules = self.table.rules(&mut self.netlink, DROPPED)?;
        if rules.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(nftables::packets(&rules))
    }
}

/// The socket that owns the table. While a duplicate of it is open anywhere the table stays, and [`Guard::from_fd`] takes
/// it up again.
impl AsFd for Guard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// What is let in first: the device's packets meet one comparison. Guests of this host may reach the mesh, and may not
/// speak as one of its members.
fn rules(table: &Table, shape: &Shape) -> Vec<Step> {
    let let_in = |name: &str| {
        let from_there = interface(MetaKey::Iifname, name);
        table.rule(ENTERING, [from_there, vec![accept()]].concat())
    };
    let kept_out = |end: End| {
        let of_the_network = move |net: &IpNet| {
            let there = address(end, *net);
            table.rule(ENTERING, [there, vec![go_to(DROPPED)]].concat())
        };
        shape.nets.iter().map(of_the_network)
    };
    let own = [shape.device.as_str(), "lo"].into_iter().map(let_in);
    let guests = shape.local.iter().map(|name| let_in(name));
    own.chain(kept_out(End::Source))
        .chain(guests)
        .chain(kept_out(End::Destination))
        .collect()
}

/// Each device has a table of its own: two agents may run in one network namespace.
fn table_of(device: &str) -> Table {
    Table {
        family: NetfilterProtoFamily::Inet,
        name: format!("webmesh-{device}"),
    }
}

fn refusal(table: &Table, error: io::Error) -> GuardError {
    match error.raw_os_error() {
        // EPERM is the answer to both; who has the right sees the table.
        Some(libc::EPERM) if is_there(table) => GuardError::Held(table.name.clone()),
        Some(libc::EPERM) => GuardError::Forbidden,
        Some(libc::EOPNOTSUPP) if is_there(table) => GuardError::Held(table.name.clone()),
        Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EAFNOSUPPORT) => GuardError::Missing,
        Some(libc::EINVAL) => GuardError::Ownerless,
        _ => GuardError::Refused(error),
    }
}

fn is_there(table: &Table) -> bool {
    nftables::tables().is_ok_and(|names| names.contains(&table.name))
}

/// The chain that sees every packet that comes in.
const ENTERING: &str = "entering";

/// The chain that counts and drops.
const DROPPED: &str = "dropped";

/// `NF_IP_PRI_RAW`: after fragments are put together where somebody asked for it, before connections are tracked.
const PRIORITY_RAW: i32 = -300;
