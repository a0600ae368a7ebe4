//! What this room asks of the world, and what the DHT answers.

use super::{probing::Party, slots::SlotName};
use crate::addr::Underlay;

/// What this core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the DHT; each question gets one [`Answer`].
    Ask(Ask),
    /// Send this from the main UDP socket.
    Datagram {
        /// Where to.
        to: Underlay,
        /// What.
        bytes: Vec<u8>,
    },
    /// Try a party at an address.
    Probe {
        /// Whom.
        party: Party,
        /// Where.
        to: Underlay,
    },
}

/// A question to the DHT.
#[derive(Clone, PartialEq, Eq)]
pub enum Ask {
    /// The newest value of a slot.
    Get {
        /// Which.
        slot: SlotName,
        /// Its public key.
        key: [u8; 32],
    },
    /// Put a value.
    Put {
        /// Where.
        slot: SlotName,
        /// The key's seed, to sign by.
        seed: [u8; 32],
        /// What.
        value: Vec<u8>,
        /// Its number.
        seq: u64,
        /// Only over a value with this number.
        cas: Option<u64>,
    },
    /// Some nodes of its table.
    Nodes,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Get { slot, .. } => write!(f, "Get({slot:?})"),
            Self::Put { slot, seq, .. } => write!(f, "Put({slot:?}, {seq})"),
            Self::Nodes => f.write_str("Nodes"),
        }
    }
}

/// What the DHT said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Get`].
    Got {
        /// Which slot.
        slot: SlotName,
        /// What stands there; None: nothing was found.
        item: Option<Item>,
    },
    /// To [`Ask::Put`].
    Put {
        /// Which slot.
        slot: SlotName,
        /// What came of it.
        outcome: PutOutcome,
    },
    /// To [`Ask::Nodes`].
    Nodes(Vec<Underlay>),
}

/// A value of the DHT; its signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number.
    pub seq: u64,
    /// What it says.
    pub value: Vec<u8>,
}

/// What came of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// It stands there.
    Done,
    /// Somebody else wrote in between (301, 302).
    Conflict,
    /// No node took it.
    Failed,
}

/// What happened, counted for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots read.
    pub reads: u64,
    /// Slots written.
    pub writes: u64,
    /// Writes that met another's.
    pub conflicts: u64,
    /// Slots found poisoned.
    pub poisoned: u64,
    /// Values that nobody of ours wrote.
    pub unreadable: u64,
    /// Tries at addresses read of.
    pub probes: u64,
    /// Times the own address was asked for.
    pub soundings: u64,
}
