//! Sealed datagrams (protocol §2): sealing and signing what a node wants to say first, opening what strangers send.
//!
//! Knows the AEAD gate and which signature belongs to which kind. Refuses to judge: stamps, certificates and states are
//! the node's.

use rand_core::{OsRng, RngCore as _};

use crate::{
    addr::Underlay,
    ids::{Boot, NodeId},
    keys::{InviteSecret, Word, verify},
    node::{Identity, Node, SealedKey, input::Input, output::FirstContact},
    time::Now,
    wire::sealed::{self, Header, Join, Kind, Knock, NotOpened, Opened, Sealed, SignedPart},
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
}

impl Silence {
    /// The counter's name.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "sealed_malformed",
            Self::NotForUs => "sealed_not_for_us",
            Self::BadBody => "sealed_bad_body",
            Self::BadSignature => "sealed_bad_signature",
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
            let header = Header {
                kind: Kind::Knock,
                epoch: u8::try_from(epoch % 256).expect("a remainder by 256 fits a byte"),
                hint: [0; 8],
            };
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

/// Opens a sealed datagram with the keys that the node has for it, and checks its signature.
///
/// # Errors
/// It tells the node nothing, and nothing is sent.
pub(super) fn open(
    node: &Node,
    identity: &Identity,
    now: Now,
    (source, datagram): (Underlay, &[u8]),
) -> Result<Input, Silence> {
    let header = sealed::parse_header(datagram).map_err(|_malformed| Silence::Malformed)?;
    for key in node.sealed_keys(now, &header) {
        let opened = match sealed::open(datagram, key.key()) {
            Ok(opened) => opened,
            Err(NotOpened::Key) => continue,
            Err(NotOpened::Malformed(_)) => return Err(Silence::BadBody),
        };
        if !is_signed(node, identity, &key, &opened) {
            return Err(Silence::BadSignature);
        }
        let epoch = match key {
            SealedKey::Epoch { epoch, .. } => epoch,
            SealedKey::Invite { .. } => 0,
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
        (
            Sealed::Knock(_)
            | Sealed::Join(_)
            | Sealed::Introduce(_)
            | Sealed::Beacon(_)
            | Sealed::Punch(_),
            SealedKey::Epoch { .. } | SealedKey::Invite { .. },
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

fn draw_nonce() -> [u8; 24] {
    draw()
}

/// Random bytes of the host's generator.
pub(super) fn draw<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// The id of this run.
pub(super) fn draw_boot() -> Boot {
    Boot(draw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{NetSecret, NodeKey, TunnelKey};

    const NETWORK: [u8; 32] = [9; 32];
    const BOB: NodeId = NodeId([2; 32]);

    fn alice() -> Identity {
        Identity {
            key: NodeKey::from_seed([1; 32]),
            tunnel: TunnelKey::from_seed([2; 32]),
            boot: Boot([3; 8]),
        }
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
    fn the_same_words_are_never_the_same_bytes() {
        assert_ne!(knock(Vec::new()), knock(Vec::new()));
    }
}
