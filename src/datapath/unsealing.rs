//! Data of a transport is opened where it stands, and packets in it are judged: the same for every data thread.

use crate::{
    ids::SessionId,
    packet::{
        ecn::Ecn,
        ip::{self, Header, Ports, TCP},
        tcp,
        turn::{self, Turn},
    },
    time::Moment,
    transport::{Content, NotOpened, Opening},
};

use super::{
    drops::{DropReason, Drops},
    meter::Meter,
    sessions::{Heard, takes_frame},
    train::{Arrived, Train},
    turnaround::View,
};

/// What datagrams of a transport held.
#[derive(Debug)]
pub(super) struct Unsealed {
    /// The newest of them.
    pub(super) heard: Heard,
    /// Packets for the host, and their bytes.
    pub(super) packets: u32,
    pub(super) bytes: usize,
    pub(super) frames: Vec<Vec<u8>>,
}

/// What a packet of a peer's program has to pass before this host gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate<'a> {
    pub(super) view: &'a View,
    pub(super) drops: &'a Drops,
    pub(super) session: SessionId,
    /// What routers wrote on its datagram.
    pub(super) ecn: Ecn,
    /// What fits the path to the peer, and the device.
    pub(super) room: usize,
    pub(super) mtu: usize,
}

/// How a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    AsItIs,
    /// Where it may have been.
    Rewritten,
}

impl Gate<'_> {
    /// Judges a packet with what stands behind it, and makes it what this host is to have. `before` is the last one that
    /// passed as it was: what was found of it need not be found again of others of its conversation.
    fn admit_behind<'a>(
        &self,
        before: &mut Option<&'a [u8]>,
        packet: &'a mut [u8],
    ) -> Result<&'a [u8], DropReason> {
        let known = before.and_then(|before| ip::len_if_alike(before, packet));
        if let Some(len) = known {
            return packet.get(..len).ok_or(DropReason::InNotIp);
        }
        let (packet, passage) = self.judge(packet)?;
        *before = (passage == Passage::AsItIs).then_some(packet);
        Ok(packet)
    }

    /// Judges a packet with what stands behind it, and makes it what this host is to have.
    pub(super) fn admit<'a>(&self, packet: &'a mut [u8]) -> Result<&'a [u8], DropReason> {
        self.judge(packet).map(|(packet, _)| packet)
    }

    fn judge<'a>(&self, packet: &'a mut [u8]) -> Result<(&'a [u8], Passage), DropReason> {
        let SessionId::Pair(peer) = self.session else {
            return Err(DropReason::InJoinPacket);
        };
        let marked = self.ecn.write_into(packet);
        marked.map_err(|_congested| DropReason::InCongested)?;
        let header = Header::parse(packet).map_err(|_malformed| DropReason::InNotIp)?;
        let port = self.view.inbound(peer, &header, packet)?;
        if let Some(port) = port {
            rewrite_destination_port(packet, &header, port)?;
        }
        if self.room < self.mtu {
            tcp::clamp(packet, &header, self.room);
        }
        let packet = packet.get(..header.len).ok_or(DropReason::InNotIp)?;
        // The two of one conversation that need not be alike in this: a mark, and a SYN that is clamped.
        let is_marked = !matches!(self.ecn, Ecn::Deaf | Ecn::Zero);
        let is_clamped = self.room < self.mtu && header.protocol == TCP;
        Ok(match port.is_some() || is_marked || is_clamped {
            true => (packet, Passage::Rewritten),
            false => (packet, Passage::AsItIs),
        })
    }
}

/// Opens datagrams of a transport where they stand; None where none was to be believed. Control frames come as often as their
/// meter allows. What nobody may have is dropped; it is heard all the same.
pub(super) fn unseal<'a>(
    now: Moment,
    (opening, frames): (&mut Opening, &mut Meter),
    gate: &Gate<'_>,
    run: Train<'a>,
    arrived: &mut Arrived<'a>,
) -> Option<Unsealed> {
    let mut unsealed: Option<Unsealed> = None;
    let mut before = None;
    for datagram in run.datagrams() {
        let opened = match opening.open(now, datagram) {
            Ok(opened) => opened,
            Err(why) => {
                gate.drops.count(not_opened(why));
                continue;
            }
        };
        let all = unsealed.get_or_insert(Unsealed {
            heard: Heard::Old,
            packets: 0,
            bytes: 0,
            frames: Vec::new(),
        });
        all.heard = all.heard.max(Heard::from(opened.order));
        let taken = match opened.content {
            Content::Packet(packet) => gate.admit_behind(&mut before, packet).and_then(|packet| {
                arrived.push(packet)?;
                all.packets += 1;
                all.bytes += packet.len();
                Ok(())
            }),
            Content::Frame(_) if !takes_frame(frames, now) => Err(DropReason::SessionFlooding),
            Content::Frame(frame) => {
                all.frames.push(frame.to_vec());
                Ok(())
            }
            Content::Keepalive => Ok(()),
            Content::Other => Err(DropReason::InNotIp),
        };
        if let Err(reason) = taken {
            gate.drops.count(reason);
        }
    }
    unsealed
}

fn rewrite_destination_port(
    packet: &mut [u8],
    header: &Header,
    port: u16,
) -> Result<(), DropReason> {
    let ports = header.ports(packet).ok_or(DropReason::InTinyFragment)?;
    let turn = Turn {
        source: header.source,
        destination: header.destination,
        ports: Ports {
            destination: port,
            ..ports
        },
    };
    turn::turn(packet, header, turn).map_err(|_cannot| DropReason::InTinyFragment)
}

fn not_opened(why: NotOpened) -> DropReason {
    match why {
        NotOpened::CutShort => DropReason::InUnknownDatagram,
        NotOpened::Counter => DropReason::InCounter,
        NotOpened::Replay(_) => DropReason::InReplay,
        NotOpened::Tag => DropReason::InTag,
        NotOpened::Stopped => DropReason::InStopped,
    }
}
