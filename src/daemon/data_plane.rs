//! The control thread's end of the data thread. It runs on the underlay's sockets alone until it is given a device:
//! a joiner has no addresses yet.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroUsize,
    sync::Arc,
};

use arc_swap::ArcSwap;
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::sync::mpsc;

use crate::{
    config::{self, Config, Offload, THREADS_MAX, Threads},
    datapath::{
        self, Handle, Teller,
        command::{Command, Event},
        offloads::{Offloads, Why, Wish, Wishes},
    },
    ids::{JoinIx, SessionId},
    platform::udp::{self, Held},
    tables::{Names, Own, Tables},
    time::Moment,
};

/// The join session of this machine as a joiner; those it gives to others are counted from 0.
pub(super) const JOINER: SessionId = SessionId::Join(JoinIx(u32::MAX));

/// Events that wait for the control thread. A second of the most that one data thread can say usefully: above it
/// gossip is repeated by its next round, and changes of sessions wait in the thread.
const EVENTS: usize = 4096;

/// The running data thread.
#[derive(Debug)]
pub(super) struct DataPlane {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    tables: Arc<ArcSwap<Tables>>,
    sockets: Held,
}

impl DataPlane {
    /// Starts it on these sockets, without a device and knowing nobody.
    ///
    /// # Errors
    /// The sockets are closed then.
    pub(super) fn start(sockets: udp::Pair, config: &Config) -> io::Result<Self> {
        let (sender, events) = mpsc::channel(EVENTS);
        let tables = Arc::new(ArcSwap::from_pointee(nobody()));
        let held = sockets.hold()?;
        let handle = datapath::start(datapath::Parts {
            tun: None,
            sockets,
            tables: Arc::clone(&tables),
            events: sender,
            mtu: config.tun.mtu.bytes(),
            wishes: wishes(config.datapath),
            threads: threads(config.datapath.threads),
        })?;
        if handle.threads() > 1 {
            tracing::info!(threads = handle.threads(), "Several data threads run");
        }
        Ok(Self {
            handle,
            events,
            tables,
            sockets: held,
        })
    }

    /// How many threads it has.
    pub(super) fn threads(&self) -> usize {
        self.handle.threads()
    }

    /// What it reads; stored to, it reads the new ones from its next batch on.
    pub(super) fn tables(&self) -> &Arc<ArcSwap<Tables>> {
        &self.tables
    }

    /// The sockets it runs on.
    pub(super) fn sockets(&self) -> &Held {
        &self.sockets
    }

    /// Tells it something; it does things in order.
    pub(super) fn tell(&self, command: Command) {
        self.handle.send(command);
    }

    /// Another way to tell it something.
    pub(super) fn teller(&self) -> Teller {
        self.handle.teller()
    }

    /// Waits for what it tells. May be dropped and called again without losing anything.
    pub(super) async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// What it tells that is there already.
    pub(super) fn try_event(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// When it made its last turn; one that lives makes another soon after this was asked.
    pub(super) fn turned(&self) -> Moment {
        self.handle.turned()
    }

    /// What it dropped, by reason; reasons that never happened are left out.
    pub(super) fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = self.handle.drops();
        all.into_iter()
            .map(|(reason, count)| (reason.label(), count))
            .collect()
    }

    /// Each kind of work on many packets at once, by the key that decides on it, and why it is not left to the kernel.
    pub(super) fn offloads(&self) -> [(&'static str, Option<Why>); 3] {
        let Offloads { tun, gso, gro, .. } = self.handle.offloads();
        [
            ("tun_offload", tun.off()),
            ("udp_gso", gso.off()),
            ("udp_gro", gro.off()),
        ]
    }

    /// Lets it do what it was told so far, and ends it; sockets and device are closed when this returns.
    pub(super) fn stop(self) {
        // Nobody reads any more: the thread must not wait for room.
        drop(self.events);
        self.handle.stop();
    }
}

/// How many data threads there are to be. Below 4 cores one is the fastest: programs need the others.
fn threads(wish: Threads) -> u8 {
    match wish {
        Threads::Fixed(number) => number,
        Threads::Auto => {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            let half = u8::try_from(cores / 2).unwrap_or(u8::MAX);
            if cores < 4 { 1 } else { half.min(THREADS_MAX) }
        }
    }
}

fn wishes(config: config::Datapath) -> Wishes {
    let wish = |offload| match offload {
        Offload::Auto => Wish::Auto,
        Offload::On => Wish::On,
        Offload::Off => Wish::Off,
    };
    Wishes {
        tun: wish(config.tun_offload),
        gso: wish(config.udp_gso),
        gro: wish(config.udp_gro),
    }
}

/// Tables of a machine that is in no network.
fn nobody() -> Tables {
    Tables {
        version: 0,
        own: Own {
            v4: None,
            v6: Ipv6Addr::UNSPECIFIED,
            resolver4: Ipv4Addr::UNSPECIFIED,
            resolver6: Ipv6Addr::UNSPECIFIED,
            pool4: Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 32),
            prefix6: Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128),
            dns_tcp_port: 0,
        },
        peers4: HashMap::new(),
        peers6: HashMap::new(),
        splices: BTreeMap::new(),
        own_vips: BTreeSet::new(),
        names: Arc::new(NoNames),
    }
}

/// Knows no name and says nothing.
#[derive(Debug)]
struct NoNames;

impl Names for NoNames {
    fn answer(&self, _query: &[u8], _limit: usize, _answer: &mut Vec<u8>) -> bool {
        false
    }

    fn is_foreign(&self, _query: &[u8]) -> bool {
        false
    }
}
