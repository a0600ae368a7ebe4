//! A network is founded: its root, its first admin, the first records (protocol §8).

use ipnet::Ipv4Net;

use crate::{
    addr::AddressPlan,
    ids::NetworkId,
    keys::{NetSecret, NodeKey, RootSeed, Word},
    members::admission,
    node::{Restored, admitting::ALL_RIGHTS, kept::Kept},
    time::Now,
    wire::record::{self, Body, Draft, Record, Unsignable},
};

/// What a person decided about a new network, and what the shell drew for it.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The network's name, a label.
    pub name: String,
    /// The domain of its names.
    pub domain: String,
    /// The first peer's name, a label.
    pub peer: String,
    /// The IPv4 pool, if one was chosen.
    pub pool4: Option<Ipv4Net>,
    /// Drawn: the root.
    pub root: RootSeed,
    /// Drawn: epoch 0.
    pub secret: NetSecret,
    /// Drawn: this admission.
    pub admission: [u8; 8],
}

/// The first records and the kept state of a network whose first admin has `key`.
///
/// # Errors
/// A name or domain that does not fit a record.
pub fn found(
    now: Now,
    founding: Founding,
    key: &NodeKey,
) -> Result<(NetworkId, Restored), Unsignable> {
    let root = founding.root.key();
    let network = root.network_id();
    let pool4 = founding
        .pool4
        .unwrap_or_else(|| AddressPlan::default_pool4(network));
    let plan = AddressPlan { network, pool4 };
    let me = key.id();
    let facts = record::Network {
        name: founding.name,
        domain: founding.domain,
        pool4,
        created: now.unix_s(),
    };
    let member = record::Member {
        name: founding.peer,
        admission: founding.admission,
        admitted_at: now.unix_s(),
        offset4: Some(u64::from(plan.offset4(me, 0))),
        groups: None,
        role: 0,
        offers: Some(vec!["*".to_owned()]),
        not_after: now.unix_s() + admission::CERTIFICATE_S,
        routes: None,
        guests: None,
    };
    let by_root = |subject: [u8; 32], body: Body| -> Result<Record, Unsignable> {
        let draft = Draft {
            seq: now.unix_ms.max(1),
            subject,
            signer: root.public(),
            body,
        };
        draft.sign_with(|bytes| root.sign(Word::Record, &[bytes]))
    };
    let by_me = |subject: [u8; 32], body: Body| -> Result<Record, Unsignable> {
        let draft = Draft {
            seq: now.unix_ms.max(1),
            subject,
            signer: me.0,
            body,
        };
        draft.sign_with(|bytes| key.sign(Word::Record, &network.0, &[bytes]))
    };
    let records = vec![
        by_root(root.public(), Body::Network(facts))?,
        by_root(me.0, Body::Admin(record::Admin { rights: ALL_RIGHTS }))?,
        by_me(me.0, Body::Member(member))?,
        by_me(
            root.public(),
            Body::Epoch(record::Epoch {
                n: 0,
                secret: founding.secret.0,
            }),
        )?,
    ];
    let kept = Kept {
        root: Some(founding.root),
        ..Kept::default()
    };
    Ok((
        network,
        Restored {
            records,
            rows: Vec::new(),
            kept,
        },
    ))
}
