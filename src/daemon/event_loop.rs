//! The loop: waits for whatever wakes the agent, applies it, carries out what follows, publishes what can be seen.
//!
//! The node has one owner, this loop. Nothing here waits for anything but the next wake.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    agent::{Agent, Place},
    calls::Call,
    control::Server,
    ending::{self, Ending},
    host_names::HostNames,
    joining::{Admitted, Ended, Joined},
    lan::Said,
    network::{Device, Drained, Network},
    notify::{self, StatusLine, Watchdog},
    sleep::Sleep,
    starting::Ground,
    streams,
};
use crate::{
    api::{ApiError, Code},
    datapath::command::Event,
    platform::{clock, monitor::Monitor, service_manager},
    rendezvous::Answer,
    time::Moment,
};

/// How long a look at the agent may be old while things change: what a person takes for at once.
const FRESH: Duration = Duration::from_millis(20);

/// Addresses and routes of this machine are read at most once in this time, but for some at once: a router has many, and
/// each reading takes them all.
const ADDRESSES_AGAIN: Duration = Duration::from_millis(900);

/// How many changes are looked at when they come: a machine that moves loses an address, a route, and gets others.
const ADDRESSES_AT_ONCE: u32 = 8;

/// Peers above which looks are made once a second only: each costs some µs per peer.
const MANY_PEERS: usize = 256;

/// Events taken from the data thread in one turn.
const EVENTS_A_TURN: usize = 256;

/// Everything that can wake the agent.
enum Wake {
    /// The data thread told something.
    Data(Event),
    /// The data thread is gone.
    DataGone,
    /// Something happened on the TLS streams.
    Stream(streams::News),
    /// The DHT answered.
    Dht(Answer),
    /// A neighbour on a LAN said something.
    Lan(Said),
    /// A person asks.
    Call(Call),
    /// Addresses or routes of this machine changed.
    AddressesChanged,
    /// The router said something.
    Mapped,
    /// The host's resolver was started anew.
    ResolverCame,
    /// A deadline of the node, or of a join, or of publishing, has come.
    Deadline,
    /// A second is over.
    Second,
    /// HUP.
    Reload,
    /// TERM or INT.
    Stop,
}

/// The agent and all that wakes it.
#[derive(Debug)]
pub(super) struct EventLoop {
    /// Goes first: the socket's file is removed while the lock of the state directory is held.
    _server: Server,
    agent: Agent,
    calls: mpsc::Receiver<Call>,
    monitor: Monitor,
    addresses: Addresses,
    sleep: Sleep,
    second: Interval,
    signals: Signals,
    watchdog: Watchdog,
    status_line: StatusLine,
    /// Work was left over in the last turn.
    is_behind: bool,
    published_at: Moment,
    is_stale: bool,
}

/// Whether the addresses of this machine were read since they changed, and how often of late.
#[derive(Debug, Default)]
struct Addresses {
    are_stale: bool,
    /// When what was read of late is paid for.
    paid_at: Moment,
}

impl Addresses {
    /// Whether they are to be read now; it is counted if so.
    fn are_due(&mut self, now: Moment) -> bool {
        let ahead = self.paid_at.since(now);
        if !self.are_stale || ahead > ADDRESSES_AGAIN * (ADDRESSES_AT_ONCE - 1) {
            return false;
        }
        self.are_stale = false;
        self.paid_at = self.paid_at.max(now).after(ADDRESSES_AGAIN);
        true
    }
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl EventLoop {
    /// A loop around an agent.
    ///
    /// # Errors
    /// The kernel gives no netlink socket or no signals.
    pub(super) fn new(
        agent: Agent,
        calls: mpsc::Receiver<Call>,
        server: Server,
    ) -> anyhow::Result<Self> {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            _server: server,
            agent,
            calls,
            monitor: Monitor::open().context("cannot listen for changes of addresses")?,
            addresses: Addresses::default(),
            sleep: Sleep::new(),
            second,
            signals: Signals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                reload: signal(SignalKind::hangup())?,
            },
            watchdog: Watchdog::of_this_process(),
            status_line: StatusLine::default(),
            is_behind: false,
            published_at: Moment(0),
            is_stale: true,
        })
    }

    /// Runs until asked to stop, and then stops cleanly. What is given back is left to do: to put the host's resolver back,
    /// unless the next run takes over.
    ///
    /// # Errors
    /// The device is gone, or cannot be made again; a service manager starts the agent anew, and then the host's resolver
    /// stays as it is for the next run.
    pub(super) async fn run(mut self) -> (Option<HostNames>, anyhow::Result<()>) {
        if let Err(error) = self.turn_until_stopped().await {
            let nobody_follows = !service_manager::is_present();
            return (nobody_follows.then_some(self.agent.host_names), Err(error));
        }
        notify::stopping();
        let ending = ending::ask().await;
        if ending == Ending::Stop {
            self.agent.port_mapping.end().await;
        }
        (self.shut_down(ending), Ok(()))
    }

    async fn turn_until_stopped(&mut self) -> anyhow::Result<()> {
        loop {
            self.settle()?;
            let wake = self.next_wake().await;
            if matches!(wake, Wake::Stop) {
                return Ok(());
            }
            self.apply(wake)?;
        }
    }

    async fn next_wake(&mut self) -> Wake {
        if self.is_behind {
            tokio::task::yield_now().await;
        }
        let deadline = self.next_deadline();
        let Self {
            agent,
            calls,
            monitor,
            second,
            signals,
            ..
        } = self;
        tokio::select! {
            biased;
            _ = signals.terminate.recv() => Wake::Stop,
            _ = signals.interrupt.recv() => Wake::Stop,
            _ = signals.reload.recv() => Wake::Reload,
            () = until(deadline) => Wake::Deadline,
            Some(call) = calls.recv() => Wake::Call(call),
            _ = second.tick() => Wake::Second,
            () = agent.host_names.coming() => Wake::ResolverCame,
            () = agent.port_mapping.changed() => Wake::Mapped,
            wake = next_of(&mut agent.place) => wake,
            _ = monitor.changed() => Wake::AddressesChanged,
        }
    }

    fn apply(&mut self, wake: Wake) -> anyhow::Result<()> {
        match wake {
            Wake::Data(event) => {
                self.on_event(event)?;
                self.take_more_events()?;
            }
            Wake::Stream(news) => match &mut self.agent.place {
                Place::Up(network) => network.on_stream_news(news),
                Place::Joining(joining) => joining.on_stream_news(&news),
                Place::Idle | Place::Down(_) | Place::Unusable(_) => {}
            },
            Wake::Lan(said) => {
                if let Place::Up(network) = &mut self.agent.place {
                    network.on_lan(&said);
                }
            }
            Wake::DataGone => anyhow::bail!("the data thread has ended"),
            Wake::Dht(answer) => match &mut self.agent.place {
                Place::Up(network) => network.on_slot_answer(answer),
                Place::Joining(joining) => joining.on_slot_answer(answer),
                Place::Idle | Place::Down(_) | Place::Unusable(_) => {}
            },
            Wake::Call(call) => {
                call(&mut self.agent);
                // What it did is seen at once, unless looks are dear: anybody may ask.
                if self.freshness() == FRESH {
                    self.published_at = Moment(0);
                }
            }
            Wake::AddressesChanged => {
                self.addresses.are_stale = true;
                self.look_at_addresses();
            }
            Wake::ResolverCame => {
                self.agent.host_names.look_again();
                self.published_at = Moment(0);
            }
            Wake::Deadline => match &mut self.agent.place {
                Place::Up(network) => network.on_deadline(),
                Place::Joining(joining) => joining.on_deadline(),
                Place::Idle | Place::Down(_) | Place::Unusable(_) => {}
            },
            Wake::Second => {
                #[cfg(debug_assertions)]
                self.hang_if_wanted();
                self.agent.look_at_file();
                self.look_at_addresses();
                let has_slept = self.sleep.is_over();
                if let Place::Up(network) = &mut self.agent.place {
                    if has_slept {
                        network.on_woke();
                    }
                    network.on_second();
                    self.agent.supervisor.keep_guard(network.guarding.news());
                }
            }
            Wake::Reload => {
                notify::reloading();
                self.agent.reload();
                notify::ready();
            }
            // What it said is looked at after every wake.
            Wake::Mapped | Wake::Stop => {}
        }
        self.is_stale = true;
        Ok(())
    }

    /// The first changes are looked at when they come; where routes flap, what follows is looked at once a second.
    fn look_at_addresses(&mut self) {
        if !self.addresses.are_due(clock::moment()) {
            return;
        }
        if let Place::Up(network) = &mut self.agent.place {
            network.on_addresses_changed();
        }
        self.agent.port_mapping.look_again();
    }

    fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match &mut self.agent.place {
            Place::Up(network) => network.on_event(event).context("the TUN device is gone"),
            Place::Joining(joining) => {
                joining.on_event(event);
                Ok(())
            }
            Place::Idle | Place::Down(_) | Place::Unusable(_) => Ok(()),
        }
    }

    /// Events that are there already belong to the same turn; each is applied and drained as if it came alone.
    fn take_more_events(&mut self) -> anyhow::Result<()> {
        for _ in 0..EVENTS_A_TURN {
            let Place::Up(network) = &mut self.agent.place else {
                return Ok(());
            };
            if network.drain() == Drained::Part {
                return Ok(());
            }
            let Some(event) = network.data.try_event() else {
                return Ok(());
            };
            network.on_event(event).context("the TUN device is gone")?;
        }
        Ok(())
    }

    /// Carries out what the wake caused, and publishes.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.is_behind = false;
        self.agent.place = match std::mem::replace(&mut self.agent.place, Place::Idle) {
            Place::Joining(joining) => match joining.drain() {
                Ok(joining) => Place::Joining(joining),
                Err(ended) => {
                    (self.is_stale, self.published_at) = (true, Moment(0));
                    after_join(&mut self.agent, ended)
                }
            },
            other @ (Place::Idle | Place::Up(_) | Place::Down(_) | Place::Unusable(_)) => other,
        };
        self.agent.tend_port_mapping();
        if let Place::Up(network) = &mut self.agent.place {
            self.is_behind = network.drain() == Drained::Part;
            if network.facts.is_moved {
                tracing::info!("Own mesh addresses changed; the network comes up anew with others");
                self.agent.restart_network()?;
                self.is_behind = true;
            }
        }
        self.show_if_due();
        Ok(())
    }

    fn show_if_due(&mut self) {
        let now = clock::moment();
        if self.is_stale && now.since(self.published_at) >= self.freshness() {
            self.agent.publish();
            self.status_line.show(&self.agent.published().borrow());
            self.published_at = now;
            self.is_stale = false;
        }
        self.watchdog.tend(now, || turned(&self.agent.place));
    }

    fn freshness(&self) -> Duration {
        match &self.agent.place {
            Place::Up(network) if network.tables.load().peers6.len() > MANY_PEERS => {
                Duration::from_secs(1)
            }
            Place::Up(_)
            | Place::Idle
            | Place::Joining(_)
            | Place::Down(_)
            | Place::Unusable(_) => FRESH,
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        if self.is_behind {
            return Some(Moment(0));
        }
        let publish = self
            .is_stale
            .then(|| self.published_at.after(self.freshness()));
        let place = match &self.agent.place {
            Place::Up(network) => network.poll_timeout(),
            Place::Joining(joining) => Some(joining.poll_timeout()),
            Place::Idle | Place::Down(_) | Place::Unusable(_) => None,
        };
        publish.into_iter().chain(place).min()
    }

    /// Writes what is to be written. If it is the end it also says good-bye, closes the device, and gives back the names
    /// that the host was told, to be taken away; before a restart all of it stays as it is for the next run.
    fn shut_down(mut self, ending: Ending) -> Option<HostNames> {
        match std::mem::replace(&mut self.agent.place, Place::Idle) {
            Place::Up(network) => drop(match ending {
                Ending::Stop => self.agent.take_down(*network),
                Ending::Restart => network.stop(Device::Left),
            }),
            Place::Joining(joining) => joining.abandon(),
            Place::Idle | Place::Down(_) | Place::Unusable(_) => {}
        }
        tracing::info!(?ending, "Agent stopped");
        match ending {
            Ending::Stop => Some(self.agent.host_names),
            Ending::Restart => None,
        }
    }

    #[cfg(debug_assertions)]
    fn hang_if_wanted(&self) {
        if let Place::Up(network) = &self.agent.place
            && super::failpoint::is_wanted("data.hang")
        {
            network.data.tell(crate::datapath::command::Command::Hang);
        }
    }
}

fn after_join(agent: &mut Agent, ended: Ended) -> Place {
    match ended {
        Ended::Granted(admitted) => take_membership(agent, *admitted),
        Ended::Not => Place::Idle,
    }
}

fn take_membership(agent: &mut Agent, admitted: Admitted) -> Place {
    let Admitted {
        network,
        issuer,
        endpoint,
        host,
        mut folder,
        restored,
        ground,
        asker,
        by_dht,
        introducer,
        boot,
    } = admitted;
    let settled = agent
        .state_dir
        .settle(&mut folder, network)
        .map_err(anyhow::Error::from);
    let path = folder.path().to_owned();
    let started = settled.and_then(|()| agent.bring_up(folder, network, restored, ground, boot));
    match started {
        Ok(()) => {
            if let Place::Up(network) = &mut agent.place {
                tracing::info!("Joined");
                network.facts.has_joiner = true;
                if by_dht {
                    network.node.note_met_by_dht(clock::now(), issuer);
                }
                let (now, at) = (clock::now(), (endpoint, host));
                match introducer {
                    Some(by) => network.node.meet_through(now, by, at, issuer),
                    None => network.node.meet(now, issuer, at),
                }
            }
            let _asker_gone = asker.outcome.send(Ok(Joined { issuer, introducer }));
            std::mem::replace(&mut agent.place, Place::Idle)
        }
        Err(error) => {
            let what = format!("this machine is a member, and cannot come up: {error:#}");
            let error = ApiError::could_not(Code::Internal, what).remedy("then sudo webmesh up");
            let _asker_gone = asker.outcome.send(Err(error));
            agent.look_at(path);
            std::mem::replace(&mut agent.place, Place::Idle)
        }
    }
}

/// When the data thread made its last turn, if there is one.
fn turned(place: &Place) -> Option<Moment> {
    match place {
        Place::Up(network) => Some(network.data.turned()),
        Place::Joining(joining) => Some(joining.ground.data.turned()),
        Place::Idle | Place::Down(_) | Place::Unusable(_) => None,
    }
}

/// What comes next from a network or a join.
async fn next_of(place: &mut Place) -> Wake {
    let told = |event: Option<Event>| event.map_or(Wake::DataGone, Wake::Data);
    match place {
        Place::Up(network) => {
            let Network {
                data,
                streams,
                dht,
                lan,
                ..
            } = &mut **network;
            tokio::select! {
                biased;
                event = data.event() => told(event),
                news = streams.news() => Wake::Stream(news),
                said = lan.heard() => Wake::Lan(said),
                Some(answer) = dht.answer() => Wake::Dht(answer),
            }
        }
        Place::Joining(joining) => {
            let Ground {
                data, dht, streams, ..
            } = &mut joining.ground;
            tokio::select! {
                biased;
                event = data.event() => told(event),
                news = streams.news() => Wake::Stream(news),
                Some(answer) = dht.answer() => Wake::Dht(answer),
            }
        }
        Place::Idle | Place::Down(_) | Place::Unusable(_) => std::future::pending().await,
    }
}

/// Waits until a moment on CLOCK_BOOTTIME. tokio's clock stands still in sleep; the one-second tick bounds the error.
async fn until(deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => sleep_until(Instant::now() + deadline.since(clock::moment())).await,
        None => std::future::pending().await,
    }
}

/// What a reader of the newest look holds.
pub(super) type Look = Arc<super::view::Published>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_changes_are_looked_at_when_they_come_and_then_one_a_second() {
        let mut addresses = Addresses::default();
        let looks = |addresses: &mut Addresses, from_ms: u64, to_ms: u64| {
            let all = (from_ms..to_ms).step_by(10);
            all.filter(|ms| {
                addresses.are_stale = true;
                addresses.are_due(Moment(1_000_000_000 + ms * 1000))
            })
            .count()
        };
        assert_eq!(looks(&mut addresses, 0, 80), 8);
        assert_eq!(looks(&mut addresses, 80, 9_080), 10);
        addresses.are_stale = false;
        assert!(!addresses.are_due(Moment(9_000_000_000)), "nothing changed");
    }
}
