//! The hole that the home router is asked to make for our UDP port: asked for while a network is up, renewed before it
//! ends, asked for again where this machine is elsewhere, and taken back at the end.
//!
//! A task of its own, since routers are slow; the loop only says what it wants and looks at what was found.

use std::{net::SocketAddrV4, num::NonZeroU16, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    router::{Lease, NoLease, Protocol, Router},
    tasks::{self, Task},
};
use crate::{addr::Underlay, platform::monitor, telemetry::Private};

/// The first pause after a router gave nothing; doubles up to [`AGAIN_MAX`]. Who switches UPnP on in his router wants to
/// see it, and a router that starts after a power cut is busy.
const AGAIN: Duration = Duration::from_mins(2);

/// The longest pause after a router gave nothing.
const AGAIN_MAX: Duration = Duration::from_hours(1);

/// Changes of addresses make us ask again at most once in this time.
const SETTLE: Duration = Duration::from_secs(5);

/// How long the agent's end may wait for the router.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is known of the hole in the router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nobody asks: it is switched off, or no network is up.
    #[default]
    Off,
    /// This machine has no private address behind a router: there is nothing to map.
    Unneeded,
    /// The router is being asked.
    Asking,
    /// Who comes to this address of the router's is let in.
    Mapped {
        /// By which protocol.
        by: Protocol,
        /// The address.
        external: SocketAddrV4,
    },
    /// The router let us in, and is itself behind another one: nobody outside can use it.
    Behind {
        /// By which protocol.
        by: Protocol,
        /// The address that the router takes for public.
        external: SocketAddrV4,
    },
    /// The router gave nothing.
    None(NoLease),
}

impl Finding {
    /// The address under which others may reach us.
    pub(super) fn usable(&self) -> Option<Underlay> {
        match self {
            Self::Mapped { external, .. } => Some(Underlay::new((*external).into())),
            Self::Off | Self::Unneeded | Self::Asking | Self::Behind { .. } | Self::None(_) => None,
        }
    }

    /// Whether a first answer is there, or none is to come.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self, Self::Asking)
    }

    fn of(lease: &Lease) -> Self {
        let (by, external) = (lease.protocol(), lease.external);
        if Underlay::new(external.into()).is_public() {
            Self::Mapped { by, external }
        } else {
            Self::Behind { by, external }
        }
    }
}

/// What the loop wants of the router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Our UDP port.
    pub(super) port: u16,
    /// What tells the router that we are who we were.
    pub(super) nonce: [u32; 3],
    /// Our device, whose routes do not count.
    pub(super) device: String,
}

/// The agent's end of it.
#[derive(Debug)]
pub(super) struct PortMapping {
    wanted: watch::Sender<Wanted>,
    found: watch::Receiver<Finding>,
    task: Option<Task>,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    wish: Option<Wish>,
    /// Counts the changes of this machine's addresses.
    moves: u64,
}

impl PortMapping {
    /// Asks nobody yet.
    pub(super) fn idle() -> Self {
        let (wanted, _) = watch::channel(Wanted::default());
        let (_, found) = watch::channel(Finding::Off);
        Self {
            wanted,
            found,
            task: None,
        }
    }

    /// From now on this is wanted; the same as before changes nothing.
    pub(super) fn want(&mut self, wish: Option<&Wish>) {
        if self.wanted.borrow().wish.as_ref() == wish {
            return;
        }
        self.wanted
            .send_modify(|wanted| wanted.wish = wish.cloned());
        if self.task.is_none() {
            let (tell, found) = watch::channel(Finding::Asking);
            self.found = found;
            let wanted = self.wanted.subscribe();
            self.task = Some(tasks::spawn("port-mapping", keep(wanted, tell)));
        }
    }

    /// This machine may be somewhere else.
    pub(super) fn look_again(&self) {
        self.wanted.send_modify(|wanted| wanted.moves += 1);
    }

    /// What is known now.
    pub(super) fn finding(&self) -> watch::Ref<'_, Finding> {
        self.found.borrow()
    }

    /// Waits until something else is known.
    pub(super) async fn changed(&mut self) {
        if self.task.is_none() || self.found.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Another place to look from.
    pub(super) fn watcher(&self) -> watch::Receiver<Finding> {
        self.found.clone()
    }

    /// Takes the mapping back, if there is one and the router answers soon.
    pub(super) async fn end(&mut self) {
        self.want(None);
        if self.task.is_none() {
            return;
        }
        let over = self.found.wait_for(|finding| *finding == Finding::Off);
        let _router_is_silent = timeout(FAREWELL, over).await;
    }
}

/// What the task holds.
#[derive(Debug, Default)]
struct Held {
    router: Option<Router>,
    lease: Option<Lease>,
    pause: Duration,
}

async fn keep(mut wanted: watch::Receiver<Wanted>, tell: watch::Sender<Finding>) {
    let mut held = Held::default();
    let mut moves = 0;
    loop {
        let now = wanted.borrow_and_update().clone();
        let has_moved = now.moves != std::mem::replace(&mut moves, now.moves);
        let next = held.follow(now.wish, has_moved, &tell).await;
        let settled = Instant::now() + SETTLE;
        tokio::select! {
            () = at(next) => {}
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                // An interface that comes up changes many things one after the other; the end waits for nothing.
                let is_over = || wanted.borrow().wish.is_none();
                if next.is_some() && !is_over() {
                    let gone = wanted.clone();
                    settle(gone, settled).await;
                }
            }
        }
    }
}

/// Waits for things to settle, but not when all is over.
async fn settle(mut wanted: watch::Receiver<Wanted>, until: Instant) {
    tokio::select! {
        () = sleep_until(until) => {}
        _ = wanted.wait_for(|wanted| wanted.wish.is_none()) => {}
    }
}

async fn at(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

impl Held {
    /// Does what is wanted, tells what came of it, and says when to do it again.
    async fn follow(
        &mut self,
        wish: Option<Wish>,
        has_moved: bool,
        tell: &watch::Sender<Finding>,
    ) -> Option<Instant> {
        let router = wish.as_ref().and_then(router_of);
        if router != self.router || router.is_none() {
            self.give_back().await;
            self.pause = AGAIN;
            self.router = router;
        } else if has_moved {
            self.pause = AGAIN;
        }
        let Some(router) = router else {
            tell.send_replace(match wish {
                Some(_) => Finding::Unneeded,
                None => Finding::Off,
            });
            return None;
        };
        if let Some(lease) = self.lease.take() {
            self.lease = lease.renewed(router).await;
        }
        if self.lease.is_none() {
            // What was known before stays known until there is an answer, unless this is another place.
            tell.send_if_modified(|known| {
                let is_elsewhere = matches!(known, Finding::Off | Finding::Unneeded);
                if is_elsewhere {
                    *known = Finding::Asking;
                }
                is_elsewhere
            });
        }
        let finding = match self.asked(router).await {
            Ok(finding) => finding,
            Err(no_lease) => Finding::None(no_lease),
        };
        tell.send_if_modified(|known| {
            let is_news = *known != finding;
            if is_news {
                log(&finding);
                *known = finding;
            }
            is_news
        });
        Some(Instant::now() + self.next_pause())
    }

    async fn asked(&mut self, router: Router) -> Result<Finding, NoLease> {
        if self.lease.is_none() {
            self.lease = Some(router.ask().await?);
        }
        Ok(self.lease.as_ref().map_or(Finding::Off, Finding::of))
    }

    /// Half of what a lease lasts; ever longer where there is none.
    fn next_pause(&mut self) -> Duration {
        if let Some(lease) = &self.lease {
            self.pause = AGAIN;
            return lease.lasts / 2;
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(AGAIN_MAX);
        pause
    }

    async fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(Instant::now() + FAREWELL).await;
        }
    }
}

/// The router to ask, where this machine needs one.
fn router_of(wish: &Wish) -> Option<Router> {
    let port = NonZeroU16::new(wish.port)?;
    let (gateway, own) = match monitor::default_gateway4(Some(&wish.device)) {
        Ok(found) => found?,
        Err(error) => {
            tracing::warn!(%error, "Default route cannot be read");
            return None;
        }
    };
    let is_behind = !Underlay::new((own, wish.port).into()).is_public();
    is_behind.then_some(Router {
        gateway,
        own,
        port,
        nonce: wish.nonce,
    })
}

fn log(finding: &Finding) {
    match finding {
        Finding::Mapped { by, external } => {
            tracing::info!(by = by.name(), external = %Private(external), "The router lets others in");
        }
        Finding::Behind { by, external } => {
            tracing::info!(by = by.name(), external = %Private(external), "The router is behind another one: its port mapping is of no use");
        }
        Finding::None(NoLease::Refused { by, why }) => {
            tracing::info!(by = by.name(), why, "The router gives no port mapping");
        }
        Finding::None(NoLease::Silent) => {
            tracing::info!("The router speaks neither PCP, NAT-PMP nor UPnP");
        }
        Finding::Off | Finding::Unneeded | Finding::Asking => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mapping_that_others_can_reach_is_told_to_others() {
        let at = |text: &str| text.parse().unwrap();
        let by = Protocol::Upnp;
        let external = at("203.0.113.9:41820");
        let mapped = Finding::Mapped { by, external };
        assert_eq!(mapped.usable().unwrap().to_string(), "203.0.113.9:41820");
        let external = at("100.64.0.9:41820");
        assert_eq!(Finding::Behind { by, external }.usable(), None);
        assert_eq!(Finding::None(NoLease::Silent).usable(), None);
    }

    #[test]
    fn a_router_that_gives_nothing_is_asked_ever_less_often() {
        let mut held = Held {
            pause: AGAIN,
            ..Held::default()
        };
        let pauses: Vec<u64> = (0..7).map(|_| held.next_pause().as_secs() / 60).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
    }

    #[tokio::test]
    async fn who_wants_nothing_is_told_nothing_and_ends_at_once() {
        let mut mapping = PortMapping::idle();
        assert_eq!(*mapping.finding(), Finding::Off);
        mapping.end().await;
        assert!(timeout(Duration::ZERO, mapping.changed()).await.is_err());
    }
}
