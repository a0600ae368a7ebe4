//! Keeps the guard of the mesh addresses (design §11), and knows what it has dropped.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    time::Duration,
};

use ipnet::IpNet;

use super::ipv4_watch::Trouble;
use crate::{
    config::{Host, LinkPattern},
    platform::{
        clock,
        guard::{Guard, GuardError, Shape},
    },
    tables::Own,
    time::Moment,
};

/// How often a guard that the kernel refused is tried again: somebody may have loaded the module.
const AGAIN: Duration = Duration::from_secs(60);

/// How often one whose table another process holds is tried again.
const HELD_AGAIN: Duration = Duration::from_secs(1);

/// The guard of one network that is up.
#[derive(Debug)]
pub(super) struct Guarding {
    /// None: `[host] guard` is off.
    wanted: Option<Shape>,
    standing: Result<Guard, Missing>,
    dropped: u64,
    /// What guards before this one had dropped.
    before: u64,
    /// The service manager does not know yet which guard stands.
    is_news: bool,
}

/// What the service manager is to keep for the next run of the agent.
#[derive(Debug)]
pub(super) enum News<'a> {
    /// This descriptor.
    Stands(BorrowedFd<'a>),
    /// None: what it may have is of no use, or in the way.
    Gone,
}

/// Why none stands, and when to try again.
#[derive(Debug)]
struct Missing {
    why: Option<Trouble>,
    again: Moment,
}

impl Guarding {
    /// Sets the guard of these addresses, if it is wanted. `earlier` is one that still stands.
    pub(super) fn start(host: &Host, device: &str, own: &Own, earlier: Option<Guard>) -> Self {
        let wanted = host.guard.then(|| shape(host, device, own));
        let mut guarding = Self {
            wanted,
            standing: Err(Missing::unwanted()),
            dropped: 0,
            before: 0,
            is_news: true,
        };
        if let (Some(mut guard), Some(shape)) = (earlier, &guarding.wanted)
            && guard.change(shape.clone()).is_ok()
        {
            guarding.standing = Ok(guard);
        } else {
            guarding.set();
        }
        guarding
    }

    /// Gives the guard away: it stands as long as somebody holds it.
    pub(super) fn hand_over(&mut self) -> Option<Guard> {
        self.wanted = None;
        std::mem::replace(&mut self.standing, Err(Missing::unwanted())).ok()
    }

    /// What the service manager is to be told, if that has changed since this was asked last.
    pub(super) fn news(&mut self) -> Option<News<'_>> {
        std::mem::take(&mut self.is_news).then(|| match &self.standing {
            Ok(guard) => News::Stands(guard.as_fd()),
            Err(_) => News::Gone,
        })
    }

    /// Ends the guard, though the service manager may hold its descriptor a moment longer.
    pub(super) fn end(mut self) {
        if let Some(guard) = self.hand_over()
            && let Err(error) = guard.remove()
        {
            tracing::warn!(%error, "The guard's table stays until its last descriptor is closed");
        }
    }

    /// Looks after it: what it dropped, and whether it is still there. Says why it is not, if it should be.
    pub(super) fn tend(&mut self) -> Option<Trouble> {
        match &mut self.standing {
            Ok(guard) => match guard.dropped() {
                Ok(count) => self.dropped = self.before + count,
                // Somebody took the table away.
                Err(_gone) => self.set(),
            },
            Err(missing) if clock::moment() >= missing.again => self.set(),
            Err(_) => {}
        }
        match &self.standing {
            Ok(_) => None,
            Err(missing) => missing.why.clone(),
        }
    }

    /// How many packets were dropped in this run, as of the last look.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn set(&mut self) {
        self.before = self.dropped;
        self.is_news = true;
        // An old one goes here: its table has the same name.
        let known = std::mem::replace(&mut self.standing, Err(Missing::unwanted()))
            .err()
            .and_then(|missing| missing.why);
        let Some(shape) = &self.wanted else {
            return;
        };
        self.standing = Guard::set(shape.clone()).map_err(|error| {
            let missing = Missing::by(&error);
            if known != missing.why {
                tracing::warn!(error = ?anyhow::Error::from(error), "No guard of the mesh addresses");
            }
            missing
        });
    }
}

impl Missing {
    fn unwanted() -> Self {
        Self {
            why: None,
            again: clock::moment().after(AGAIN),
        }
    }

    fn by(error: &GuardError) -> Self {
        // It may be one of ours that the service manager is about to close.
        let pause = match error {
            GuardError::Held(_) => HELD_AGAIN,
            GuardError::Forbidden
            | GuardError::Missing
            | GuardError::Ownerless
            | GuardError::Lost(_)
            | GuardError::Refused(_) => AGAIN,
        };
        Self {
            why: Some(Trouble {
                cause: error.to_string(),
                remedy: Some(error.remedy().to_owned()),
            }),
            again: clock::moment().after(pause),
        }
    }
}

/// Everything that means the network: own addresses, peers, services and the resolver. Without IPv4 here its pool is
/// somebody else's.
fn shape(host: &Host, device: &str, own: &Own) -> Shape {
    let v4 = own.v4.map(|_| IpNet::V4(own.pool4));
    let local = host.guard_local.iter().map(LinkPattern::as_str);
    Shape {
        device: device.to_owned(),
        nets: v4.into_iter().chain([IpNet::V6(own.prefix6)]).collect(),
        local: local.map(str::to_owned).collect(),
    }
}
