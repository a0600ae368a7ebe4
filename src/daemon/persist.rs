//! Carries out a node's writes (protocol §7, design §8): what must outlive a power cut is on the disk before anything
//! that depends on it leaves this machine.

use std::io;

use super::state_dir::NetworkFolder;
use crate::{
    ids::NodeId,
    node::output::Write,
    wire::record::{Kind, Record},
};

/// Whether the node waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It does: something leaves this machine only after it.
    Awaited,
    /// It does not.
    Plain,
}

/// Writes one thing. A record that must outlive a power cut makes the log dirty until [`NetworkFolder::records`] is
/// synced, which the caller does before it lets anything else out.
///
/// # Errors
/// What was there before still counts.
pub(super) fn write(folder: &mut NetworkFolder, write: &Write, urgency: Urgency) -> io::Result<()> {
    match write {
        Write::Row(row) => {
            folder.rows.write(*row)?;
            match urgency {
                Urgency::Awaited => folder.rows.sync(),
                Urgency::Plain => Ok(()),
            }
        }
        Write::Record(record) => {
            let point = match record.kind() {
                Kind::Member => "certificate",
                Kind::Admin => "admin",
                Kind::Network
                | Kind::Peer
                | Kind::Lease
                | Kind::Service
                | Kind::Health
                | Kind::Revoke
                | Kind::Epoch
                | Kind::Policy
                | Kind::Invite
                | Kind::Heartbeat
                | Kind::Unknown(_) => "record",
            };
            folder
                .records
                .append(record.slot(), record.bytes(), point)?;
            match urgency {
                Urgency::Awaited => folder.records.sync(),
                Urgency::Plain => Ok(()),
            }
        }
        // A state write that the node waits for is the spend of an invite.
        Write::Kept(kept) => match urgency {
            Urgency::Awaited => folder.store_kept(kept, "spend"),
            Urgency::Plain => folder.store_kept(kept, "state"),
        },
    }
}

/// Whether a record must be on the disk before anything else is done: own ones, since a seq may not be used twice, and
/// those that say who belongs.
pub(super) fn is_durable(record: &Record, me: NodeId) -> bool {
    match record.kind() {
        Kind::Network | Kind::Admin | Kind::Member | Kind::Revoke | Kind::Epoch => true,
        Kind::Peer
        | Kind::Lease
        | Kind::Service
        | Kind::Health
        | Kind::Policy
        | Kind::Invite
        | Kind::Heartbeat
        | Kind::Unknown(_) => record.signer() == me,
    }
}
