//! A joiner whose issuer is not reached from outside goes by the hand of a member (protocol §9): whatever it sends bare, it
//! sends in an Introduce too, until the issuer answers what was bare.

use super::{Joiner, JoinerOutput};
use crate::{
    addr::Path,
    ids::{HandIx, NetworkId, NodeId},
    node::verifying,
    wire::{
        message::{Message, Ping},
        record::{Kind, Record},
    },
};

impl Joiner {
    /// Says it bare, and until the issuer is known to hear that, in an Introduce too: a member may stand where this
    /// machine believes the issuer (protocol §9).
    pub(super) fn say_to(&mut self, message: Message, via: Option<Path>) {
        let session = self.session.as_ref().filter(|session| !session.is_bare);
        let hand = session.and_then(|session| self.hand_at(via.unwrap_or(session.endpoint)));
        if let Some(hand) = hand {
            self.outbox.push_back(JoinerOutput::Send {
                message: message.clone(),
                via: Some(hand),
            });
        }
        self.outbox.push_back(JoinerOutput::Send { message, via });
    }

    /// Asks whether the issuer hears what is sent bare.
    pub(super) fn ping_bare(&mut self) {
        let session = self.session.as_ref().filter(|session| !session.is_bare);
        if let Some(endpoint) = session.map(|session| session.endpoint) {
            let ping = Ping {
                nonce: self.nonce(),
                path: 0,
                pad: None,
            };
            self.outbox.push_back(JoinerOutput::Send {
                message: Message::Ping(ping),
                via: Some(endpoint),
            });
        }
    }

    /// Comes back in the Pong: the stamp of the Join that brought the session.
    pub(super) fn nonce(&self) -> [u8; 8] {
        self.last_stamp.to_le_bytes()
    }

    /// Where somebody may take an Introduce: each is a hand, numbered in this order.
    fn introducers(&self) -> impl Iterator<Item = Path> {
        let hints = self.token.hints.iter().copied().map(Path::Direct);
        hints.chain(self.members.iter().copied().map(Path::Stream))
    }

    /// By which hand datagrams go to whoever is there in an Introduce.
    pub(super) fn hand_at(&self, path: Path) -> Option<Path> {
        let place = self.introducers().position(|one| one == path)?;
        Some(Path::Handed(HandIx(u32::try_from(place).ok()?)))
    }

    /// All hands.
    pub(super) fn hands(&self) -> impl Iterator<Item = Path> {
        self.introducers().filter_map(|path| self.hand_at(path))
    }

    /// The data thread wants a datagram handed on.
    pub fn handle_handed(&mut self, hand: HandIx, datagram: Vec<u8>) {
        let place = usize::try_from(hand.0).ok();
        let to = place.and_then(|place| self.introducers().nth(place));
        if let Some(to) = to.filter(|_| !self.over) {
            self.outbox
                .push_back(JoinerOutput::Introduce { to, datagram });
        }
    }

    /// The member that brought this machine and the issuer together: the issuer told of it, and does not hear us bare.
    pub(super) fn introducer(&self, issuer: NodeId, network: NetworkId) -> Option<NodeId> {
        if self.session.as_ref().is_none_or(|session| session.is_bare) {
            return None;
        }
        let own = self.identity.key.id();
        let is_third = |record: &Record| {
            record.kind() == Kind::Peer
                && record.node() != issuer
                && record.node() != own
                && verifying::is_signed(record, network)
        };
        self.find(is_third).map(Record::node)
    }
}
