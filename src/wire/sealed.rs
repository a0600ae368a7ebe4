//! Sealed datagrams: first contact (protocol §2). The bodies, the 44 bytes before them, the padding and the AEAD.

use crate::ids::{Boot, NodeId};

/// A body that a sealed datagram carries, after it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// 1: a member wants a session.
    Knock(Knock),
    /// 2: the holder of a token wants a join session.
    Join(Join),
    /// 3: a datagram of a joiner for an issuer that this member can reach.
    Introduce(Introduce),
    /// 4: a member is on this LAN.
    Beacon(Beacon),
    /// 5: opens a NAT; never answered.
    Punch(Punch),
}

/// A member wants a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Who.
    pub node: NodeId,
    /// Greater than all before it of this node.
    pub stamp: u64,
    /// This run of the sender.
    pub boot: Boot,
    /// 0.
    pub flags: u64,
    /// The sender's Member, its signer's Admin, its Peer record.
    pub records: Vec<Vec<u8>>,
    /// Over receiver ‖ header ‖ nonce ‖ the body without this entry.
    pub signature: [u8; 64],
}

/// The holder of a token wants a join session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Who it will be.
    pub node: NodeId,
    /// Its tunnel key, in ed25519 form.
    pub tunnel: [u8; 32],
    /// Greater than all before it of this node.
    pub stamp: u64,
    /// This run of the sender.
    pub boot: Boot,
    /// Over issuer x25519 key ‖ header ‖ nonce ‖ the body without this entry.
    pub signature: [u8; 64],
}

/// A datagram for somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduce {
    /// A Join or a WireGuard message, types 01–04.
    pub datagram: Vec<u8>,
}

/// A member is on this LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// Who.
    pub node: NodeId,
    /// Greater than all before it of this node.
    pub stamp: u64,
    /// Its UDP port.
    pub port: u16,
    /// This run of the sender.
    pub boot: Boot,
    /// Over header ‖ nonce ‖ the body without this entry.
    pub signature: [u8; 64],
}

/// Opens a NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punch {
    /// Unix ms.
    pub stamp: u64,
}
