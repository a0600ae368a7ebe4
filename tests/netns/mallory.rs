//! A member that keeps to no rule: it joins by a real token, with the library's keys, records and WireGuard over one
//! UDP socket of its own, and then sends whatever it likes. Nothing of an agent stands between it and its victim.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rand_core::{OsRng, RngCore};
use webmesh::{
    addr::Underlay,
    ids::{Boot, NodeId, Slot},
    keys::{InviteSecret, NetSecret, NodeKey, Token, TunnelKey, Word, pair_psk},
    node::{
        Identity,
        joiner::{Grant, Joiner, JoinerOutput, Wish},
    },
    platform::clock,
    wire::{
        frame::{self, Content},
        message::{Hello, Message, Ping, Pong, Records, Want},
        record::{Body, Draft, Kind, Peer, Record},
        sealed::{self, Header, Join, Knock, Sealed, SignedPart},
    },
    wireguard::session::{Keys, Session, Step},
};

/// The longest that the victim may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A member with a session of its own making.
pub(crate) struct Mallory {
    pub(crate) identity: Identity,
    pub(crate) grant: Grant,
    line: Line,
}

/// One WireGuard session over one socket, with one other side.
struct Line {
    socket: UdpSocket,
    to: SocketAddr,
    session: Session,
    messages: u32,
}

enum Heard {
    Nothing,
    Up,
    Message(Message),
}

impl Mallory {
    /// Joins by a token, as the protocol asks, and then has a session with the issuer.
    pub(crate) fn join(token: &Token) -> Self {
        let identity = Identity {
            key: NodeKey::from_seed(draw()),
            tunnel: TunnelKey::from_seed(draw()),
            boot: Boot(draw()),
        };
        let socket = UdpSocket::bind("0.0.0.0:41820").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let to = token.hints[0].socket();
        let line = Line::new(socket, to, (&identity, token), (1, token.secret.psk()));
        let (grant, line) = redeem(token, &identity, line);
        let psk = pair_psk(&epoch0(&grant), identity.key.id(), grant.issuer);
        let line = Line::new(line.socket, to, (&identity, token), (2, psk));
        let mut mallory = Self {
            identity,
            grant,
            line,
        };
        mallory.knock();
        mallory
    }

    /// A record that this member signs, whoever it says did.
    pub(crate) fn record(&self, subject: [u8; 32], signer: NodeId, body: Body) -> Vec<u8> {
        self.record_by(&self.identity.key, (subject, signer), body)
    }

    /// A record that `key` signs.
    pub(crate) fn record_by(
        &self,
        key: &NodeKey,
        (subject, signer): ([u8; 32], NodeId),
        body: Body,
    ) -> Vec<u8> {
        let draft = Draft {
            seq: clock::now().unix_ms,
            subject,
            signer: signer.0,
            body,
        };
        let network = &self.grant.network.0;
        let sign = |bytes: &[u8]| key.sign(Word::Record, network, &[bytes]);
        draft.sign_with(sign).unwrap().bytes().to_vec()
    }

    /// The record of `kind` about `node`, from what was granted.
    pub(crate) fn granted(&self, kind: Kind, node: NodeId) -> &Record {
        granted(&self.grant, kind, node)
    }

    /// The body of a Peer record of this member.
    pub(crate) fn peer(&self) -> Peer {
        self.peer_of(self.identity.key.id(), &self.identity.tunnel)
    }

    /// The body of a Peer record of whoever has this tunnel key.
    pub(crate) fn peer_of(&self, node: NodeId, tunnel: &TunnelKey) -> Peer {
        Peer {
            tunnel: tunnel.public(),
            cross: tunnel.cross_sign(node, &self.grant.network.0),
            wire_min: 1,
            wire_max: 1,
            features: 0,
            flags: 1,
            addresses: None,
        }
    }

    /// Asks the victim for records, and does not wait for them.
    pub(crate) fn want(&mut self, slots: Vec<Slot>) {
        self.say(&Message::Want(Want { slots }));
    }

    /// Asks the victim for a record of another.
    pub(crate) fn ask(&mut self, slot: Slot) -> Record {
        self.want(vec![slot]);
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "no record came");
            if let Some(Message::Records(records)) = self.hear() {
                let mut came = records.records.iter().map(|bytes| Record::decode(bytes));
                let found = came.find_map(|record| record.ok().filter(|r| r.slot() == slot));
                if let Some(record) = found {
                    return record;
                }
            }
        }
    }

    /// Sends a packet or whatever else inside the session.
    pub(crate) fn send(&mut self, inner: &[u8]) {
        self.line.seal(inner);
    }

    /// Sends a control frame, sound or not.
    pub(crate) fn send_frame(&mut self, frame: &[u8]) {
        let mut inner = Vec::new();
        frame::shape(frame, &mut inner);
        self.line.seal(&inner);
    }

    pub(crate) fn say(&mut self, message: &Message) {
        self.line.say(message);
    }

    pub(crate) fn say_records(&mut self, records: Vec<Vec<u8>>) {
        self.say(&Message::Records(Records { records }));
    }

    /// Waits for the answer to a Ping: all that was sent before has been judged then.
    pub(crate) fn await_pong(&mut self) {
        let nonce = draw();
        let until = Instant::now() + PATIENCE;
        let ping = Ping {
            nonce,
            path: 0,
            pad: None,
        };
        self.say(&Message::Ping(ping));
        loop {
            assert!(
                Instant::now() < until,
                "the victim does not answer any more"
            );
            if let Some(Message::Pong(pong)) = self.hear()
                && pong.nonce == nonce
            {
                return;
            }
        }
    }

    /// Sends a Knock in `name`'s name, signed by this member.
    pub(crate) fn knock_as(&self, name: NodeId, boot: Boot) {
        self.line.send(&self.sealed_knock(name, boot));
    }

    /// Takes in one message, answering what keeps a session alive.
    fn hear(&mut self) -> Option<Message> {
        let Heard::Message(message) = self.line.hear() else {
            return None;
        };
        if let Message::Hello(hello) = &message
            && !hello.heard
        {
            self.say_hello(true);
        }
        if let Message::Ping(ping) = &message {
            self.say(&Message::Pong(Pong {
                nonce: ping.nonce,
                path: ping.path,
                observed: Some(Underlay::new(self.line.to)),
            }));
        }
        Some(message)
    }

    fn knock(&mut self) {
        let until = Instant::now() + PATIENCE;
        let mut tried = None::<Instant>;
        loop {
            assert!(Instant::now() < until, "no session with the issuer");
            if tried.is_none_or(|at| at.elapsed() > Duration::from_millis(300)) {
                tried = Some(Instant::now());
                let knock = self.sealed_knock(self.identity.key.id(), self.identity.boot);
                self.line.send(&knock);
                self.line.initiate();
            }
            if matches!(self.line.hear(), Heard::Up) {
                break;
            }
        }
        self.say_hello(false);
        while !matches!(self.hear(), Some(Message::Hello(_))) {
            assert!(Instant::now() < until, "no Hello");
        }
        self.await_pong();
    }

    fn sealed_knock(&self, node: NodeId, boot: Boot) -> Vec<u8> {
        let (me, issuer) = (self.identity.key.id(), self.grant.issuer);
        let member = self.granted(Kind::Member, me);
        let admin = self.granted(Kind::Admin, member.signer());
        let peer = self.record(me.0, me, Body::Peer(self.peer()));
        let header = Header {
            kind: sealed::Kind::Knock,
            epoch: 0,
            hint: [0; 8],
        };
        let mut knock = Knock {
            node,
            stamp: clock::now().unix_ms,
            boot,
            flags: 0,
            records: vec![member.bytes().to_vec(), admin.bytes().to_vec(), peer],
            signature: [0; 64],
        };
        let nonce = draw();
        let signed = SignedPart::new(header, nonce, knock.unsigned());
        knock.signature =
            self.identity
                .key
                .sign(Word::Knock, &self.grant.network.0, &signed.parts(&issuer.0));
        let key = epoch0(&self.grant).knock_key(issuer);
        sealed::seal(header, nonce, &key, &Sealed::Knock(knock).body()).unwrap()
    }

    fn say_hello(&mut self, heard: bool) {
        self.line.say(&Message::Hello(Hello {
            wire_min: 1,
            wire_max: 1,
            features: 0,
            role: 0,
            boot: self.identity.boot,
            time_ms: clock::now().unix_ms,
            digest: [0; 16],
            heard,
            observed: Some(Underlay::new(self.line.to)),
        }));
    }
}

impl Line {
    fn new(
        socket: UdpSocket,
        to: SocketAddr,
        (own, issuer): (&Identity, &Token),
        (index, psk): (u32, [u8; 32]),
    ) -> Self {
        let keys = Keys {
            local_secret: &own.tunnel.x25519_secret(),
            remote_public: &x25519_dalek::PublicKey::from(issuer.issuer),
            psk,
        };
        Self {
            socket,
            to,
            session: Session::new(clock::now(), &keys, index).unwrap(),
            messages: 0,
        }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
    }

    fn initiate(&mut self) {
        let mut buffer = [0; 256];
        let len = self.session.initiate(&mut buffer).unwrap();
        self.send(&buffer[..len]);
    }

    fn seal(&mut self, inner: &[u8]) {
        let mut padded = inner.to_vec();
        padded.resize(inner.len().next_multiple_of(16), 0);
        let mut buffer = [0; 2048];
        let len = self.session.encapsulate(&padded, &mut buffer).unwrap();
        self.send(&buffer[..len]);
    }

    fn say(&mut self, message: &Message) {
        self.messages += 1;
        let mut inner = Vec::new();
        frame::shape(&frame::encode(message, self.messages), &mut inner);
        self.seal(&inner);
    }

    /// Waits a moment for one datagram.
    fn hear(&mut self) -> Heard {
        let (mut datagram, mut buffer) = ([0; 2048], [0; 2048]);
        let Ok(len) = self.socket.recv(&mut datagram) else {
            return Heard::Nothing;
        };
        match self.session.decapsulate(&datagram[..len], &mut buffer) {
            Ok(Step::Response(bytes)) => self.socket.send_to(bytes, self.to).map(|_| ()).unwrap(),
            Ok(Step::Confirmation(bytes)) => {
                self.socket.send_to(bytes, self.to).unwrap();
                return Heard::Up;
            }
            Ok(Step::Inner(inner)) => {
                let content = frame::unshape(inner).map(|frame| frame::decode(frame).unwrap());
                if let Some(Content::Known(message)) = content.map(|frame| frame.content) {
                    return Heard::Message(message);
                }
            }
            Ok(Step::Cookie | Step::Keepalive | Step::NotIp) | Err(_) => {}
        }
        Heard::Nothing
    }
}

fn redeem(token: &Token, identity: &Identity, mut line: Line) -> (Grant, Line) {
    let wish = Wish {
        name: "mallory".into(),
        exact: true,
    };
    let mut joiner = Joiner::new(clock::now(), token.clone(), identity.clone(), wish);
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "the join takes too long");
        while let Some(output) = joiner.poll_output() {
            match output {
                JoinerOutput::Dial { stamp, .. } => {
                    line.send(&sealed_join(&token.secret, identity, (token.issuer, stamp)));
                    line.initiate();
                }
                JoinerOutput::Send { message, .. } => line.say(&message),
                JoinerOutput::Reached { .. }
                | JoinerOutput::Call { .. }
                | JoinerOutput::OpenStream { .. }
                | JoinerOutput::Introduce { .. }
                | JoinerOutput::Close => {}
                JoinerOutput::Granted(grant) => return (*grant, line),
                JoinerOutput::Slot(_) | JoinerOutput::Datagram { .. } => panic!("there is no DHT"),
                JoinerOutput::Refused(refused) => panic!("{refused:?}"),
            }
        }
        let to = Underlay::new(line.to);
        match line.hear() {
            Heard::Up => joiner.handle_up(clock::now(), to.into()),
            Heard::Message(message) => joiner.handle_message(clock::now(), to.into(), message),
            Heard::Nothing => {}
        }
        joiner.handle_timeout(clock::now());
    }
}

/// A Join as the holder of a token makes it.
pub(crate) fn sealed_join(
    invite: &InviteSecret,
    identity: &Identity,
    (issuer, stamp): ([u8; 32], u64),
) -> Vec<u8> {
    let header = Header {
        kind: sealed::Kind::Join,
        epoch: 0,
        hint: invite.join_id().0,
    };
    let mut join = Join {
        node: identity.key.id(),
        tunnel: identity.tunnel.public(),
        stamp,
        boot: identity.boot,
        signature: [0; 64],
    };
    let nonce = draw();
    let signed = SignedPart::new(header, nonce, join.unsigned());
    let parts = signed.parts(&issuer);
    join.signature = identity
        .key
        .sign(Word::Join, &invite.join_network(), &parts);
    sealed::seal(
        header,
        nonce,
        &invite.join_key(),
        &Sealed::Join(join).body(),
    )
    .unwrap()
}

fn granted(grant: &Grant, kind: Kind, node: NodeId) -> &Record {
    let mut records = grant.records.iter();
    let found = records.find(|record| record.kind() == kind && record.node() == node);
    found.unwrap_or_else(|| panic!("no {kind:?} of {node:?} was granted"))
}

fn epoch0(grant: &Grant) -> NetSecret {
    let mut secrets = grant
        .records
        .iter()
        .filter_map(|record| match record.body() {
            Ok(Body::Epoch(epoch)) if epoch.n == 0 => Some(NetSecret(epoch.secret)),
            _ => None,
        });
    secrets.next_back().expect("epoch 0 was granted")
}

pub(crate) fn draw<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}
