//! Two peers meet whom nobody brings together (design §9): what is asked of [`crate::rendezvous`], and what becomes of its
//! finds.
//!
//! Off until the shell says that there is a DHT. Then, once a second: which invites are open, whether a session stands with
//! anybody, and whether somebody is missing whom nobody of us can be dialled by.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    addr::{Path, Underlay},
    ids::NodeId,
    keys::{InviteSecret, NetSecret},
    members::{
        Standing,
        epochs::Reach,
        invites::{Invite, InviteState},
    },
    node::{Node, leasing::PEER_DIALABLE, output::Output},
    rendezvous::{
        self, Answer, Counts, Duties, Meeting, NetworkDuty, Pace, Party, Rendezvous, Seen, Side,
    },
    time::{Moment, Now},
    wire::record::Body,
};

/// How often it is looked at what there is to do.
const REVIEW: Duration = Duration::from_secs(1);

/// How often it is found out anew who is missing, though no session and no record has changed: certificates end in silence.
const PACE_AGAIN: Duration = Duration::from_mins(1);

/// Open invites that are met by: a DHT is no place for many questions.
const INVITES_MAX: usize = 4;

/// Finds that are remembered.
const MET_MAX: usize = 64;

/// Whether this host uses the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhtUse {
    /// It does.
    On,
    /// It is told not to, or cannot.
    Off,
}

/// The rendezvous of one node, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Meetings {
    rendezvous: Rendezvous,
    next_review: Option<Moment>,
    /// How busily to look for who is missing, and when that was found out; none: something changed since.
    pace: Option<(Moment, Option<Pace>)>,
    met: BTreeMap<NodeId, u64>,
}

/// What `status` shows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeetingView {
    /// Where the world sees this machine.
    pub seen: Option<Seen>,
    /// Whether that is an address of its own interfaces: no NAT.
    pub is_bare: bool,
    /// Who was found by the DHT in this run, and when, unix s.
    pub met: BTreeMap<NodeId, u64>,
}

impl Meetings {
    pub(super) fn new(me: NodeId, seed: [u8; 32]) -> Self {
        Self {
            rendezvous: Rendezvous::new(me, seed),
            next_review: None,
            pace: None,
            met: BTreeMap::new(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        let rendezvous = self.rendezvous.poll_timeout();
        self.next_review.into_iter().chain(rendezvous).min()
    }

    pub(super) fn handle_interfaces(&mut self, now: Now, interfaces: &[Underlay]) {
        self.rendezvous.handle_interfaces(now, interfaces);
    }

    fn note(&mut self, now: Now, node: NodeId) {
        if self.met.len() < MET_MAX || self.met.contains_key(&node) {
            self.met.insert(node, now.unix_s());
        }
    }
}

impl Node {
    /// Whether the DHT may be asked. Off until this is called.
    pub fn use_dht(&mut self, now: Now, dht: DhtUse) {
        self.meetings.next_review = match dht {
            DhtUse::On => self.meetings.next_review.or(Some(now.at)),
            DhtUse::Off => None,
        };
        if dht == DhtUse::Off {
            let mesh_now = self.mesh_now(now);
            let rendezvous = &mut self.meetings.rendezvous;
            rendezvous.handle_duties(mesh_now, Duties::default());
        }
        self.finish_turn(now);
    }

    /// This machine was let in by one whom the DHT has found.
    pub fn note_met_by_dht(&mut self, now: Now, node: NodeId) {
        self.meetings.note(now, node);
    }

    /// What came of the DHT.
    pub fn meeting_view(&self) -> MeetingView {
        let seen = self.meetings.rendezvous.seen().cloned();
        let interfaces = self.candidates.interfaces();
        let is_own = |address: &Underlay| interfaces.contains(address);
        MeetingView {
            is_bare: seen
                .as_ref()
                .is_some_and(|seen| seen.addresses.iter().all(is_own)),
            seen,
            met: self.meetings.met.clone(),
        }
    }

    /// Whether the DHT is being asked where others are.
    pub(super) fn is_asking_dht(&self) -> bool {
        let pace = self.meetings.pace.and_then(|(_, pace)| pace);
        let is_looking = matches!(pace, Some(Pace::Lonely | Pace::Watching));
        self.meetings.next_review.is_some() && is_looking
    }

    /// Its counters, those that are not 0.
    pub(super) fn meeting_counts(&self) -> Vec<(&'static str, u64)> {
        let Counts {
            reads,
            writes,
            conflicts,
            poisoned,
            unreadable,
            probes,
            soundings,
        } = self.meetings.rendezvous.counts();
        let all = [
            ("dht_read", reads),
            ("dht_written", writes),
            ("dht_conflict", conflicts),
            ("dht_poisoned", poisoned),
            ("dht_unreadable", unreadable),
            ("dht_probe", probes),
            ("dht_own_address_asked", soundings),
        ];
        all.into_iter().filter(|(_, count)| *count != 0).collect()
    }

    pub(super) fn on_slot_answer(&mut self, now: Now, answer: Answer) {
        let mesh_now = self.mesh_now(now);
        let (mesh_s, admin_seen_s) = (mesh_now.unix_s(), self.admin_seen_s());
        let members = &self.members;
        let is_member = |node| {
            let standing = members.standing(node, mesh_s, admin_seen_s);
            !matches!(standing, Standing::Stranger | Standing::Revoked)
        };
        let rendezvous = &mut self.meetings.rendezvous;
        rendezvous.handle_answer(mesh_now, answer, &is_member);
    }

    pub(super) fn on_dht_datagram(&mut self, now: Now, source: Underlay, bytes: &[u8]) {
        let mesh_now = self.mesh_now(now);
        let rendezvous = &mut self.meetings.rendezvous;
        rendezvous.handle_datagram(mesh_now, source, bytes);
    }

    /// A session with a node stands. If nothing lies between it is not looked for any more, and was found if it was.
    pub(super) fn note_met(&mut self, now: Now, node: NodeId, at: Path) {
        if at.direct().is_some() && self.meetings.rendezvous.handle_met(now, node) {
            self.meetings.note(now, node);
        }
        if let Some(next) = &mut self.meetings.next_review {
            *next = now.at;
        }
    }

    pub(super) fn tend_meetings(&mut self, now: Now) {
        let mesh_now = self.mesh_now(now);
        self.meetings.rendezvous.handle_timeout(mesh_now);
    }

    pub(super) fn review_meetings(&mut self, now: Now) {
        if self.meetings.next_review.is_none_or(|next| next > now.at) {
            return;
        }
        self.meetings.next_review = Some(now.at.after(REVIEW));
        let pace = self.pace_now(now);
        let duties = Duties {
            meetings: self.open_meetings(now),
            network: pace.map(|pace| self.network_duty(now, pace)),
        };
        let mesh_now = self.mesh_now(now);
        self.meetings.rendezvous.handle_duties(mesh_now, duties);
    }

    pub(super) fn drain_meetings(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.meetings.rendezvous.poll_output() {
            any = true;
            match output {
                rendezvous::Output::Ask(ask) => self.outbox.push_back(Output::Slot(ask)),
                rendezvous::Output::Datagram { to, bytes } => {
                    let to = Path::Direct(to);
                    self.note_sent(now, to);
                    self.outbox.push_back(Output::Datagram { to, bytes });
                }
                rendezvous::Output::Probe { party, to } => self.probe(now, party, to),
            }
        }
        any
    }

    fn probe(&mut self, now: Now, party: Party, to: Underlay) {
        if !self.candidates.is_usable(to) {
            return self.counters.count("dht_address_unusable");
        }
        match party {
            Party::Member { node, epoch } => self.knock_at(now, node, epoch, to),
            Party::Joiner { join_id, .. } => {
                let invite = self.invites.find(join_id, now.unix_s());
                if let Some(invite) = invite.map(|invite| invite.secret.clone()) {
                    self.punch(now, to, &invite);
                }
            }
            Party::Issuer { .. } => self.counters.count("dht_issuer_of_nobody"),
        }
    }

    /// Opens the own NAT for a joiner that is on its way.
    pub(super) fn punch(&mut self, now: Now, to: Underlay, invite: &InviteSecret) {
        if !self.candidates.is_usable(to) {
            return;
        }
        self.note_sent(now, to.into());
        self.outbox.push_back(Output::Punch {
            to,
            invite: invite.clone(),
            stamp: now.unix_ms,
        });
    }

    fn knock_at(&mut self, now: Now, node: NodeId, epoch: u32, to: Underlay) {
        if node == self.me || !self.may_open(now, node) {
            return self.counters.count("dht_not_member");
        }
        let peer = self.ids.intern(node);
        if self.is_up(peer) {
            return;
        }
        self.dial_under(now, peer, vec![to.into()], Some(epoch));
    }

    fn mesh_now(&self, now: Now) -> Now {
        Now {
            at: now.at,
            unix_ms: self.mesh_time.mesh_ms(now),
        }
    }

    /// The newest of the invites that may still be used. Who can be reached from outside needs nobody's help.
    fn open_meetings(&self, now: Now) -> Vec<Meeting> {
        if self.is_dialable(self.me) {
            return Vec::new();
        }
        let now_s = now.unix_s();
        let is_open = |invite: &&Invite| matches!(invite.state(now_s), InviteState::Open { .. });
        let open: Vec<_> = self.invites.list(now_s).filter(is_open).collect();
        let newest = open.iter().rev().take(INVITES_MAX);
        newest
            .map(|invite| Meeting {
                secret: invite.secret.clone(),
                side: Side::Issuer,
            })
            .collect()
    }

    fn network_duty(&self, now: Now, pace: Pace) -> NetworkDuty {
        let mesh_s = self.mesh_s(now);
        let epochs: Vec<(u32, NetSecret)> = self
            .members
            .newest_epochs()
            .take(2)
            .filter(|(n, _)| self.members.reach_of_epoch(*n, mesh_s) == Reach::Everyone)
            .map(|(n, secret)| (n, secret.clone()))
            .collect();
        NetworkDuty { epochs, pace }
    }

    /// A record came: whether it may change who is missing. Leases come all the time, and do not.
    pub(super) fn review_pace_after(&mut self, body: &Body) {
        let changes = match body {
            Body::Network(_)
            | Body::Admin(_)
            | Body::Member(_)
            | Body::Peer(_)
            | Body::Revoke(_)
            | Body::Epoch(_) => true,
            Body::Lease(_)
            | Body::Service(_)
            | Body::Heartbeat(_)
            | Body::Invite(..)
            | Body::Opaque => false,
        };
        if changes {
            self.meetings.pace = None;
        }
    }

    /// A session with somebody stands, or ended.
    pub(super) fn review_pace(&mut self) {
        self.meetings.pace = None;
    }

    /// As [`Self::pace`], which asks about every member: found out when something changed.
    fn pace_now(&mut self, now: Now) -> Option<Pace> {
        if let Some((since, pace)) = self.meetings.pace
            && now.at.since(since) < PACE_AGAIN
        {
            return pace;
        }
        let pace = self.pace(now);
        self.meetings.pace = Some((now.at, pace));
        pace
    }

    /// How busily to look for members who are missing; None: nobody is, or others do.
    fn pace(&self, now: Now) -> Option<Pace> {
        let is_up = |node: NodeId| self.ids.find(node).is_some_and(|peer| self.is_up(peer));
        let (mut component, mut is_missing) = (vec![self.me], false);
        for (node, _) in self.members.nodes() {
            if node == self.me || !self.may_open(now, node) {
                continue;
            }
            if is_up(node) {
                component.push(node);
            } else {
                is_missing = true;
            }
        }
        if !is_missing {
            return None;
        }
        if component.len() == 1 {
            return Some(Pace::Lonely);
        }
        let is_least = component.iter().min() == Some(&self.me);
        let dialable = component.iter().filter(|node| self.is_dialable(**node));
        let writers = u32::try_from(dialable.count()).unwrap_or(u32::MAX);
        if self.is_dialable(self.me) {
            let surveys = is_least;
            return Some(Pace::Dialable { writers, surveys });
        }
        (is_least && writers == 0).then_some(Pace::Watching)
    }

    fn is_dialable(&self, node: NodeId) -> bool {
        let peer = self.members.peer(node);
        peer.is_some_and(|peer| peer.flags & PEER_DIALABLE != 0)
    }
}
