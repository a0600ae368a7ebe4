//! Why the path to a peer is what it is, and the one thing that would help (design §9). Pure: facts in, a judgement out.
//!
//! For people: no attempt is made or left out by it. It says what the facts show and no more: where they leave a choice
//! the cause is [`Cause::NoAnswer`], not a guess.

use super::{
    class::Class,
    nat::Nat,
    view::{NotTried, TriedState},
};
use crate::{
    addr::Underlay,
    ids::NodeId,
    time::{Moment, Now},
};

/// Why the path is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Both are on one local network.
    Lan,
    /// The peer is reached from outside.
    OpenThere,
    /// This machine is reached from outside.
    OpenHere,
    /// The peer has a public address and no NAT.
    BareThere,
    /// This machine has one, and no NAT.
    BareHere,
    /// Both sent at once, and each NAT or firewall took the other's packet for an answer.
    Punched,
    /// Better paths are being tried at this moment.
    Trying,
    /// The direct path failed a moment ago.
    JustFailed,
    /// Each has only the IP version that the other has not.
    NoCommonVersion,
    /// No UDP gets out, or comes back, here.
    UdpBlockedHere,
    /// The same at the peer.
    UdpBlockedThere,
    /// Both NATs give a new port to every destination.
    BothHard,
    /// This machine's does, and the peer's lets in only whom it knows.
    HardHere,
    /// The peer's does, and this machine's lets in only whom it knows.
    HardThere,
    /// This machine has a public address, and its firewall lets in only whom it knows; the peer's NAT is a hard one.
    FirewallHere,
    /// The peer has a public address and answers nothing that is sent there.
    FirewallThere,
    /// The router here lets others in, and is behind another NAT itself.
    DoubleNat,
    /// Nobody has said where the peer could be reached from here.
    NoAddress,
    /// Pings were sent and none was answered: a NAT or a firewall that is not known here drops them.
    NoAnswer,
    /// This machine reaches nobody.
    Offline,
    /// The peer is there, no direct path was found, and nobody carries.
    NoRelay,
    /// The path that stood fails, and other ways are being looked for.
    Lost,
    /// The DHT is being asked where the peer is.
    Meeting,
    /// Somebody who may have a session with the peer was asked to call it, and nothing came of it yet.
    Calling,
    /// Nobody at all was heard of late: it may be this machine that is cut off.
    Silence,
    /// The peer has said good-bye.
    Left,
    /// The peer answers nobody.
    PeerOff,
    /// Nobody wanted the peer, so no session stands.
    Unasked,
    /// The peer is out of the network.
    Revoked,
}

/// The one thing that would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A port mapping at either router.
    PortMapping,
    /// A port mapping at the peer's router: the one here is of no use.
    PortMappingThere,
    /// UDP let out here.
    UdpHere,
    /// UDP let out at the peer.
    UdpThere,
    /// UDP let in by the firewall of this machine.
    FirewallHere,
    /// The same at the peer.
    FirewallThere,
    /// The other IP version here, or at the peer.
    CommonVersion,
    /// A way out for this machine.
    Online,
    /// The peer switched on, and online.
    PeerOn,
    /// That, or a way out for this machine.
    EitherOn,
    /// A peer with a public address that carries for others.
    Relay,
    /// Time.
    Patience,
}

/// What is known when somebody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// This machine.
    pub here: Here,
    /// The peer.
    pub there: There,
    /// Where its data goes; none: no session stands that has a path.
    pub taken: Option<Taken>,
    /// Every address at which it may be, and what came of each.
    pub addresses: Vec<Address>,
}

/// This machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// What its NAT does.
    pub nat: Nat,
    /// The IP versions it has.
    pub versions: Versions,
    /// Whether somebody outside has reached it.
    pub is_open: bool,
    /// Whether UDP gets out.
    pub udp: Udp,
    /// Whether its router is behind another one.
    pub is_behind_two: bool,
    /// Sessions that stand, with whomever.
    pub sessions: usize,
    /// Whether anybody but the peer was heard of late.
    pub others: Others,
    /// Whether the DHT is being asked for peers.
    pub asks_dht: bool,
}

/// The peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct There {
    /// What its NAT does.
    pub nat: Nat,
    /// The IP versions of its addresses.
    pub versions: Versions,
    /// Whether it says that it is reached from outside.
    pub is_open: bool,
    /// Whether its IPv4 address is a public one, with no NAT before it.
    pub is_bare: bool,
    /// Whether it is a member still.
    pub is_member: bool,
    /// What came of looking for it.
    pub search: Search,
}

/// What came of looking for a peer since it was reached last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Nobody did.
    None,
    /// It said good-bye, and has not answered since.
    Left,
    /// It does not answer by the path that stood, and nothing came of others yet.
    Begun,
    /// It did not answer.
    InVain,
    /// Nor by the hand of somebody who may have a session with it.
    ByOthers,
    /// It answered by somebody else's hand.
    Answered,
}

/// Which IP versions a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// IPv4.
    pub v4: bool,
    /// IPv6, beyond its own site.
    pub v6: bool,
}

/// Whether datagrams come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udp {
    /// A session over UDP stands.
    Works,
    /// Sessions stand, none of them over UDP.
    Blocked,
    /// No session stands.
    Unknown,
}

/// Whether anybody else is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Somebody was a moment ago.
    Heard,
    /// Nobody was.
    Silent,
}

/// Where data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What kind of path.
    pub class: Class,
    /// To which socket, if it is direct.
    pub endpoint: Option<Underlay>,
}

/// An address at which the peer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Which.
    pub address: Underlay,
    /// Who says so.
    pub source: Source,
    /// What came of it.
    pub outcome: Outcome,
}

/// Who says that a peer is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The peer: it is its address in its own LAN.
    OwnLan,
    /// The peer: an IPv6 address.
    OwnV6,
    /// The peer: an address that the world may use.
    Own,
    /// Others, who saw it there.
    Seen(Vec<NodeId>),
    /// A session stood there, or packets came from there.
    Itself,
}

/// What came of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Data goes there.
    Taken,
    /// It answers, and another path is better.
    Spare,
    /// It was sent so many Pings or handshakes, and does not answer.
    NoAnswer(u32),
    /// It is being tried.
    Trying,
    /// It failed while data went there, and is not tried before this.
    Barred(Moment),
    /// It had its share of Pings, and gets the next one then.
    HeldBack(u32, Moment),
    /// Nothing was sent there in this session: its share was spent before, and it gets the first one then.
    Waiting(Moment),
    /// This machine has no IPv4.
    NoV4,
    /// This machine has no IPv6.
    NoV6,
    /// It is an address of another site's LAN.
    OtherSite,
    /// Nobody but the peer has seen it there, so it might be anybody's.
    Unattested,
    /// There are enough others.
    Many,
    /// It was not needed.
    Unneeded,
}

/// What the facts say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Why it is so.
    pub cause: Cause,
    /// What would help, if anything is wrong.
    pub remedy: Option<Remedy>,
    /// When a better path is tried next, if nothing changes; none: when either has a new address.
    pub next_try: Option<Moment>,
}

impl Facts {
    /// The peer was asked by the path that stands and does not answer: it is as if there were none.
    pub fn forget_path(&mut self) {
        self.taken = None;
        if self.there.search == Search::None {
            self.there.search = Search::Begun;
        }
    }

    /// What they say.
    pub fn judge(&self) -> Judgement {
        let cause = match self.taken {
            Some(taken) if taken.class <= Class::Direct => self.why_direct(taken),
            Some(taken) => self.why_indirect(taken.class),
            None => self.why_unreached(),
        };
        let next = self.addresses.iter().filter_map(|one| one.outcome.until());
        Judgement {
            cause,
            remedy: self.remedy(cause),
            next_try: next.min(),
        }
    }

    fn why_direct(&self, taken: Taken) -> Cause {
        if taken.class == Class::Lan {
            Cause::Lan
        } else if self.there.is_open {
            Cause::OpenThere
        } else if self.here.is_open {
            Cause::OpenHere
        } else if self.there.is_bare {
            Cause::BareThere
        } else if self.here.nat == Nat::None {
            Cause::BareHere
        } else {
            Cause::Punched
        }
    }

    fn why_indirect(&self, class: Class) -> Cause {
        let (here, there) = (&self.here, &self.there);
        if here.udp == Udp::Blocked {
            return Cause::UdpBlockedHere;
        }
        if class == Class::Stream {
            return Cause::UdpBlockedThere;
        }
        if !here.versions.meets(there.versions) {
            return Cause::NoCommonVersion;
        }
        let has =
            |wanted: fn(Outcome) -> bool| self.addresses.iter().any(|one| wanted(one.outcome));
        if has(|outcome| outcome == Outcome::Trying) {
            return Cause::Trying;
        }
        if has(|outcome| matches!(outcome, Outcome::Barred(_))) {
            return Cause::JustFailed;
        }
        let is_silent =
            has(|outcome| matches!(outcome, Outcome::NoAnswer(_) | Outcome::HeldBack(..)));
        let is_seen = self.addresses.iter().any(|one| one.address.is_public());
        match (here.nat, there.nat) {
            (Nat::Hard, Nat::Hard) => Cause::BothHard,
            _ if here.is_behind_two => Cause::DoubleNat,
            _ if there.is_bare && is_silent => Cause::FirewallThere,
            (Nat::None, Nat::Hard) if !here.is_open => Cause::FirewallHere,
            // Where nobody has seen its UDP, the NAT here is not known to be what is in the way.
            (Nat::Hard, _) if is_seen => Cause::HardHere,
            (Nat::Easy | Nat::Unknown, Nat::Hard) => Cause::HardThere,
            _ if is_silent => Cause::NoAnswer,
            _ => Cause::NoAddress,
        }
    }

    fn why_unreached(&self) -> Cause {
        let (here, there) = (&self.here, &self.there);
        if !there.is_member {
            Cause::Revoked
        } else if here.versions == Versions::default() {
            Cause::Offline
        } else if there.search == Search::Answered {
            Cause::NoRelay
        } else if there.search == Search::Left {
            Cause::Left
        } else if there.search == Search::None {
            Cause::Unasked
        } else if here.sessions == 0 && !here.versions.meets(there.versions) {
            Cause::NoCommonVersion
        } else if here.asks_dht {
            Cause::Meeting
        } else if here.others == Others::Silent {
            Cause::Silence
        } else if there.search == Search::Begun {
            Cause::Lost
        } else if there.search == Search::ByOthers {
            Cause::Calling
        } else {
            Cause::PeerOff
        }
    }

    fn remedy(&self, cause: Cause) -> Option<Remedy> {
        match cause {
            Cause::Lan
            | Cause::OpenThere
            | Cause::OpenHere
            | Cause::BareThere
            | Cause::BareHere
            | Cause::Punched
            | Cause::Unasked => None,
            Cause::Trying | Cause::JustFailed | Cause::Lost | Cause::Meeting | Cause::Calling => {
                Some(Remedy::Patience)
            }
            Cause::NoCommonVersion => Some(Remedy::CommonVersion),
            Cause::UdpBlockedHere => Some(Remedy::UdpHere),
            Cause::UdpBlockedThere | Cause::NoAddress => Some(Remedy::UdpThere),
            Cause::FirewallHere => Some(Remedy::FirewallHere),
            Cause::FirewallThere => Some(Remedy::FirewallThere),
            Cause::DoubleNat => Some(Remedy::PortMappingThere),
            Cause::BothHard if self.here.is_behind_two => Some(Remedy::PortMappingThere),
            Cause::BothHard | Cause::HardHere | Cause::HardThere | Cause::NoAnswer => {
                Some(Remedy::PortMapping)
            }
            Cause::Silence => Some(Remedy::EitherOn),
            Cause::Offline => Some(Remedy::Online),
            Cause::NoRelay => Some(Remedy::Relay),
            Cause::Left | Cause::PeerOff => Some(Remedy::PeerOn),
            Cause::Revoked => None,
        }
    }
}

impl Versions {
    /// Those of these addresses. One that is of use in its own LAN alone counts for IPv4, where a NAT leads out of it.
    pub fn of<'a>(addresses: impl IntoIterator<Item = &'a Underlay>) -> Self {
        let mut versions = Self::default();
        for address in addresses {
            versions.v4 |= address.ip().is_ipv4();
            versions.v6 |= address.ip().is_ipv6() && address.is_public();
        }
        versions
    }

    /// Whether two machines have one in common; where nothing is known of one of them they may.
    fn meets(self, other: Self) -> bool {
        let is_unknown = self == Self::default() || other == Self::default();
        is_unknown || self.v4 && other.v4 || self.v6 && other.v6
    }
}

impl Outcome {
    /// What the path agent says of a path it has tried.
    pub fn of_tried(state: TriedState, sent: u32) -> Self {
        match state {
            TriedState::Chosen => Self::Taken,
            TriedState::Trying => Self::Trying,
            TriedState::Spare | TriedState::Resting => Self::Spare,
            TriedState::Barred(until) => Self::Barred(until),
            TriedState::Silent if sent == 0 => Self::Unneeded,
            TriedState::Silent => Self::NoAnswer(sent),
            TriedState::HeldBack(until) if sent == 0 => Self::Waiting(until),
            TriedState::HeldBack(until) => Self::HeldBack(sent, until),
        }
    }

    /// What the path agent says of one it has not.
    pub fn of_not_tried(why: NotTried) -> Self {
        match why {
            NotTried::Unattested => Self::Unattested,
            NotTried::Many => Self::Many,
        }
    }

    fn until(self) -> Option<Moment> {
        match self {
            Self::Barred(until) | Self::HeldBack(_, until) | Self::Waiting(until) => Some(until),
            Self::Taken
            | Self::Spare
            | Self::NoAnswer(_)
            | Self::Trying
            | Self::NoV4
            | Self::NoV6
            | Self::OtherSite
            | Self::Unattested
            | Self::Many
            | Self::Unneeded => None,
        }
    }
}

impl Judgement {
    /// In how many seconds a better path is tried, if that is known.
    pub fn next_try_s(&self, now: Now) -> Option<u64> {
        self.next_try.map(|at| at.since(now.at).as_secs())
    }
}

#[cfg(test)]
mod tests;
