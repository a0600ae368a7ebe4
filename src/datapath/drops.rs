//! Why packets went nowhere: every reason is a counter in `status --json`.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a packet, datagram, frame or event went nowhere. Each variant is one stable label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The label in `status --json`.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// From the TUN: not an IP packet, or its lengths do not fit.
    OutNotIp = "out_not_ip",
    /// From the TUN: it imitates a control frame.
    OutForgedControl = "out_forged_control",
    /// From the TUN: its source is not an own address.
    OutForeignSource = "out_foreign_source",
    /// From the TUN: multicast or broadcast.
    OutMulticast = "out_multicast",
    /// From the TUN: neither in the network's pool nor in its prefix, or an own address.
    OutNoRoute = "out_no_route",
    /// From the TUN: an address of the network that no peer has; answered by ICMP.
    OutUnknownPeer = "out_unknown_peer",
    /// From the TUN: to the resolver or an own service, and nothing there answers it.
    OutRefusedPort = "out_refused_port",
    /// From the TUN: a fragment that would have to be rewritten.
    OutFragment = "out_fragment",
    /// From the TUN: the resolver had no answer to say.
    OutNoAnswer = "out_no_answer",
    /// From the TUN: the peer was found unreachable a moment ago; answered by ICMP.
    OutUnreachable = "out_unreachable",
    /// From the TUN: the queue of its peer or of all peers is full.
    OutQueueFull = "out_queue_full",
    /// From the TUN: its attempt ended, or its session was closed, while it waited.
    OutQueueEnded = "out_queue_ended",
    /// From the TUN: the peer's address is not proven and has had its 64 KiB.
    OutUnproven = "out_unproven",
    /// From the TUN: more than may wait for the first data thread, which has the sessions.
    OutHandoverFull = "out_handover_full",
    /// To the network: more than may wait while the own uplink takes no more.
    OutUplinkFull = "out_uplink_full",
    /// To the network: its flow's queue for the own uplink stands, and its sender is to learn of it (RFC 8289).
    OutCongested = "out_congested",
    /// From the TUN: longer than the device's MTU.
    OutTooLong = "out_too_long",
    /// From the network: no type of ours, or of a length its type does not have.
    InUnknownDatagram = "in_unknown_datagram",
    /// From the network: of a type that this build does not take.
    InUnsupported = "in_unsupported",
    /// From the network: more than may wait for the data thread that it is for.
    InHandoverFull = "in_handover_full",
    /// From the network: longer than our buffers.
    InTruncated = "in_truncated",
    /// From the network: more sealed datagrams than are looked at.
    InSealedRate = "in_sealed_rate",
    /// From the network: a datagram of the DHT from a node that was not asked, or more of them than are looked at.
    InDhtUnasked = "in_dht_unasked",
    /// From the network: an initiation from where nobody knocked.
    InUnexpectedInitiation = "in_unexpected_initiation",
    /// From the network: an initiation that waited for the verdict on its Knock and gave way to a newer one.
    InSuperseded = "in_superseded",
    /// From the network: an initiation or response whose first mac is wrong.
    InMac = "in_mac",
    /// From the network: more handshakes from one source than are answered.
    InHandshakeRate = "in_handshake_rate",
    /// From the network: more handshakes in all than a fifth of a core can do.
    InHandshakeBudget = "in_handshake_budget",
    /// From the network: a handshake message that does not authenticate or was not expected.
    InHandshake = "in_handshake",
    /// From the network: one more handshake, after seven that were not completed, whose keys would take the place of those in
    /// use.
    InHandshakeCrowd = "in_handshake_crowd",
    /// From the network: an index that no state has.
    InUnknownIndex = "in_unknown_index",
    /// From the network: a counter or a time stamp seen before.
    InReplay = "in_replay",
    /// From the network: data that does not authenticate.
    InTag = "in_tag",
    /// From the network: a counter of 2⁶³ or more, or in a transport of 2³² or more.
    InCounter = "in_counter",
    /// From a peer: under keys of a transport that have come to their end.
    InStopped = "in_stopped",
    /// From a peer: a message of the transport exchange that answers nothing, or that is wrong.
    InExchange = "in_exchange",
    /// From a peer: no IP packet.
    InNotIp = "in_not_ip",
    /// From a peer: an IP packet in a join session.
    InJoinPacket = "in_join_packet",
    /// From a peer: a source that no packet may have, or an own address.
    InMartian = "in_martian",
    /// From a peer: a source that is not its own.
    InForeignSource = "in_foreign_source",
    /// From a peer: a destination that is not ours.
    InForeignDestination = "in_foreign_destination",
    /// From a peer: an IPv6 routing header.
    InRoutingHeader = "in_routing_header",
    /// From a peer: straight to the port of a listener of the agent.
    InListenerPort = "in_listener_port",
    /// From a peer: a first fragment too short for its ports.
    InTinyFragment = "in_tiny_fragment",
    /// From a peer: a router met congestion on its way, and its sender notices that by losses only.
    InCongested = "in_congested",
    /// From a peer: more control frames in its session than are taken in.
    SessionFlooding = "session_flooding",
    /// From the network: a frame or a binding of a relay from where nobody was let in, or with a wrong mac.
    InRelayStranger = "in_relay_stranger",
    /// Carried for others: the other end has not said where it is, or not lately.
    RelayOtherAway = "relay_other_away",
    /// Carried for others: more than two relays would lie one behind the other.
    RelayTooDeep = "relay_too_deep",
    /// Carried for others: more than `[relay] limit` lets through.
    RelayQuota = "relay_quota",
    /// A datagram for a relay or a stream that is no more.
    NoSuchPath = "no_such_path",
    /// A datagram for a stream whose queue is full.
    StreamFull = "stream_full",
    /// A control frame for a peer with which no session stands.
    NoSession = "no_session",
    /// A control frame too long to be sealed.
    FrameTooLong = "frame_too_long",
    /// A datagram that the socket did not take.
    SendFailed = "send_failed",
    /// A packet that the TUN did not take.
    TunFailed = "tun_failed",
    /// More to send at once than there are buffers.
    NoBuffer = "no_buffer",
    /// An event that the control plane was too slow for.
    EventFull = "event_full",
    /// A state that was not made because the clock is before 1970.
    ClockBefore1970 = "clock_before_1970",
}

/// One counter per reason. Written by one thread, read by anybody.
#[derive(Debug)]
pub struct Drops(Vec<AtomicU64>);

impl Default for Drops {
    fn default() -> Self {
        Self(DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Drops {
    /// Counts one. Only the data thread calls this: load and store need no lock between them then.
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub fn add(&self, reason: DropReason, several: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            let before = counter.load(Ordering::Relaxed);
            counter.store(before.wrapping_add(several), Ordering::Relaxed);
        }
    }

    /// How often a reason was met.
    pub fn met(&self, reason: DropReason) -> u64 {
        self.0
            .get(reason as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Every reason that was met, with its count.
    pub fn snapshot(&self) -> Vec<(DropReason, u64)> {
        DropReason::ALL
            .iter()
            .map(|reason| (*reason, self.met(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_snake_case_and_differ() {
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(labels.iter().all(|label| label.chars().all(fits)));
        labels.sort_unstable();
        let all = labels.len();
        labels.dedup();
        assert_eq!(labels.len(), all);
    }

    #[test]
    fn a_snapshot_names_what_was_met() {
        let drops = Drops::default();
        drops.add(DropReason::InTag, 2);
        drops.count(DropReason::ClockBefore1970);
        assert_eq!(
            drops.snapshot(),
            [(DropReason::InTag, 2), (DropReason::ClockBefore1970, 1)]
        );
    }
}
