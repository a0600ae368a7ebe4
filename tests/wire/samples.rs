//! One valid sample of every layout, from fixed seeds, each with a name. The golden vectors are made of these.

use webmesh::{
    addr::{AddressPlan, Underlay},
    hash::{Use, hash},
    ids::{Boot, JoinId, Slot, Version},
    keys::{
        InviteSecret, NetSecret, NodeKey, RootKey, RootSeed, SlotKey, Token, TunnelKey, Word,
        pair_psk, people_id,
    },
    wire::{
        datagram::{RelayBinding, RelayStep, Relayed},
        frame,
        message::{self, Message},
        reaching::{self, Reaching, Relaying},
        record::{self, Body, Draft, Record},
        sealed::{self, Header, Kind, Sealed, SignedPart},
        slot::{self, Where},
    },
};

pub(crate) type Named = (&'static str, Vec<u8>);

pub(crate) const SEQ: u64 = 1_800_000_000_123;
pub(crate) const NONCE: [u8; 24] = [7; 24];
const BOOT: Boot = Boot([0xb0, 1, 2, 3, 4, 5, 6, 7]);

pub(crate) fn root() -> RootKey {
    RootSeed([1; 16]).key()
}

pub(crate) fn admin() -> NodeKey {
    NodeKey::from_seed([2; 32])
}

pub(crate) fn alice() -> NodeKey {
    NodeKey::from_seed([3; 32])
}

pub(crate) fn bob() -> NodeKey {
    NodeKey::from_seed([4; 32])
}

pub(crate) fn tunnel() -> TunnelKey {
    TunnelKey::from_seed([5; 32])
}

pub(crate) fn secret() -> NetSecret {
    NetSecret([6; 32])
}

pub(crate) fn invite() -> InviteSecret {
    InviteSecret([8; 16])
}

pub(crate) fn network() -> [u8; 32] {
    root().network_id().0
}

pub(crate) fn v4() -> Underlay {
    Underlay::new("192.0.2.7:41820".parse().unwrap())
}

pub(crate) fn v6() -> Underlay {
    Underlay::new("[2001:db8::7]:41820".parse().unwrap())
}

pub(crate) fn bodies() -> Vec<(&'static str, [u8; 32], Body)> {
    let (root, admin, alice) = (root().public(), admin().id().0, alice().id().0);
    vec![
        ("network", root, network_body()),
        ("admin", admin, Body::Admin(record::Admin { rights: 7 })),
        ("member", alice, member_body()),
        ("member-least", alice, least_member_body()),
        ("peer", alice, peer_body()),
        (
            "lease",
            alice,
            Body::Lease(record::Lease {
                incarnation: BOOT,
                expires: 1_800_043_200,
                left: false,
            }),
        ),
        (
            "lease-left",
            alice,
            Body::Lease(record::Lease {
                incarnation: BOOT,
                expires: 1_800_043_200,
                left: true,
            }),
        ),
        ("service", alice, service_body()),
        ("service-tombstone", alice, tombstone_body()),
        (
            "revoke",
            alice,
            Body::Revoke(record::Revoke {
                since: 1_800_000_000,
            }),
        ),
        (
            "epoch",
            root,
            Body::Epoch(record::Epoch {
                n: 0x0102_0304,
                secret: [6; 32],
            }),
        ),
        (
            "invite",
            admin,
            Body::Invite(
                record::Invite {
                    introduce: [9; 32],
                    expires: 1_800_003_600,
                },
                invite().join_id(),
            ),
        ),
        (
            "heartbeat",
            admin,
            Body::Heartbeat(record::Heartbeat {
                time: 1_800_000_000,
                count: 3,
                hash: [10; 32],
                policy: SEQ,
            }),
        ),
    ]
}

fn network_body() -> Body {
    Body::Network(record::Network {
        name: "home".into(),
        domain: "home.internal".into(),
        pool4: "100.99.0.0/16".parse().unwrap(),
        created: 1_800_000_000,
    })
}

fn member_body() -> Body {
    Body::Member(record::Member {
        name: "alice".into(),
        admission: [11; 8],
        admitted_at: 1_800_000_000,
        offset4: Some(4711),
        groups: Some(vec!["staff".into(), "ops".into()]),
        role: 0,
        offers: Some(vec!["*".into()]),
        not_after: 1_807_776_000,
        routes: Some(vec![vec![10, 0, 0, 0, 8]]),
        guests: Some(2),
    })
}

fn least_member_body() -> Body {
    Body::Member(record::Member {
        name: "alice".into(),
        admission: [11; 8],
        admitted_at: 1_800_000_000,
        offset4: None,
        groups: None,
        role: 0,
        offers: None,
        not_after: 1_807_776_000,
        routes: None,
        guests: None,
    })
}

fn peer_body() -> Body {
    Body::Peer(record::Peer {
        tunnel: tunnel().public(),
        cross: tunnel().cross_sign(alice().id(), &network()),
        wire_min: 1,
        wire_max: 1,
        features: 1,
        flags: 3,
        addresses: Some(vec![v4(), v6()]),
    })
}

fn service_body() -> Body {
    Body::Service(record::Service {
        service: "web".into(),
        instance: "alice".into(),
        ports: vec![6 << 16 | 80, 17 << 16 | 443],
        spliced: true,
        tags: Some(vec!["v2".into()]),
        weight: Some(50),
        zone: Some("attic".into()),
        meta: Some(vec!["path".into(), "/".into()]),
    })
}

fn tombstone_body() -> Body {
    Body::Service(record::Service {
        service: "web".into(),
        instance: "alice".into(),
        ports: vec![],
        spliced: false,
        tags: None,
        weight: None,
        zone: None,
        meta: None,
    })
}

/// The record of a body, signed by whom protocol §7 names.
pub(crate) fn record_of(subject: [u8; 32], body: Body) -> Record {
    let by_root = |bytes: &[u8]| root().sign(Word::Record, &[bytes]);
    let by = |key: NodeKey| move |bytes: &[u8]| key.sign(Word::Record, &network(), &[bytes]);
    let draft = |signer| Draft {
        seq: SEQ,
        subject,
        signer,
        body: body.clone(),
    };
    match &body {
        Body::Network(_) | Body::Admin(_) => draft(root().public()).sign_with(by_root).unwrap(),
        Body::Member(_)
        | Body::Revoke(_)
        | Body::Epoch(_)
        | Body::Invite(..)
        | Body::Heartbeat(_) => draft(admin().id().0).sign_with(by(admin())).unwrap(),
        Body::Peer(_) | Body::Lease(_) | Body::Service(_) | Body::Opaque => {
            draft(alice().id().0).sign_with(by(alice())).unwrap()
        }
    }
}

/// An envelope written field by field, without the code under test.
pub(crate) struct Envelope {
    pub(crate) kind: u8,
    pub(crate) subject: [u8; 32],
    pub(crate) signer: Option<[u8; 32]>,
    pub(crate) key: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Envelope {
    pub(crate) fn unsigned(&self) -> Vec<u8> {
        let mut out = vec![1, self.kind, u8::from(self.signer.is_none()), 0];
        out.extend_from_slice(&SEQ.to_le_bytes());
        out.extend_from_slice(&self.subject);
        out.extend_from_slice(self.signer.as_ref().map_or(&[], |signer| &signer[..]));
        out.push(u8::try_from(self.key.len()).unwrap());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&u16::try_from(self.body.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&self.body);
        out
    }

    pub(crate) fn signed_by(&self, key: &NodeKey) -> Vec<u8> {
        let mut out = self.unsigned();
        let signature = key.sign(Word::Record, &network(), &[&out]);
        out.extend_from_slice(&signature);
        out
    }
}

/// The CBOR body of a record, cut out of it.
pub(crate) fn body_bytes(record: &Record) -> Vec<u8> {
    let signed = record.signed_bytes();
    let head = if record.signer() == record.node() {
        44
    } else {
        76
    };
    signed[head + 1 + record.key().len() + 2..].to_vec()
}

/// A body with one more entry at its end.
pub(crate) fn with_entry(mut body: Vec<u8>, entry: &[u8]) -> Vec<u8> {
    assert!(
        (0xa0..0xb7).contains(&body[0]),
        "a map of fewer than 23 entries"
    );
    body[0] += 1;
    body.extend_from_slice(entry);
    body
}

fn odd_records() -> Vec<Named> {
    let member = body_bytes(&record_of(alice().id().0, least_member_body()));
    let envelope = |kind, body: Vec<u8>, signer| Envelope {
        kind,
        subject: alice().id().0,
        signer,
        key: vec![],
        body,
    };
    let by_admin = Some(admin().id().0);
    let lease = [
        &[0xa4, 1, 0x48][..],
        &BOOT.0,
        &[2, 0x1a, 0x6b, 0x4a, 0x02, 0xc0, 3, 0, 4, 0x18, 99],
    ]
    .concat();
    let mut unknown = envelope(200, b"not even CBOR".to_vec(), None);
    unknown.key = b"any".to_vec();
    vec![
        (
            "member-unknown-critical-key",
            envelope(3, with_entry(member, &[0x18, 133, 1]), by_admin).signed_by(&admin()),
        ),
        (
            "lease-unknown-key",
            envelope(5, lease, None).signed_by(&alice()),
        ),
        ("unknown-kind", unknown.signed_by(&alice())),
        ("health", envelope(7, vec![0xa0], None).signed_by(&alice())),
        (
            "policy",
            envelope(10, vec![0xa0], by_admin).signed_by(&admin()),
        ),
    ]
}

pub(crate) fn records() -> Vec<Named> {
    let made = bodies()
        .into_iter()
        .map(|(name, subject, body)| (name, record_of(subject, body).bytes().to_vec()));
    made.chain(odd_records()).collect()
}

pub(crate) fn messages() -> Vec<(&'static str, Message)> {
    [
        session_messages(),
        gossip_messages(),
        membership_messages(),
        reaching_messages(),
        relaying_messages(),
    ]
    .concat()
}

fn session_messages() -> Vec<(&'static str, Message)> {
    let least = message::Hello {
        heard: false,
        observed: None,
        ..hello()
    };
    let ping = |pad| {
        Message::Ping(message::Ping {
            nonce: [12; 8],
            path: 3,
            pad,
        })
    };
    let pong = |observed| {
        Message::Pong(message::Pong {
            nonce: [12; 8],
            path: 3,
            observed,
        })
    };
    vec![
        ("hello", Message::Hello(hello())),
        ("hello-least", Message::Hello(least)),
        ("ping", ping(None)),
        ("ping-padded", ping(Some(vec![0; 1300]))),
        ("pong", pong(Some(v6()))),
        ("pong-relayed", pong(None)),
        ("bye", Message::Bye(message::Bye { reason: 2 })),
        ("introduced", Message::Introduced(introduced())),
    ]
}

fn gossip_messages() -> Vec<(&'static str, Message)> {
    let entries = vec![
        (Slot([1; 8]), Version(2)),
        (Slot([3; 8]), Version(u64::MAX)),
    ];
    let slots = vec![Slot([1; 8]), Slot([2; 8])];
    let lease = record_of(alice().id().0, bodies()[5].2.clone())
        .bytes()
        .to_vec();
    let sums = Box::new(std::array::from_fn(|i| i.to_le_bytes()[0]));
    let part = message::Slots {
        bucket: 63,
        part: 0,
        last: 1,
        entries: entries.clone(),
    };
    vec![
        (
            "records",
            Message::Records(message::Records {
                records: vec![lease.clone(), lease],
            }),
        ),
        ("advert", Message::Advert(message::Advert { entries })),
        ("want", Message::Want(message::Want { slots })),
        ("digest", Message::Digest(message::Digest { sums })),
        ("slots", Message::Slots(part)),
        ("link", Message::Link(message::Link { yes: true })),
        ("unlink", Message::Unlink(message::Unlink { reason: 1 })),
    ]
}

fn membership_messages() -> Vec<(&'static str, Message)> {
    let slots = vec![Slot([1; 8]), Slot([2; 8])];
    let refused = |code, name: Option<&str>, time| {
        Message::Refused(message::Refused {
            code,
            name: name.map(str::to_owned),
            time,
        })
    };
    vec![
        (
            "redeem",
            Message::Redeem(message::Redeem {
                name: "carol".into(),
                exact: true,
            }),
        ),
        ("granted", Message::Granted(message::Granted { slots })),
        ("renew", Message::Renew),
        ("refused", refused(1, Some("carol"), Some(1_800_000_000))),
        ("refused-least", refused(6, None, None)),
    ]
}

fn reaching_messages() -> Vec<(&'static str, Message)> {
    let (caller, called) = (alice().id(), bob().id());
    let call = reaching::Call {
        to: called,
        from: caller,
        ttl: 2,
        datagrams: vec![vec![0x30; 176], initiation()],
        addresses: vec![v4(), v6()],
        seen: vec![v4()],
    };
    let answer = reaching::Answer {
        to: caller,
        from: called,
        datagrams: vec![vec![0x02; 92]],
        addresses: vec![v6()],
        seen: Vec::new(),
    };
    let candidates = reaching::Candidates {
        addresses: vec![v4()],
    };
    let knock_at = reaching::KnockAt {
        node: caller,
        address: v4(),
    };
    let located = reaching::Located {
        node: called,
        at: bob().id(),
    };
    let finding = [
        ("call", Reaching::Call(call)),
        ("answer", Reaching::Answer(answer)),
        (
            "not-here",
            Reaching::NotHere(reaching::NotHere { node: called }),
        ),
        (
            "locate",
            Reaching::Locate(reaching::Locate { node: called }),
        ),
        ("located", Reaching::Located(located)),
        ("candidates", Reaching::Candidates(candidates)),
        ("dial-back", Reaching::DialBack),
        ("knock-at", Reaching::KnockAt(knock_at)),
        ("guess", Reaching::Guess),
    ];
    finding
        .into_iter()
        .map(|(name, message)| (name, Message::Reaching(message)))
        .collect()
}

fn relaying_messages() -> Vec<(&'static str, Message)> {
    let other = bob().id();
    let offer = reaching::RelayOffer {
        other,
        id: [1, 2, 3, 4],
        key: [5; 32],
    };
    let closed = reaching::RelayClosed { other, reason: 2 };
    let ways = [
        (
            "relay-request",
            Relaying::Request(reaching::RelayRequest { to: other }),
        ),
        ("relay-offer", Relaying::Offer(offer)),
        ("relay-closed", Relaying::Closed(closed)),
    ];
    ways.into_iter()
        .map(|(name, message)| (name, Message::Relaying(message)))
        .collect()
}

fn hello() -> message::Hello {
    message::Hello {
        wire_min: 1,
        wire_max: 2,
        features: 1,
        role: 0,
        boot: BOOT,
        time_ms: SEQ,
        digest: [13; 16],
        heard: true,
        observed: Some(v4()),
    }
}

fn introduced() -> message::Introduced {
    message::Introduced {
        join_id: invite().join_id(),
        joiner: v4(),
        datagram: initiation(),
    }
}

/// A frame around a body, written without the code under test.
pub(crate) fn raw_frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 1, kind, 1];
    out.extend_from_slice(&u16::try_from(body.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&[0, 0, 0x2a, 0, 0, 0]);
    out.extend_from_slice(body);
    out
}

pub(crate) fn frames() -> Vec<Named> {
    let mut frames: Vec<Named> = messages()
        .into_iter()
        .map(|(name, message)| (name, frame::encode(&message, 42)))
        .collect();
    let bye = Message::Bye(message::Bye { reason: 2 });
    let mut shaped = Vec::new();
    frame::shape(&frame::encode(&bye, 42), &mut shaped);
    frames.push(("unknown-kind", raw_frame(0x7f, b"not even CBOR")));
    frames.push((
        "bye-unknown-key",
        raw_frame(0x04, &with_entry(bye.body(), &[9, 0x81, 0x60])),
    ));
    frames.push(("bye-in-wireguard", shaped));
    frames
}

/// Something of the length and type of a WireGuard initiation.
pub(crate) fn initiation() -> Vec<u8> {
    let mut bytes = vec![0x5a; 148];
    bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
    bytes
}

pub(crate) fn datagrams() -> Vec<Named> {
    let relayed = Relayed {
        session: 0x0403_0201,
        datagram: &initiation(),
    }
    .encode();
    let twice = Relayed {
        session: 0x0807_0605,
        datagram: &relayed,
    }
    .encode();
    let binding = |step| {
        RelayBinding {
            step,
            id: [1, 2, 3, 4],
            nonce: [5; 16],
            mac: [6; 16],
        }
        .encode()
        .to_vec()
    };
    let typed = |kind: u8, len: usize| {
        let mut bytes: Vec<u8> = (0..len).map(|i| i.to_le_bytes()[0]).collect();
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    };
    vec![
        ("initiation", initiation()),
        ("response", typed(2, 92)),
        ("cookie", typed(3, 64)),
        ("data", typed(4, 48)),
        ("transport", typed(0x10, 48)),
        ("relayed", relayed),
        ("relayed-twice", twice),
        ("relay-bind", binding(RelayStep::Bind)),
        ("relay-challenge", binding(RelayStep::Challenge)),
        ("relay-answer", binding(RelayStep::Answer)),
        (
            "dht",
            b"d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re".to_vec(),
        ),
    ]
}

/// A body, its header and its key, before it is sealed.
pub(crate) struct Unsealed {
    pub(crate) name: &'static str,
    pub(crate) header: Header,
    pub(crate) key: [u8; 32],
    pub(crate) body: Sealed,
}

pub(crate) fn unsealed() -> Vec<Unsealed> {
    vec![
        knock(
            "knock",
            bodies()
                .into_iter()
                .filter(|(name, ..)| ["admin", "member", "peer"].contains(name)),
        ),
        knock("knock-bare", std::iter::empty()),
        join(),
        Unsealed {
            name: "introduce",
            header: invite_header(Kind::Introduce),
            key: invite().introduce_key(),
            body: Sealed::Introduce(sealed::Introduce {
                datagram: initiation(),
            }),
        },
        beacon(),
        Unsealed {
            name: "punch",
            header: invite_header(Kind::Punch),
            key: invite().punch_key(),
            body: Sealed::Punch(sealed::Punch { stamp: SEQ }),
        },
    ]
}

fn invite_header(kind: Kind) -> Header {
    let JoinId(hint) = invite().join_id();
    Header {
        kind,
        epoch: 0,
        hint,
    }
}

fn knock(
    name: &'static str,
    bodies: impl Iterator<Item = (&'static str, [u8; 32], Body)>,
) -> Unsealed {
    let header = Header {
        kind: Kind::Knock,
        epoch: 4,
        hint: [0; 8],
    };
    let mut knock = sealed::Knock {
        node: alice().id(),
        stamp: SEQ,
        boot: BOOT,
        flags: 0,
        records: bodies
            .map(|(_, subject, body)| record_of(subject, body).bytes().to_vec())
            .collect(),
        signature: [0; 64],
    };
    let signed = SignedPart::new(header, NONCE, knock.unsigned());
    knock.signature = alice().sign(Word::Knock, &network(), &signed.parts(&bob().id().0));
    Unsealed {
        name,
        header,
        key: secret().knock_key(bob().id()),
        body: Sealed::Knock(knock),
    }
}

fn join() -> Unsealed {
    let header = invite_header(Kind::Join);
    let mut join = sealed::Join {
        node: alice().id(),
        tunnel: tunnel().public(),
        stamp: SEQ,
        boot: BOOT,
        signature: [0; 64],
    };
    let signed = SignedPart::new(header, NONCE, join.unsigned());
    join.signature = alice().sign(
        Word::Join,
        &invite().join_network(),
        &signed.parts(&issuer()),
    );
    Unsealed {
        name: "join",
        header,
        key: invite().join_key(),
        body: Sealed::Join(join),
    }
}

fn beacon() -> Unsealed {
    let header = Header {
        kind: Kind::Beacon,
        epoch: 4,
        hint: [0; 8],
    };
    let mut beacon = sealed::Beacon {
        node: alice().id(),
        stamp: SEQ,
        port: 41820,
        boot: BOOT,
        signature: [0; 64],
    };
    let signed = SignedPart::new(header, NONCE, beacon.unsigned());
    beacon.signature = alice().sign(Word::Beacon, &network(), &signed.parts(&[]));
    Unsealed {
        name: "beacon",
        header,
        key: secret().beacon_key(),
        body: Sealed::Beacon(beacon),
    }
}

/// The issuer's tunnel key, x25519 form.
pub(crate) fn issuer() -> [u8; 32] {
    TunnelKey::from_seed([14; 32]).x25519_public()
}

pub(crate) fn sealed_datagrams() -> Vec<Named> {
    let mut named: Vec<Named> = unsealed()
        .iter()
        .map(|unsealed| (unsealed.name, seal(unsealed, &unsealed.body.body())))
        .collect();
    let punch = unsealed().pop().unwrap();
    named.push((
        "punch-unknown-key",
        seal(&punch, &with_entry(punch.body.body(), &[0x18, 200, 1])),
    ));
    named
}

pub(crate) fn seal(unsealed: &Unsealed, body: &[u8]) -> Vec<u8> {
    sealed::seal(unsealed.header, NONCE, &unsealed.key, body).unwrap()
}

pub(crate) fn token() -> Token {
    Token {
        expires: 1_800_003_600,
        secret: invite(),
        issuer: issuer(),
        name: "anna".into(),
        hints: vec![v4(), v6()],
    }
}

/// Values that are computed and not decoded: hashes, keys, signatures, addresses.
pub(crate) fn computed() -> Vec<Named> {
    let mut named: Vec<Named> = USES
        .iter()
        .map(|(name, purpose)| (*name, hash(*purpose, &[b"a", b"bc"]).to_vec()))
        .collect();
    let plan = AddressPlan {
        network: root().network_id(),
        pool4: "100.99.0.0/16".parse().unwrap(),
    };
    let (alice_id, bob_id) = (alice().id(), bob().id());
    let bytes: [(&'static str, &[u8]); 24] = [
        ("root-public", &root().public()),
        ("network-id", &network()),
        ("node-id", &alice_id.0),
        ("tunnel-ed25519", &tunnel().public()),
        ("tunnel-x25519", &tunnel().x25519_public()),
        ("tunnel-cross", &tunnel().cross_sign(alice_id, &network())),
        ("root-signature", &root().sign(Word::Record, &[b"abc"])),
        (
            "node-signature",
            &alice().sign(Word::Record, &network(), &[b"abc"]),
        ),
        ("pair-psk", &pair_psk(&secret(), alice_id, bob_id)),
        ("knock-key", &secret().knock_key(bob_id)),
        ("beacon-key", &secret().beacon_key()),
        ("join-id", &invite().join_id().0),
        ("join-key", &invite().join_key()),
        ("join-psk", &invite().psk()),
        ("join-network", &invite().join_network()),
        ("introduce-key", &invite().introduce_key()),
        ("punch-key", &invite().punch_key()),
        ("service-record-key", &record::service_key("web", "alice")),
        ("peer6", &plan.peer6(alice_id).octets()),
        ("resolver6", &plan.resolver6().octets()),
        ("service6", &plan.service6("web", "").octets()),
        ("service6-subset", &plan.service6("web", "v2").octets()),
        ("offset4", &plan.offset4(alice_id, 0).to_le_bytes()),
        (
            "pool4",
            &AddressPlan::default_pool4(root().network_id())
                .network()
                .octets(),
        ),
    ];
    named.extend(bytes.map(|(name, bytes)| (name, bytes.to_vec())));
    named
}

/// Slots of the DHT: their keys, and values with two entries, with one, and with none.
pub(crate) fn slots() -> Vec<Named> {
    let of_network = secret().slot(20_833, 2, 1);
    let of_invite = invite().slot(1);
    let [anna, bo] = entries();
    let keys = |key: &SlotKey| [key.seed.to_vec(), key.public().to_vec(), key.seal.to_vec()];
    let [seed, public, sealing] = keys(&of_network);
    let [invite_seed, invite_public, invite_sealing] = keys(&of_invite);
    vec![
        ("network-slot-seed", seed),
        ("network-slot-public", public),
        ("network-slot-seal", sealing),
        (
            "network-slot-value",
            slot::seal(&of_network, NONCE, &[anna, bo.clone()]),
        ),
        ("invite-slot-seed", invite_seed),
        ("invite-slot-public", invite_public),
        ("invite-slot-seal", invite_sealing),
        ("invite-slot-value", slot::seal(&of_invite, NONCE, &[bo])),
        ("empty-slot-value", slot::seal(&of_invite, NONCE, &[])),
    ]
}

/// What stands in the slots above.
pub(crate) fn entries() -> [Where; 2] {
    let entry = |node: NodeKey, addresses: Vec<Underlay>, time| Where {
        node: node.id(),
        addresses,
        time,
    };
    [
        entry(alice(), vec![v4(), v6()], SEQ / 1000),
        entry(bob(), vec![v4()], SEQ / 1000 - 7),
    ]
}

/// Texts that people copy.
pub(crate) fn texts() -> Vec<(&'static str, String)> {
    let longest = Token {
        expires: u32::MAX,
        name: "a name of twenty-three b".into(),
        hints: vec![v4(), v6(), v6(), v4(), v4()],
        ..token()
    };
    vec![
        ("token", token().to_string()),
        ("token-longest", longest.to_string()),
        (
            "token-bare",
            Token {
                name: String::new(),
                hints: vec![],
                ..token()
            }
            .to_string(),
        ),
        ("invite-id", people_id(invite().join_id(), 4)),
        (
            "recovery-code",
            RootSeed(std::array::from_fn(|i| i.to_le_bytes()[0] * 17)).code(),
        ),
    ]
}

const USES: [(&str, Use); 29] = [
    ("hash-network", Use::Network),
    ("hash-knock", Use::Knock),
    ("hash-beacon", Use::Beacon),
    ("hash-join-id", Use::JoinId),
    ("hash-join", Use::Join),
    ("hash-join-psk", Use::JoinPsk),
    ("hash-join-network", Use::JoinNetwork),
    ("hash-introduce", Use::Introduce),
    ("hash-punch", Use::Punch),
    ("hash-stream", Use::Stream),
    ("hash-slot", Use::Slot),
    ("hash-record", Use::Record),
    ("hash-digest", Use::Digest),
    ("hash-service-key", Use::ServiceKey),
    ("hash-token", Use::Token),
    ("hash-root", Use::Root),
    ("hash-recovery", Use::Recovery),
    ("hash-home", Use::Home),
    ("hash-v4", Use::V4),
    ("hash-v4-pool", Use::V4Pool),
    ("hash-v6-network", Use::V6Network),
    ("hash-v6-peer", Use::V6Peer),
    ("hash-v6-service", Use::V6Service),
    ("hash-state", Use::State),
    ("hash-row", Use::Row),
    ("hash-slot-key", Use::SlotKey),
    ("hash-slot-seal", Use::SlotSeal),
    ("hash-invite-slot", Use::InviteSlot),
    ("hash-invite-seal", Use::InviteSeal),
];
