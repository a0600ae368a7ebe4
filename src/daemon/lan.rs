//! The agent's ears and mouth in its LANs (protocol §2): what neighbours say to the group goes to the node, what the node
//! wants said goes out on every LAN.
//!
//! Knows sockets, prefixes and how much a LAN may make this machine work. Refuses to know what is said.

use std::{io, net::IpAddr, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    addr::Underlay,
    platform::{
        lan::{Ear, Mouth, Overheard, Place, places},
        udp,
    },
};

/// Datagrams that are looked at in a second: what a LAN of a hundred machines says when the power comes back. Each costs a
/// stranger nothing and us an AEAD; what comes beyond that waits in the kernel, which drops it when it is too much.
const A_SECOND: u32 = 128;

/// How long after an ear broke it is opened anew.
const MENDED_AFTER: Duration = Duration::from_secs(5);

/// Hears and speaks on the LANs this machine is in.
#[derive(Debug)]
pub(super) struct Lan {
    mouth: Option<Mouth>,
    ears: [Listener; 2],
    places: Vec<Place>,
    rest: Rest,
}

/// What a neighbour said.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// Who, by his address.
    pub(super) source: Underlay,
    /// What.
    pub(super) bytes: Vec<u8>,
}

/// How much was heard in this second.
#[derive(Debug)]
struct Rest {
    since: Instant,
    heard: u32,
}

impl Lan {
    /// Is on no LAN until it has looked.
    pub(super) fn of(pair: &udp::Pair) -> Self {
        let opened = Mouth::of(pair).inspect_err(
            |error| tracing::warn!(%error, "Nothing can be said on the LAN: others there do not find this machine"),
        );
        let mouth = opened.ok();
        let mut ears = [Listener::deaf(Ear::v4), Listener::deaf(Ear::v6)];
        if mouth.is_some() {
            let families = 1 + usize::from(pair.udp6.is_some());
            ears.iter_mut().take(families).for_each(Listener::begin);
        }
        Self {
            ears,
            mouth,
            places: Vec::new(),
            rest: Rest::new(),
        }
    }

    /// Hears nothing and says nothing: `[rendezvous] lan = false`.
    pub(super) fn silent() -> Self {
        Self {
            mouth: None,
            ears: [Listener::deaf(Ear::v4), Listener::deaf(Ear::v6)],
            places: Vec::new(),
            rest: Rest::new(),
        }
    }

    /// Looks at the interfaces again, but for the device `tun`. In how many LANs this machine is, if anything about them is
    /// new.
    pub(super) fn look(&mut self, tun: Option<&str>) -> Option<usize> {
        self.mouth.as_ref()?;
        let now = match places(tun) {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "Interfaces cannot be read");
                return None;
            }
        };
        if now == self.places {
            return None;
        }
        for ear in self
            .ears
            .iter_mut()
            .filter_map(|listener| listener.ear.as_mut())
        {
            ear.follow(&now);
        }
        self.places = now;
        Some(self.places.len())
    }

    /// In how many LANs this machine is.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Whether there is a LAN that is heard and spoken to.
    pub(super) fn is_somewhere(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether an address is a neighbour's.
    pub(super) fn has_neighbour(&self, address: IpAddr) -> bool {
        self.places.iter().any(|place| place.contains(address))
    }

    /// Says something on every LAN; whether anybody could have heard it.
    pub(super) fn say(&self, datagram: &[u8]) -> bool {
        let said = |mouth: &Mouth| mouth.say(&self.places, datagram);
        self.mouth.as_ref().map_or(0, said) > 0
    }

    /// Waits for the next thing a neighbour says. Who is no neighbour by the prefixes of the interface is not listened to:
    /// nobody outside can have his address knocked at by what he sends here. May be dropped and called again without losing
    /// anything.
    pub(super) async fn heard(&mut self) -> Said {
        loop {
            self.rest.wait().await;
            let [ear4, ear6] = &mut self.ears;
            let overheard = tokio::select! {
                heard = ear4.hear(&self.places) => heard,
                heard = ear6.hear(&self.places) => heard,
            };
            self.rest.heard += 1;
            if let Some(said) = self.judge(overheard) {
                return said;
            }
        }
    }

    fn judge(&self, overheard: Overheard) -> Option<Said> {
        let place = self
            .places
            .iter()
            .find(|place| place.link == overheard.link)?;
        let source = Underlay::new(overheard.source);
        place.contains(source.ip()).then_some(Said {
            source,
            bytes: overheard.bytes,
        })
    }
}

impl Rest {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            heard: 0,
        }
    }

    async fn wait(&mut self) {
        let over = self.since + Duration::from_secs(1);
        if self.heard >= A_SECOND {
            sleep_until(over).await;
        }
        if Instant::now() >= over {
            *self = Self::new();
        }
    }
}

/// What is heard in one family.
#[derive(Debug)]
struct Listener {
    open: fn() -> io::Result<Ear>,
    /// None: this host has not the family, nobody may listen, or the socket broke.
    ear: Option<Ear>,
    /// When it broke.
    broken: Option<Instant>,
}

impl Listener {
    fn deaf(open: fn() -> io::Result<Ear>) -> Self {
        Self {
            open,
            ear: None,
            broken: None,
        }
    }

    fn begin(&mut self) {
        let opened = (self.open)();
        self.ear = opened
            .inspect_err(|error| tracing::info!(%error, "The LAN cannot be heard in one family"))
            .ok();
    }

    /// Waits for the next thing said in these LANs. An ear that broke is opened anew a little later. May be dropped and
    /// called again without losing anything.
    async fn hear(&mut self, places: &[Place]) -> Overheard {
        loop {
            if let Some(broken) = self.broken {
                sleep_until(broken + MENDED_AFTER).await;
                self.mend(places);
            }
            let Some(ear) = &mut self.ear else {
                if self.broken.is_some() {
                    continue;
                }
                return std::future::pending().await;
            };
            match ear.hear().await {
                Ok(heard) => return heard,
                Err(error) => {
                    tracing::warn!(%error, "The LAN cannot be heard in one family; it is listened to anew");
                    self.ear = None;
                    self.broken = Some(Instant::now());
                }
            }
        }
    }

    fn mend(&mut self, places: &[Place]) {
        match (self.open)() {
            Ok(mut ear) => {
                ear.follow(places);
                self.ear = Some(ear);
                self.broken = None;
            }
            Err(_still) => self.broken = Some(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_ear_that_broke_is_opened_anew() {
        let mut listener = Listener::deaf(Ear::v4);
        let long_ago = Instant::now().checked_sub(MENDED_AFTER);
        listener.broken = long_ago;
        let heard = timeout(Duration::from_millis(50), listener.hear(&[])).await;
        assert!(heard.is_err(), "nobody says anything in no LAN");
        assert!(listener.ear.is_some() && listener.broken.is_none());
    }
}
