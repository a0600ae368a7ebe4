//! What `identity.{a,b}` and `state.{a,b}` hold, as CBOR of this room's own: disk formats are promises, structs are not.
//!
//! Keys are never given another meaning and never reused; a new field gets a new key and a default, so that yesterday's
//! files load (`tests/compat`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use minicbor::{Decode, Encode, bytes::ByteArray};
use zeroize::Zeroizing;

use crate::{
    ids::NodeId,
    keys::{InviteSecret, RootSeed},
    members::invites::{Invite, InviteRole, Spend},
    node::kept::Kept,
    services::Published,
    tables::Transport,
};

/// The seeds of a peer in one network. Wiped on drop.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub(super) struct Identity {
    /// Of the node key.
    pub(super) node_seed: [u8; 32],
    /// Of the tunnel key.
    pub(super) tunnel_seed: [u8; 32],
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// The body of a file does not say what it should, although its checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its content is not what webmesh writes")]
pub(super) struct Unreadable;

#[derive(Encode, Decode)]
#[cbor(map)]
struct IdentityBody {
    #[n(1)]
    node_seed: ByteArray<32>,
    #[n(2)]
    tunnel_seed: ByteArray<32>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct KeptBody {
    #[n(1)]
    root: Option<ByteArray<16>>,
    #[n(2)]
    invites: Vec<InviteBody>,
    #[n(3)]
    services: Vec<ServiceBody>,
    #[n(4)]
    vips: Vec<VipBody>,
    #[n(5)]
    down: bool,
    #[n(6)]
    floor_s: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct InviteBody {
    #[n(1)]
    secret: ByteArray<16>,
    #[n(2)]
    expires_s: u64,
    #[n(3)]
    uses: u32,
    #[n(4)]
    role: u8,
    #[n(5)]
    offers: Vec<String>,
    #[n(6)]
    cancelled_s: Option<u64>,
    #[n(7)]
    spends: Vec<SpendBody>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SpendBody {
    #[n(1)]
    node: ByteArray<32>,
    #[n(2)]
    name: String,
    #[n(3)]
    at_s: u64,
    #[n(4)]
    admission: ByteArray<8>,
    #[n(5)]
    admitted_s: u64,
    #[n(6)]
    offset4: Option<u32>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ServiceBody {
    #[n(1)]
    name: String,
    #[n(2)]
    instance: String,
    #[n(3)]
    protocol: u8,
    #[n(4)]
    port: u16,
    #[n(5)]
    target: Option<TargetBody>,
    #[n(6)]
    splice_port: Option<u16>,
    #[n(7)]
    tags: Vec<String>,
    #[n(8)]
    weight: u32,
    #[n(9)]
    defined_in: Option<String>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct TargetBody {
    #[cbor(n(1), with = "minicbor::bytes")]
    octets: Vec<u8>,
    #[n(2)]
    port: u16,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct VipBody {
    #[n(1)]
    service: String,
    #[n(2)]
    address: u32,
}

impl Identity {
    /// The body of an identity file.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        encode(IdentityBody {
            node_seed: self.node_seed.into(),
            tunnel_seed: self.tunnel_seed.into(),
        })
    }

    /// Reads the body of an identity file.
    ///
    /// # Errors
    /// It is not one.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        let body: IdentityBody = decode(body)?;
        Ok(Self {
            node_seed: *body.node_seed,
            tunnel_seed: *body.tunnel_seed,
        })
    }
}

/// The body of a state file.
pub(super) fn encode_kept(kept: &Kept) -> Zeroizing<Vec<u8>> {
    encode(KeptBody {
        root: kept.root.as_ref().map(|seed| seed.0.into()),
        invites: kept.invites.iter().map(invite_body).collect(),
        services: kept.services.iter().map(service_body).collect(),
        vips: kept
            .vips
            .iter()
            .map(|(service, address)| VipBody {
                service: service.clone(),
                address: address.to_bits(),
            })
            .collect(),
        down: kept.down,
        floor_s: kept.floor_s,
    })
}

/// Reads the body of a state file.
///
/// # Errors
/// It is not one.
pub(super) fn decode_kept(body: &[u8]) -> Result<Kept, Unreadable> {
    let body: KeptBody = decode(body)?;
    Ok(Kept {
        root: body.root.map(|seed| RootSeed(*seed)),
        invites: body
            .invites
            .into_iter()
            .map(invite_of)
            .collect::<Result<_, _>>()?,
        services: body
            .services
            .into_iter()
            .map(service_of)
            .collect::<Result<_, _>>()?,
        vips: body
            .vips
            .into_iter()
            .map(|vip| (vip.service, Ipv4Addr::from_bits(vip.address)))
            .collect(),
        down: body.down,
        floor_s: body.floor_s,
    })
}

fn encode(body: impl Encode<()>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(minicbor::to_vec(body).expect("writing to memory cannot be refused"))
}

fn decode<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, Unreadable> {
    minicbor::decode(body).map_err(|_not_ours: minicbor::decode::Error| Unreadable)
}

fn invite_body(invite: &Invite) -> InviteBody {
    InviteBody {
        secret: invite.secret.0.into(),
        expires_s: invite.expires_s,
        uses: invite.uses,
        role: match invite.role {
            InviteRole::Member => 0,
            InviteRole::Admin => 1,
        },
        offers: invite.offers.clone(),
        cancelled_s: invite.cancelled_s,
        spends: invite
            .spends
            .iter()
            .map(|spend| SpendBody {
                node: spend.node.0.into(),
                name: spend.name.clone(),
                at_s: spend.at_s,
                admission: spend.admission.into(),
                admitted_s: spend.admitted_s,
                offset4: spend.offset4,
            })
            .collect(),
    }
}

fn invite_of(body: InviteBody) -> Result<Invite, Unreadable> {
    Ok(Invite {
        secret: InviteSecret(*body.secret),
        expires_s: body.expires_s,
        uses: body.uses,
        role: match body.role {
            0 => InviteRole::Member,
            1 => InviteRole::Admin,
            _ => return Err(Unreadable),
        },
        offers: body.offers,
        cancelled_s: body.cancelled_s,
        spends: body
            .spends
            .into_iter()
            .map(|spend| Spend {
                node: NodeId(*spend.node),
                name: spend.name,
                at_s: spend.at_s,
                admission: *spend.admission,
                admitted_s: spend.admitted_s,
                offset4: spend.offset4,
            })
            .collect(),
    })
}

fn service_body(service: &Published) -> ServiceBody {
    ServiceBody {
        name: service.name.clone(),
        instance: service.instance.clone(),
        protocol: service.transport.number(),
        port: service.port,
        target: service.target.map(|target| TargetBody {
            octets: match target.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            port: target.port(),
        }),
        splice_port: service.splice_port,
        tags: service.tags.clone(),
        weight: service.weight,
        defined_in: service.defined_in.clone(),
    }
}

fn service_of(body: ServiceBody) -> Result<Published, Unreadable> {
    Ok(Published {
        name: body.name,
        instance: body.instance,
        transport: match body.protocol {
            6 => Transport::Tcp,
            17 => Transport::Udp,
            _ => return Err(Unreadable),
        },
        port: body.port,
        target: body.target.map(target_of).transpose()?,
        splice_port: body.splice_port,
        tags: body.tags,
        weight: body.weight,
        defined_in: body.defined_in,
    })
}

fn target_of(body: TargetBody) -> Result<SocketAddr, Unreadable> {
    let octets = body.octets.as_slice();
    let ip = if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        IpAddr::from(v4)
    } else if let Ok(v6) = <[u8; 16]>::try_from(octets) {
        IpAddr::from(v6)
    } else {
        return Err(Unreadable);
    };
    Ok(SocketAddr::new(ip, body.port))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A state that uses every field there is.
    pub(crate) fn full() -> Kept {
        Kept {
            root: Some(RootSeed([1; 16])),
            invites: vec![Invite {
                secret: InviteSecret([2; 16]),
                expires_s: 1_800_000_000,
                uses: 3,
                role: InviteRole::Admin,
                offers: vec!["db".into(), "web-*".into()],
                cancelled_s: Some(1_790_000_000),
                spends: vec![Spend {
                    node: NodeId([4; 32]),
                    name: "bo".into(),
                    at_s: 1_780_000_000,
                    admission: [7; 8],
                    admitted_s: 1_775_000_000,
                    offset4: Some(4711),
                }],
            }],
            services: vec![Published {
                name: "web".into(),
                instance: "anna".into(),
                transport: Transport::Udp,
                port: 80,
                target: Some("127.0.0.1:8080".parse().unwrap()),
                splice_port: Some(20_080),
                tags: vec!["v2".into()],
                weight: 100,
                defined_in: None,
            }],
            vips: vec![("web".into(), Ipv4Addr::new(100, 71, 200, 1))],
            down: true,
            floor_s: 1_770_000_000,
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let mut defined = full();
        defined.services[0].defined_in = Some("/etc/webmesh/services.d/web.toml".into());
        for kept in [full(), defined, Kept::default()] {
            assert_eq!(decode_kept(&encode_kept(&kept)).unwrap(), kept);
        }
    }

    #[test]
    fn the_first_state_files_still_load() {
        let state = include_str!("../../tests/compat/state-v1.hex");
        let state = data_encoding::HEXLOWER
            .decode(state.trim().as_bytes())
            .unwrap();
        assert_eq!(decode_kept(&state).unwrap(), full());
        let identity = include_str!("../../tests/compat/identity-v1.hex");
        let identity = data_encoding::HEXLOWER
            .decode(identity.trim().as_bytes())
            .unwrap();
        let expected = Identity {
            node_seed: [5; 32],
            tunnel_seed: [6; 32],
        };
        assert_eq!(Identity::decode(&identity).unwrap(), expected);
    }

    #[test]
    fn a_state_with_keys_of_a_later_build_loads_without_them() {
        let mut bytes = encode_kept(&Kept::default()).to_vec();
        bytes[0] += 1;
        bytes.extend_from_slice(&[0x18, 99, 0x01]);
        assert_eq!(decode_kept(&bytes).unwrap(), Kept::default());
    }
}
