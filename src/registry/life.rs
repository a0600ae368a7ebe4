//! How long records live (protocol §7): in mesh time, which all peers share, and after receipt, by the own clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    ids::{NodeId, Slot},
    time::Moment,
    wire::record::{Body, Record},
};

const DAY_S: u64 = 86_400;

/// The life of a Lease; 12 h, protocol §7.
pub const LEASE_S: u64 = 12 * 3_600;

/// How long the records of a node stay after its Lease ended; 7 days in s, protocol §7. Shorter makes a laptop send
/// all its records again after a weekend.
pub const INERT_S: u64 = 7 * DAY_S;

/// A Lease with less than this left is not offered; 20 min in s, protocol §7. It is what the slowest round of
/// reconciliation takes: with less the dead would come back.
pub const LEASE_TAIL_S: u64 = 20 * 60;

/// How long a tombstone stays; 7 days in s, protocol §7.
pub const TOMBSTONE_S: u64 = 7 * DAY_S;

/// The life of a Heartbeat; 7 days in s, protocol §7.
pub const HEARTBEAT_S: u64 = 7 * DAY_S;

/// How long an epoch stays after the next was made; 400 days in s, protocol §7.
pub const EPOCH_S: u64 = 400 * DAY_S;

/// How long a certificate stays after it ended. It may be honoured while no admin is up and renewed when one is
/// (protocol §8), and its name and address stay issued: as long as an epoch seems enough; measured on nothing.
pub const ENDED_CERTIFICATE_S: u64 = 400 * DAY_S;

/// What can come due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A Lease has been here for the life of a Lease, whatever it says.
    Worn(NodeId),
    /// A node's Lease and all that it kept go.
    Node(NodeId),
    /// One record goes.
    Slot(Slot),
}

/// When something comes due, by either clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadline {
    pub(super) mesh_s: Option<u64>,
    pub(super) at: Option<Moment>,
}

/// Every deadline of a registry.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    by_due: BTreeMap<Due, Deadline>,
    by_mesh: BTreeSet<(u64, Due)>,
    by_moment: BTreeSet<(Moment, Due)>,
}

impl Deadlines {
    pub(super) fn set(&mut self, due: Due, deadline: Deadline) {
        self.clear(due);
        self.by_mesh
            .extend(deadline.mesh_s.map(|mesh_s| (mesh_s, due)));
        self.by_moment.extend(deadline.at.map(|at| (at, due)));
        self.by_due.insert(due, deadline);
    }

    pub(super) fn clear(&mut self, due: Due) {
        if let Some(old) = self.by_due.remove(&due) {
            if let Some(mesh_s) = old.mesh_s {
                self.by_mesh.remove(&(mesh_s, due));
            }
            if let Some(at) = old.at {
                self.by_moment.remove(&(at, due));
            }
        }
    }

    pub(super) fn pop_due(&mut self, mesh_s: u64, at: Moment) -> Option<Due> {
        let by_mesh = self.by_mesh.first().filter(|first| first.0 <= mesh_s);
        let by_moment = self.by_moment.first().filter(|first| first.0 <= at);
        let due = by_mesh
            .map(|first| first.1)
            .or(by_moment.map(|first| first.1))?;
        self.clear(due);
        Some(due)
    }

    /// The first deadline of each clock.
    pub(super) fn next(&self) -> Deadline {
        Deadline {
            mesh_s: self.by_mesh.first().map(|first| first.0),
            at: self.by_moment.first().map(|first| first.0),
        }
    }
}

/// What decides the life of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It stays.
    Forever,
    /// It is its node's Lease.
    Lease,
    /// It goes with its node's Lease.
    WithLease,
    /// It goes at a time of its own.
    Until(Deadline),
}

impl Life {
    /// An Epoch is not decided here: its life depends on the next.
    pub(super) fn of(record: &Record, body: &Body, received: Moment) -> Self {
        use crate::wire::record::Kind;
        let mesh = |mesh_s: u64| {
            Self::Until(Deadline {
                mesh_s: Some(mesh_s),
                at: None,
            })
        };
        match (record.kind(), body) {
            (Kind::Lease, _) => Self::Lease,
            (Kind::Member, Body::Member(member)) => {
                mesh(member.not_after.saturating_add(ENDED_CERTIFICATE_S))
            }
            (Kind::Service, Body::Service(service)) if service.ports.is_empty() => {
                mesh((record.seq() / 1000).saturating_add(TOMBSTONE_S))
            }
            (Kind::Invite, Body::Invite(invite, _)) => mesh(invite.expires),
            (Kind::Heartbeat, Body::Heartbeat(heartbeat)) => Self::Until(Deadline {
                mesh_s: Some(heartbeat.time.saturating_add(HEARTBEAT_S)),
                at: Some(received.after(Duration::from_secs(HEARTBEAT_S))),
            }),
            (
                Kind::Network
                | Kind::Admin
                | Kind::Member
                | Kind::Revoke
                | Kind::Epoch
                | Kind::Policy,
                _,
            ) => Self::Forever,
            (
                Kind::Peer
                | Kind::Service
                | Kind::Health
                | Kind::Invite
                | Kind::Heartbeat
                | Kind::Unknown(_),
                _,
            ) => Self::WithLease,
        }
    }
}
