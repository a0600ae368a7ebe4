//! Sealed datagrams (protocol §2): sealing and signing what a node wants to say first, opening what strangers send.
//!
//! Knows the AEAD gate and which signature belongs to which kind. Refuses to judge: stamps, certificates and states are
//! the node's.

use rand_core::{OsRng, RngCore as _};

use crate::{
    addr::Path,
    hash::{Use, short},
    ids::{Boot, NodeId},
    keys::{InviteSecret, NetSecret, Word, verify},
    node::{Identity, Node, SealedKey, input::Input, output::FirstContact},
    time::Now,
    wire::sealed::{
        self, Beacon, Header, Introduce, Join, Kind, Knock, NotOpened, Opened, Punch, Sealed,
        SignedPart,
    },
};

/// Why a sealed datagram told the node nothing. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Its head is no head.
    Malformed,
    /// No key of ours opens it.
    NotForUs,
    /// It opened and is not what it must be.
    BadBody,
    /// Its signature does not hold.
    BadSignature,
    /// A Join whose signature is not worth a look; the counter's name.
    Refused(&'static str),
}

impl Silence {
    /// The counter's name.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "sealed_malformed",
            Self::NotForUs => "sealed_not_for_us",
            Self::BadBody => "sealed_bad_body",
            Self::BadSignature => "sealed_bad_signature",
            Self::Refused(why) => why,
        }
    }

    /// The counter's name for what came to the LAN's port.
    pub(super) fn label_on_lan(self) -> &'static str {
        match self {
            Self::Malformed => "lan_malformed",
            Self::NotForUs => "lan_not_for_us",
            Self::BadBody => "lan_bad_body",
            Self::BadSignature => "lan_bad_signature",
            Self::Refused(why) => why,
        }
    }
}

/// Seals a Knock or a Join. The nonce is drawn here; two calls never give the same bytes.
pub(super) fn seal_first(identity: &Identity, network: &[u8; 32], first: &FirstContact) -> Vec<u8> {
    match first {
        FirstContact::Knock {
            receiver,
            epoch,
            secret,
            stamp,
            records,
        } => {
            let header = network_header(Kind::Knock, *epoch);
            let knock = Knock {
                node: identity.key.id(),
                stamp: *stamp,
                boot: identity.boot,
                flags: 0,
                records: records.clone(),
                signature: [0; 64],
            };
            let key = secret.knock_key(*receiver);
            seal_knock(identity, network, header, *receiver, &key, knock)
        }
        FirstContact::Join {
            invite,
            issuer,
            stamp,
        } => seal_join(identity, invite, issuer, *stamp),
    }
}

/// What a Beacon says.
#[derive(Clone, Debug)]
pub(super) struct BeaconPart<'a> {
    /// The epoch sealed with.
    pub(super) epoch: u32,
    /// Its secret.
    pub(super) secret: &'a NetSecret,
    /// Greater than all before.
    pub(super) stamp: u64,
    /// The UDP port of this machine.
    pub(super) port: u16,
}

/// Seals a Beacon, which every member can open.
pub(super) fn seal_beacon(
    identity: &Identity,
    network: &[u8; 32],
    part: &BeaconPart<'_>,
) -> Vec<u8> {
    let header = network_header(Kind::Beacon, part.epoch);
    let nonce = draw_nonce();
    let mut beacon = Beacon {
        node: identity.key.id(),
        stamp: part.stamp,
        port: part.port,
        boot: identity.boot,
        signature: [0; 64],
    };
    let signed = SignedPart::new(header, nonce, beacon.unsigned());
    beacon.signature = identity.key.sign(Word::Beacon, network, &signed.parts(&[]));
    let body = Sealed::Beacon(beacon).body();
    sealed::seal(header, nonce, &part.secret.beacon_key(), &body)
        .expect("a Beacon is far shorter than a datagram")
}

fn network_header(kind: Kind, epoch: u32) -> Header {
    Header {
        kind,
        epoch: u8::try_from(epoch % 256).expect("a remainder by 256 fits a byte"),
        hint: [0; 8],
    }
}

/// Opens a sealed datagram with the keys that the node has for it, and checks its signature.
///
/// # Errors
/// It tells the node nothing, and nothing is sent.
pub(super) fn open(
    node: &mut Node,
    identity: &Identity,
    now: Now,
    (source, datagram): (Path, &[u8]),
) -> Result<Input, Silence> {
    let header = sealed::parse_header(datagram).map_err(|_malformed| Silence::Malformed)?;
    for key in node.sealed_keys(now, &header) {
        let opened = match sealed::open(datagram, key.key()) {
            Ok(opened) => opened,
            Err(NotOpened::Key) => continue,
            Err(NotOpened::Malformed(_)) => return Err(Silence::BadBody),
        };
        if let Sealed::Join(join) = &opened.body {
            let taken = node.take_join(now, header.hint, join);
            taken.map_err(Silence::Refused)?;
        }
        if !is_signed(node, identity, &key, &opened) {
            return Err(Silence::BadSignature);
        }
        let epoch = match key {
            SealedKey::Epoch { epoch, .. } => epoch,
            SealedKey::Invite { .. } | SealedKey::Introduction { .. } => 0,
        };
        return Ok(Input::Sealed {
            source,
            epoch,
            hint: header.hint,
            body: opened.body,
        });
    }
    Err(Silence::NotForUs)
}

fn is_signed(node: &Node, identity: &Identity, key: &SealedKey, opened: &Opened) -> bool {
    let signed = &opened.signed;
    match (&opened.body, key) {
        (Sealed::Knock(knock), SealedKey::Epoch { .. }) => verify(
            knock.node,
            Word::Knock,
            &node.network_id().0,
            &signed.parts(&node.id().0),
            &knock.signature,
        ),
        (Sealed::Join(join), SealedKey::Invite { secret, .. }) => verify(
            join.node,
            Word::Join,
            &secret.join_network(),
            &signed.parts(&identity.tunnel.x25519_public()),
            &join.signature,
        ),
        (Sealed::Beacon(beacon), SealedKey::Epoch { .. }) => verify(
            beacon.node,
            Word::Beacon,
            &node.network_id().0,
            &signed.parts(&[]),
            &beacon.signature,
        ),
        (Sealed::Introduce(_), SealedKey::Introduction { .. }) => true,
        (
            Sealed::Knock(_)
            | Sealed::Join(_)
            | Sealed::Introduce(_)
            | Sealed::Beacon(_)
            | Sealed::Punch(_),
            SealedKey::Epoch { .. } | SealedKey::Invite { .. } | SealedKey::Introduction { .. },
        ) => false,
    }
}

/// A Knock whose records do not fit goes without the last of them: the receiver asks for what it lacks.
fn seal_knock(
    identity: &Identity,
    network: &[u8; 32],
    header: Header,
    receiver: NodeId,
    key: &[u8; 32],
    mut knock: Knock,
) -> Vec<u8> {
    loop {
        let nonce = draw_nonce();
        let signed = SignedPart::new(header, nonce, knock.unsigned());
        knock.signature = identity
            .key
            .sign(Word::Knock, network, &signed.parts(&receiver.0));
        match sealed::seal(header, nonce, key, &Sealed::Knock(knock.clone()).body()) {
            Ok(datagram) => return datagram,
            Err(_too_long) => drop(knock.records.pop()),
        }
    }
}

fn seal_join(identity: &Identity, invite: &InviteSecret, issuer: &[u8; 32], stamp: u64) -> Vec<u8> {
    let header = Header {
        kind: Kind::Join,
        epoch: 0,
        hint: invite.join_id().0,
    };
    let nonce = draw_nonce();
    let mut join = Join {
        node: identity.key.id(),
        tunnel: identity.tunnel.public(),
        stamp,
        boot: identity.boot,
        signature: [0; 64],
    };
    let signed = SignedPart::new(header, nonce, join.unsigned());
    join.signature = identity
        .key
        .sign(Word::Join, &invite.join_network(), &signed.parts(issuer));
    sealed::seal(
        header,
        nonce,
        &invite.join_key(),
        &Sealed::Join(join).body(),
    )
    .expect("a Join is far shorter than a datagram")
}

/// Seals a Punch.
pub(super) fn seal_punch(invite: &InviteSecret, stamp: u64) -> Vec<u8> {
    let header = Header {
        kind: Kind::Punch,
        epoch: 0,
        hint: invite.join_id().0,
    };
    let body = Sealed::Punch(Punch { stamp }).body();
    sealed::seal(header, draw_nonce(), &invite.punch_key(), &body)
        .expect("a Punch is far shorter than a datagram")
}

/// Wraps a datagram for an issuer that a member of its network is to introduce this joiner to.
pub(super) fn seal_introduce(invite: &InviteSecret, datagram: Vec<u8>) -> Option<Vec<u8>> {
    let header = Header {
        kind: Kind::Introduce,
        epoch: 0,
        hint: invite.join_id().0,
    };
    let body = Sealed::Introduce(Introduce { datagram }).body();
    sealed::seal(header, draw_nonce(), &invite.introduce_key(), &body).ok()
}

/// Whether a sealed datagram is a Punch by this invite.
pub(super) fn is_punch(invite: &InviteSecret, datagram: &[u8]) -> bool {
    let is_ours = |header: Header| header.kind == Kind::Punch && header.hint == invite.join_id().0;
    sealed::parse_header(datagram).is_ok_and(is_ours)
        && sealed::open(datagram, &invite.punch_key()).is_ok()
}

fn draw_nonce() -> [u8; 24] {
    draw()
}

/// Random bytes of the host's generator.
pub(super) fn draw<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// What tells a router that we are who we were, and that nobody in the LAN can guess: else he could close our port.
pub(super) fn mapping_nonce(identity: &Identity) -> [u32; 3] {
    let secret = identity.tunnel.x25519_secret();
    let bytes: [u8; 12] = short(Use::Mapping, &[secret.as_bytes()]);
    let part = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    [part(0), part(4), part(8)]
}

/// The id of this run.
pub(super) fn draw_boot() -> Boot {
    Boot(draw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        addr::Underlay,
        keys::{NetSecret, NodeKey, RootSeed, TunnelKey},
        members::invites::InviteRole,
        node::{
            InviteOptions, Ipv4Use, Settings,
            founding::{Founding, found},
        },
        overlay::Limits,
        relay::grants::Willing,
        time::Moment,
    };

    const NETWORK: [u8; 32] = [9; 32];
    const BOB: NodeId = NodeId([2; 32]);

    fn alice() -> Identity {
        Identity {
            key: NodeKey::from_seed([1; 32]),
            tunnel: TunnelKey::from_seed([2; 32]),
            boot: Boot([3; 8]),
        }
    }

    /// Whoever founded a network and invites to it.
    fn founder(invite: &InviteSecret) -> (Node, Identity, Now) {
        let now = Now {
            at: Moment(1_000_000),
            unix_ms: 1_700_000_000_000,
        };
        let issuer = Identity {
            key: NodeKey::from_seed([9; 32]),
            ..alice()
        };
        let root = RootSeed([5; 16]);
        let founding = Founding {
            name: "home".to_owned(),
            domain: "home.internal".to_owned(),
            peer: "issuer".to_owned(),
            pool4: None,
            root,
            secret: NetSecret([6; 32]),
            admission: [7; 8],
        };
        let (network, founded) = found(now, founding, &issuer.key).unwrap();
        let settings = Settings {
            seed: [1; 32],
            limits: Limits::EVERYONE,
            ipv4: Ipv4Use::On,
            streams: false,
            dns_tcp_port: 0,
            relay: Willing::No,
            transports: false,
            built_s: now.unix_s(),
        };
        let mut node = Node::new(now, network, issuer.clone(), settings, founded);
        let options = InviteOptions {
            secret: invite.clone(),
            expires_in_s: 3600,
            uses: 1,
            role: InviteRole::Member,
            offers: Vec::new(),
        };
        let own = Underlay::new(([192, 0, 2, 1], 41_820).into());
        node.handle_input(now, Input::Addresses(vec![own]));
        node.invite(now, options).unwrap();
        (node, issuer, now)
    }

    fn knock(records: Vec<Vec<u8>>) -> Vec<u8> {
        let first = FirstContact::Knock {
            receiver: BOB,
            epoch: 258,
            secret: NetSecret([4; 32]),
            stamp: 7,
            records,
        };
        seal_first(&alice(), &NETWORK, &first)
    }

    #[test]
    fn a_knock_opens_for_its_receiver_alone_and_is_signed_for_him() {
        let datagram = knock(Vec::new());
        let opened = sealed::open(&datagram, &NetSecret([4; 32]).knock_key(BOB)).unwrap();
        let Sealed::Knock(knock) = &opened.body else {
            panic!("a Knock was sealed")
        };
        assert_eq!(
            (opened.header.epoch, knock.stamp, knock.boot),
            (2, 7, Boot([3; 8]))
        );
        let is_for = |receiver: NodeId| {
            let parts = opened.signed.parts(&receiver.0);
            verify(
                alice().key.id(),
                Word::Knock,
                &NETWORK,
                &parts,
                &knock.signature,
            )
        };
        assert!(is_for(BOB) && !is_for(NodeId([5; 32])));
        let other = NetSecret([4; 32]).knock_key(NodeId([5; 32]));
        assert_eq!(sealed::open(&datagram, &other), Err(NotOpened::Key));
    }

    #[test]
    fn records_that_do_not_fit_stay_at_home() {
        let datagram = knock(vec![vec![1; 500], vec![2; 300], vec![3; 400]]);
        assert!(datagram.len() <= 1200);
        let opened = sealed::open(&datagram, &NetSecret([4; 32]).knock_key(BOB)).unwrap();
        let Sealed::Knock(knock) = opened.body else {
            panic!("a Knock was sealed")
        };
        assert_eq!(knock.records, [vec![1; 500], vec![2; 300]]);
    }

    #[test]
    fn a_join_opens_with_the_invite_and_is_signed_for_its_issuer() {
        let invite = InviteSecret([6; 16]);
        let issuer = [8; 32];
        let first = FirstContact::Join {
            invite: invite.clone(),
            issuer,
            stamp: 7,
        };
        let datagram = seal_first(&alice(), &NETWORK, &first);
        let opened = sealed::open(&datagram, &invite.join_key()).unwrap();
        let Sealed::Join(join) = &opened.body else {
            panic!("a Join was sealed")
        };
        assert_eq!(opened.header.hint, invite.join_id().0);
        let parts = opened.signed.parts(&issuer);
        assert!(verify(
            join.node,
            Word::Join,
            &invite.join_network(),
            &parts,
            &join.signature
        ));
        assert!(!verify(
            join.node,
            Word::Join,
            &NETWORK,
            &parts,
            &join.signature
        ));
    }

    #[test]
    fn a_join_beyond_what_an_invite_may_ask_is_silence_before_its_signature_is_looked_at() {
        let invite = InviteSecret([6; 16]);
        let (mut node, issuer, now) = founder(&invite);
        let first = FirstContact::Join {
            invite,
            issuer: [8; 32],
            stamp: 7,
        };
        let for_another = seal_first(&alice(), &NETWORK, &first);
        let source = Path::Direct(Underlay::new(([192, 0, 2, 9], 41_820).into()));
        let mut open = || open(&mut node, &issuer, now, (source, &for_another));
        for _ in 0..64 {
            assert!(matches!(open(), Err(Silence::BadSignature)));
        }
        assert!(matches!(open(), Err(Silence::Refused("join_flooding"))));
    }

    #[test]
    fn a_beacon_opens_for_every_member_and_is_signed_for_nobody_in_particular() {
        let secret = NetSecret([4; 32]);
        let part = BeaconPart {
            epoch: 258,
            secret: &secret,
            stamp: 7,
            port: 41820,
        };
        let datagram = seal_beacon(&alice(), &NETWORK, &part);
        let opened = sealed::open(&datagram, &secret.beacon_key()).unwrap();
        let Sealed::Beacon(beacon) = &opened.body else {
            panic!("a Beacon was sealed")
        };
        assert_eq!((opened.header.epoch, beacon.port), (2, 41820));
        let holds = |network: &[u8; 32]| {
            let parts = opened.signed.parts(&[]);
            verify(
                beacon.node,
                Word::Beacon,
                network,
                &parts,
                &beacon.signature,
            )
        };
        assert!(holds(&NETWORK) && !holds(&[8; 32]));
    }

    #[test]
    fn a_punch_is_one_of_its_own_invite_and_no_longer_than_a_join() {
        let (invite, other) = (InviteSecret([6; 16]), InviteSecret([7; 16]));
        let punch = seal_punch(&invite, 7);
        assert!(is_punch(&invite, &punch) && !is_punch(&other, &punch));
        let first = FirstContact::Join {
            invite: invite.clone(),
            issuer: [8; 32],
            stamp: 7,
        };
        let join = seal_first(&alice(), &NETWORK, &first);
        assert!(punch.len() <= join.len() && !is_punch(&invite, &join));
        assert!(!is_punch(&invite, &punch[1..]) && !is_punch(&invite, &knock(Vec::new())));
        let mut touched = punch;
        touched[100] ^= 1;
        assert!(!is_punch(&invite, &touched));
    }

    #[test]
    fn the_same_words_are_never_the_same_bytes() {
        assert_ne!(knock(Vec::new()), knock(Vec::new()));
    }
}
