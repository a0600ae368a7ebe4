//! It lets others join (protocol §9): invites are issued, a Join is let in, a Redeem is granted once.

use std::collections::BTreeSet;

use crate::{
    addr::Path,
    ids::{JoinId, JoinIx, NodeId, PeerIx, SessionId, Slot},
    keys::{InviteSecret, NAME_MAX, RootSeed, Token, Word, x25519_form},
    members::{
        admission,
        invites::{self, Exactness, Invite, InviteRole, Redeemed, Redeeming, Spent},
    },
    node::{
        Node, Timer,
        input::{PersistOutcome, Row},
        knocking::YOUNG,
        output::{Output, Remote},
        talking::Goodbye,
    },
    tables::Admission,
    time::{Moment, Now},
    wire::{
        message::{Bye, Granted, Message, Redeem, Refused},
        record::{self, Body, Draft, Kind, slot_of},
        sealed::Join,
    },
};

/// Rows of strangers that one invite may fill (protocol §2).
const JOINERS_PER_INVITE: usize = 64;
/// How many Joins by one invite may come at once, and how soon the next: as many signatures are looked at.
const JOINS_AT_ONCE: u32 = 64;
const JOIN_EACH: std::time::Duration = std::time::Duration::from_millis(20);
/// How long the issuer keeps the join session of one that was granted.
const JOIN_LINGER: std::time::Duration = std::time::Duration::from_secs(30);
/// How long a join session may take to come to a grant: twice the joiner's longest pause between tries (protocol §9). A
/// holder of a token cannot keep states here for longer.
const JOIN_LIFE: std::time::Duration = std::time::Duration::from_secs(32);
/// Refused: try again (protocol §9).
const BUSY: u64 = 6;

/// Who has come by one invite.
#[derive(Clone, Debug, Default)]
pub(super) struct Joiners {
    nodes: BTreeSet<NodeId>,
    /// When the next Join would be due if they came evenly.
    due: Moment,
}

impl Joiners {
    /// Whether the signature of one more Join is looked at; it counts if so.
    fn take_join(&mut self, now: Moment) -> bool {
        if self.due > now.after(JOIN_EACH * (JOINS_AT_ONCE - 1)) {
            return false;
        }
        self.due = self.due.max(now).after(JOIN_EACH);
        true
    }
}

/// One join session on the issuer's side.
#[derive(Clone, Debug)]
pub(super) struct Admitting {
    join_id: JoinId,
    node: NodeId,
    made: Moment,
    endpoint: Option<Path>,
    /// Which member brought its Join.
    introducer: Option<PeerIx>,
    heard_hello: bool,
    /// Whether membership was granted in it: only then its wants are answered.
    granted: bool,
    /// The spend that is being written, and what is granted once it is.
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    ticket: u64,
    member: record::Member,
    role: InviteRole,
}

/// What `webmesh invite` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteOptions {
    /// Drawn by the shell.
    pub secret: InviteSecret,
    /// How long it is good, seconds.
    pub expires_in_s: u64,
    /// How many may join by it.
    pub uses: u32,
    /// What they become.
    pub role: InviteRole,
    /// What they may offer.
    pub offers: Vec<String>,
}

/// Why no invite was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteRefused {
    /// Only admins admit.
    #[error("this machine is no admin")]
    NotAdmin,
    /// Only the root makes admins, and its key is not here.
    #[error("the root key is not on this machine")]
    NoRootKey,
    /// Nobody could find this machine.
    #[error("this machine has no address to be found at")]
    NoAddress,
}

/// The recovery code is another network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this recovery code belongs to another network")]
pub struct RecoverRefused;

impl Node {
    /// Makes an invite and keeps it; the token is good once the outputs are carried out.
    ///
    /// # Errors
    /// Nothing is kept when it is refused.
    pub fn invite(&mut self, now: Now, options: InviteOptions) -> Result<Token, InviteRefused> {
        if !self.members.may_admit(self.me) {
            return Err(InviteRefused::NotAdmin);
        }
        if options.role == InviteRole::Admin && self.kept.root.is_none() {
            return Err(InviteRefused::NoRootKey);
        }
        let hints = self.hints(now);
        if hints.is_empty() {
            return Err(InviteRefused::NoAddress);
        }
        let expires_s = now.unix_s().saturating_add(options.expires_in_s);
        let token = Token {
            expires: u32::try_from(expires_s).unwrap_or(u32::MAX),
            secret: options.secret.clone(),
            issuer: self.identity.tunnel.x25519_public(),
            name: self.name_of(self.me).chars().take(NAME_MAX).collect(),
            hints,
        };
        self.invites.expire(now.unix_s());
        self.invites.issue(Invite::new(
            options.secret,
            expires_s,
            options.uses,
            options.role,
            options.offers,
        ));
        self.persist_kept(None);
        self.publish_invite(now, &token.secret, options.expires_in_s);
        self.finish_turn(now);
        Ok(token)
    }

    /// Takes an invite back; the id is what people type, its first letters.
    ///
    /// # Errors
    /// Nothing changes when no open invite, or more than one, begins so.
    pub fn cancel_invite(&mut self, now: Now, id: &str) -> Result<JoinId, invites::CancelRefused> {
        let cancelled = self.invites.cancel(id, now.unix_s())?;
        self.persist_kept(None);
        Ok(cancelled)
    }

    /// The invites of this machine, and how to call them.
    pub fn invites(&self, now: Now) -> Vec<(String, Invite)> {
        self.invites
            .list(now.unix_s())
            .map(|invite| (self.invites.short_id(invite.id()), invite.clone()))
            .collect()
    }

    /// Whether the signature of a Join is worth a look, which counts as one; the name of a counter if not. Who holds a token,
    /// even one that is used up, may send as many as its line carries, and all else costs next to nothing.
    pub fn take_join(&mut self, now: Now, hint: [u8; 8], join: &Join) -> Result<(), &'static str> {
        self.joinable(now, hint, join)?;
        let joiners = self.joiners.entry(JoinId(hint)).or_default();
        match joiners.take_join(now.at) {
            true => Ok(()),
            false => Err("join_flooding"),
        }
    }

    /// The invite of a Join; the name of a counter where it is silence whoever signed it.
    fn joinable(&self, now: Now, hint: [u8; 8], join: &Join) -> Result<&Invite, &'static str> {
        let join_id = JoinId(hint);
        let invite = self.invites.find(join_id, now.unix_s());
        let invite = invite.ok_or("join_unknown_invite")?;
        if self.members.is_revoked(join.node) {
            return Err("join_revoked");
        }
        let joiners = self.joiners.get(&join_id);
        let is_full = joiners.is_some_and(|all| all.nodes.len() >= JOINERS_PER_INVITE);
        match self.rows.get(&join.node) {
            Some(row) if join.stamp <= row.stamp => Err("join_replayed"),
            None if is_full => Err("join_too_many"),
            Some(_) | None => Ok(invite),
        }
    }

    pub(super) fn on_join(&mut self, now: Now, source: Path, hint: [u8; 8], join: &Join) {
        let join_id = JoinId(hint);
        let secret = match self.joinable(now, hint, join) {
            Ok(invite) => invite.secret.clone(),
            Err(why) => return self.counters.count(why),
        };
        let Some(tunnel) = x25519_form(&join.tunnel) else {
            return self.counters.count("join_bad_key");
        };
        let row = self.rows.get(&join.node).copied();
        self.joiners
            .entry(join_id)
            .or_default()
            .nodes
            .insert(join.node);
        self.note_knock(now, source);
        let last_session_s = row.map_or(0, |row| row.last_session_s);
        self.write_row(Row {
            node: join.node,
            stamp: join.stamp,
            boot: join.boot,
            last_session_s,
        });
        let (ix, admission) = self.join_session(now, join_id, join.node);
        if let Some((by, joiner)) = self.introducer_of(source) {
            self.punch(now, joiner, &secret);
            if let Some(session) = self.admitting.get_mut(&ix) {
                session.introducer = Some(by);
            }
        }
        let remote = Remote {
            tunnel,
            psk: secret.psk(),
        };
        self.outbox.push_back(Output::Admit {
            session: SessionId::Join(ix),
            remote,
            source,
            admission,
        });
    }

    fn join_session(&mut self, now: Now, join_id: JoinId, node: NodeId) -> (JoinIx, Admission) {
        let found = self
            .admitting
            .iter()
            .find(|(_, session)| session.join_id == join_id && session.node == node)
            .map(|(ix, session)| (*ix, session.made));
        if let Some((ix, made)) = found
            && now.at.since(made) < YOUNG
        {
            return (ix, Admission::Keep);
        }
        let (ix, admission) = match found {
            Some((ix, _)) => (ix, Admission::Replace),
            None => (JoinIx(self.next_join), Admission::Keep),
        };
        self.next_join = self.next_join.max(ix.0 + 1);
        self.admitting
            .insert(ix, Admitting::new(join_id, node, now.at));
        self.timers
            .set(Timer::JoinOver(ix), now.at.after(JOIN_LIFE));
        (ix, admission)
    }

    pub(super) fn on_join_up(&mut self, now: Now, ix: JoinIx, endpoint: Path) {
        if let Some(session) = self.admitting.get_mut(&ix) {
            session.endpoint = Some(endpoint);
            let node = session.node;
            self.note_met(now, node, endpoint);
            if endpoint.carries_data() {
                self.proofs.handle_up(now, SessionId::Join(ix), endpoint);
            }
            self.say_join_hello(now, ix);
        }
    }

    /// The hand by which a join session goes, if a member introduces it.
    pub(super) fn hand_of_join(&self, ix: JoinIx) -> Option<Path> {
        let endpoint = self.admitting.get(&ix)?.endpoint?;
        (!endpoint.carries_data()).then_some(endpoint)
    }

    pub(super) fn say_join_hello(&mut self, now: Now, ix: JoinIx) {
        let Some((endpoint, heard)) = self
            .admitting
            .get(&ix)
            .and_then(|session| Some((session.endpoint?, session.heard_hello)))
        else {
            return;
        };
        if !heard {
            self.timers.set(
                Timer::Hello(SessionId::Join(ix)),
                now.at.after(std::time::Duration::from_secs(1)),
            );
        }
        let hello = self.own_hello(now, heard, endpoint);
        self.send(SessionId::Join(ix), Message::Hello(hello));
    }

    pub(super) fn on_join_message(&mut self, now: Now, ix: JoinIx, source: Path, message: Message) {
        if !self.admitting.contains_key(&ix) {
            return self.counters.count("message_without_session");
        }
        match message {
            Message::Hello(hello) => self.on_join_hello(now, ix, hello.heard),
            Message::Ping(ping) => self.on_ping(now, SessionId::Join(ix), source, &ping),
            Message::Pong(pong) => self.on_pong(now, SessionId::Join(ix), source, &pong),
            Message::Bye(_) => self.end_join(ix),
            Message::Redeem(redeem) => self.on_redeem(now, ix, &redeem),
            Message::Want(want) => self.on_join_want(now, ix, &want.slots),
            Message::Records(_)
            | Message::Advert(_)
            | Message::Digest(_)
            | Message::Slots(_)
            | Message::Granted(_)
            | Message::Renew
            | Message::Refused(_)
            | Message::Link(_)
            | Message::Unlink(_)
            | Message::Introduced(_)
            | Message::Reaching(_)
            | Message::Relaying(_) => self.counters.count("message_unused"),
        }
    }

    fn on_join_hello(&mut self, now: Now, ix: JoinIx, theirs_heard: bool) {
        if let Some(session) = self.admitting.get_mut(&ix) {
            session.heard_hello = true;
        }
        self.timers.clear(&Timer::Hello(SessionId::Join(ix)));
        if !theirs_heard {
            self.say_join_hello(now, ix);
        }
    }

    fn on_redeem(&mut self, now: Now, ix: JoinIx, redeem: &Redeem) {
        let Some(session) = self.admitting.get(&ix) else {
            return;
        };
        if session.pending.is_some() {
            return;
        }
        let (join_id, node) = (session.join_id, session.node);
        if !self.members.may_admit(self.me) {
            return self.send(SessionId::Join(ix), Message::Refused(busy()));
        }
        let admission = self.draw();
        let exactness = if redeem.exact {
            Exactness::Exact
        } else {
            Exactness::Like
        };
        let asks = Redeeming {
            join_id,
            node,
            wish: &redeem.name,
            exactness,
            admission,
            mesh_s: self.mesh_s(now),
        };
        match self.invites.redeem(&self.members, now.unix_s(), &asks) {
            Redeemed::Silence => self.counters.count("redeem_unknown"),
            Redeemed::Refused(refused) => self.refuse(now, ix, refused),
            Redeemed::Grant(grant)
                if grant.spent == Spent::Before && self.members.certificate(node).is_some() =>
            {
                // A crash may have come between the certificate and this.
                if grant.role == InviteRole::Admin && !self.members.is_admin(node) {
                    self.make_admin(now, node);
                }
                self.say_granted(now, ix, node, grant.role);
            }
            Redeemed::Grant(grant) => {
                let ticket = self.draw_ticket();
                if let Some(session) = self.admitting.get_mut(&ix) {
                    session.pending = Some(Pending {
                        ticket,
                        member: grant.member,
                        role: grant.role,
                    });
                }
                self.persist_kept(Some(ticket));
            }
        }
    }

    /// Says no. Who proved the secret may know which network it is that has no name or address for it.
    fn refuse(&mut self, now: Now, ix: JoinIx, refused: Refused) {
        if let Some(network) = self.members.network() {
            let slots = vec![slot_of(Kind::Network, &network.root.0, &[])];
            self.answer_unlinked(now, SessionId::Join(ix), slots);
        }
        self.send(SessionId::Join(ix), Message::Refused(refused));
    }

    /// The spend is on the disk: only now is the grant made (protocol §9).
    pub(super) fn on_persisted(&mut self, now: Now, ticket: u64, outcome: PersistOutcome) {
        let Some((ix, pending)) = self.admitting.iter_mut().find_map(|(ix, session)| {
            session
                .pending
                .take_if(|pending| pending.ticket == ticket)
                .map(|pending| (*ix, pending))
        }) else {
            return;
        };
        if outcome == PersistOutcome::Failed {
            return self.send(SessionId::Join(ix), Message::Refused(busy()));
        }
        let Some(node) = self.admitting.get(&ix).map(|session| session.node) else {
            return;
        };
        self.publish_about(now, node.0, Body::Member(pending.member), 0);
        if pending.role == InviteRole::Admin {
            self.make_admin(now, node);
        }
        self.say_granted(now, ix, node, pending.role);
    }

    /// Takes the root key back from its recovery code, and makes this machine an admin (protocol §8).
    ///
    /// # Errors
    /// The seed is another network's; nothing changes.
    pub fn recover(&mut self, now: Now, seed: RootSeed) -> Result<(), RecoverRefused> {
        if seed.key().network_id() != self.network {
            return Err(RecoverRefused);
        }
        self.kept.root = Some(seed);
        self.persist_kept(None);
        if !self.members.is_admin(self.me) {
            self.make_admin(now, self.me);
        }
        self.finish_turn(now);
        Ok(())
    }

    /// Signs an Admin record by the root key, if it is here.
    pub(super) fn make_admin(&mut self, now: Now, node: NodeId) {
        let Some(root) = self.kept.root.as_ref().map(RootSeed::key) else {
            return self.counters.count("admin_without_root");
        };
        let held = self
            .registry
            .get(slot_of(Kind::Admin, &node.0, &[]))
            .map_or(0, |held| held.record.seq());
        let body = Body::Admin(record::Admin { rights: ALL_RIGHTS });
        let draft = Draft {
            seq: (held + 1).max(now.unix_ms),
            subject: node.0,
            signer: root.public(),
            body,
        };
        match draft.sign_with(|bytes| root.sign(Word::Record, &[bytes])) {
            Ok(record) => self.take_own(now, record),
            Err(_) => self.counters.count("record_unsignable"),
        }
    }

    /// Tells the joiner what it needs, and sends it along.
    fn say_granted(&mut self, now: Now, ix: JoinIx, node: NodeId, role: InviteRole) {
        if !self.has_lease() {
            self.publish_lease(now);
        }
        let mut slots = self.grant_slots(node);
        let introducer = self
            .admitting
            .get(&ix)
            .and_then(|session| session.introducer);
        slots.extend(self.slots_of_introducer(introducer));
        if role == InviteRole::Admin {
            slots.push(slot_of(Kind::Admin, &node.0, &[]));
        }
        let slots = self.with_signers(slots);
        if let Some(session) = self.admitting.get_mut(&ix) {
            session.granted = true;
        }
        self.send(
            SessionId::Join(ix),
            Message::Granted(Granted {
                slots: slots.clone(),
            }),
        );
        self.on_join_want(now, ix, &slots);
        self.timers
            .set(Timer::JoinOver(ix), now.at.after(JOIN_LINGER));
    }

    /// Protocol §9: Network, the issuer's Admin, the joiner's Member, the issuer's Member, Peer and Lease, the epochs.
    fn grant_slots(&self, node: NodeId) -> Vec<Slot> {
        let root = self
            .members
            .network()
            .map_or([0; 32], |network| network.root.0);
        let me = &self.me.0;
        let mut slots = vec![
            slot_of(Kind::Network, &root, &[]),
            slot_of(Kind::Admin, me, &[]),
            slot_of(Kind::Member, &node.0, &[]),
            slot_of(Kind::Member, me, &[]),
            slot_of(Kind::Peer, me, &[]),
            slot_of(Kind::Lease, me, &[]),
        ];
        slots.extend(self.epoch_slots(&root));
        slots
    }

    /// Those of `slots` that are held, and the Admin of whoever signed one of them: the first epoch is mostly the
    /// founder's, whoever grants it, and a record whose signer is unknown is not believed.
    fn with_signers(&self, slots: Vec<Slot>) -> Vec<Slot> {
        let mut all: BTreeSet<Slot> = BTreeSet::new();
        for slot in slots {
            if let Some(held) = self.registry.get(slot) {
                all.insert(slot);
                let admin = slot_of(Kind::Admin, &held.record.signer().0, &[]);
                all.extend(self.registry.holds(admin).map(|_| admin));
            }
        }
        all.into_iter().collect()
    }

    /// What a joiner must hold of the member that brought it.
    fn slots_of_introducer(&self, introducer: Option<PeerIx>) -> Vec<Slot> {
        introducer.map_or_else(Vec::new, |peer| self.slots_to_meet(self.ids.node(peer)))
    }

    fn epoch_slots(&self, root: &[u8; 32]) -> Vec<Slot> {
        let newest = self.members.newest_epoch().map_or(0, |(n, _)| n);
        let mut numbers = vec![0, newest.saturating_sub(1), newest];
        numbers.sort_unstable();
        numbers.dedup();
        numbers
            .into_iter()
            .map(|n: u32| slot_of(Kind::Epoch, root, &n.to_le_bytes()))
            .collect()
    }

    fn on_join_want(&mut self, now: Now, ix: JoinIx, slots: &[Slot]) {
        let Some(session) = self.admitting.get(&ix) else {
            return;
        };
        let mut allowed = self.grant_slots(session.node);
        allowed.extend(self.slots_of_introducer(session.introducer));
        let allowed = self.with_signers(allowed);
        let admin = slot_of(Kind::Admin, &session.node.0, &[]);
        let may = |slot: &&Slot| allowed.contains(slot) || **slot == admin;
        if !session.granted || self.members.is_revoked(session.node) {
            return self.counters.count("join_want_before_grant");
        }
        let asked: Vec<Slot> = slots.iter().filter(may).copied().collect();
        self.answer_unlinked(now, SessionId::Join(ix), asked);
    }

    /// Answers a member's Renew: a new certificate with the same name, address and admission (protocol §8).
    pub(super) fn on_renew(&mut self, now: Now, peer: PeerIx) {
        let node = self.ids.node(peer);
        if !self.members.may_admit(self.me) {
            return self.counters.count("renew_at_no_admin");
        }
        let fresh = self
            .members
            .certificate(node)
            .is_some_and(|certificate| !admission::is_renewal_due(certificate, self.mesh_s(now)));
        let had_ended = !self.membership(now, node).is_member();
        if !fresh {
            self.renew(now, node);
        }
        if had_ended {
            self.open_for_links(now, peer);
        }
        let root = self
            .members
            .network()
            .map_or([0; 32], |network| network.root.0);
        let mut slots = vec![slot_of(Kind::Member, &node.0, &[])];
        slots.extend(self.epoch_slots(&root));
        let slots = self.with_signers(slots);
        self.send(
            SessionId::Pair(peer),
            Message::Granted(Granted {
                slots: slots.clone(),
            }),
        );
        self.answer_unlinked(now, SessionId::Pair(peer), slots);
    }

    pub(super) fn renew(&mut self, now: Now, node: NodeId) {
        if let Some(certificate) = self.members.certificate(node) {
            let member = admission::renewed(certificate, self.mesh_s(now));
            self.publish_about(now, node.0, Body::Member(member), 0);
        }
    }

    pub(super) fn drop_join_sessions_of(&mut self, node: NodeId) {
        let over: Vec<JoinIx> = self
            .admitting
            .iter()
            .filter(|(_, session)| session.node == node)
            .map(|(ix, _)| *ix)
            .collect();
        for ix in over {
            self.end_join(ix);
        }
    }

    /// A join session's time is over: a joiner that was granted nothing yet hears it, and dials again.
    pub(super) fn on_join_over(&mut self, ix: JoinIx) {
        let was_granted = |session: &Admitting| session.granted || session.endpoint.is_none();
        if !self.admitting.get(&ix).is_none_or(was_granted) {
            let bye = Bye {
                reason: Goodbye::Closing.reason(),
            };
            self.send(SessionId::Join(ix), Message::Bye(bye));
        }
        self.end_join(ix);
    }

    pub(super) fn end_join(&mut self, ix: JoinIx) {
        self.outbox.push_back(Output::Close {
            session: SessionId::Join(ix),
        });
        self.forget_join(ix);
    }

    pub(super) fn forget_join(&mut self, ix: JoinIx) {
        self.admitting.remove(&ix);
        self.unlinked.handle_down(SessionId::Join(ix));
        self.proofs.handle_down(SessionId::Join(ix));
        self.timers.clear(&Timer::Hello(SessionId::Join(ix)));
        self.timers.clear(&Timer::JoinOver(ix));
    }
}

impl Admitting {
    fn new(join_id: JoinId, node: NodeId, made: Moment) -> Self {
        Self {
            join_id,
            node,
            made,
            endpoint: None,
            introducer: None,
            heard_hello: false,
            granted: false,
            pending: None,
        }
    }
}

/// What cannot be honoured now, and cost nothing.
fn busy() -> Refused {
    Refused {
        code: BUSY,
        name: None,
        time: None,
    }
}

/// Admit, revoke, policy.
pub(super) const ALL_RIGHTS: u64 = 1 | 2 | 4;
