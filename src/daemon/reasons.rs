//! What the node says of why a peer is reached as it is, as the API tells it. Conversion only: the judgement is
//! [`crate::paths::why`]'s.

use super::{network::Network, port_mapping::Finding, view};
use crate::{
    addr::Underlay,
    api::{
        self, ApiError, PathKind, WhyAddress, WhyBefore, WhyCause, WhyChange, WhyOutcome, WhyPath,
        WhyRemedy, WhySource, WhyVersions, WhyWay,
    },
    ids::NodeId,
    node::{
        Node,
        explaining::{Answer, ChangeView, Router, WayView},
        status::{PeerView, Snapshot},
    },
    paths::{
        class::Class,
        why::{Address, Cause, Outcome, Remedy, Source, Versions},
    },
    time::Now,
};

/// What a person asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// A name or an address.
    pub(super) name: String,
    /// A TCP port.
    pub(super) port: Option<u16>,
}

impl Asked {
    /// Reads `NAME`, `NAME:PORT`, an address, or `[ADDRESS]:PORT`.
    ///
    /// # Errors
    /// What stands behind the colon is no port.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let whole = |name: &str, port| Self {
            name: name.trim_matches(['[', ']']).to_owned(),
            port,
        };
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(whole(text, None));
        }
        match text.rsplit_once(':') {
            None => Ok(whole(text, None)),
            Some((name, port)) => match port.parse() {
                Ok(port) if port != 0 && !name.is_empty() => Ok(whole(name, Some(port))),
                Ok(_) | Err(_) => Err(ApiError::bad_request(format!(
                    "{text:?} is no name and no port of one"
                ))
                .remedy("give NAME or NAME:PORT, such as anna:22")),
            },
        }
    }
}

/// Nobody is called so, and no address of the network is that.
pub(super) fn nobody(name: &str, node: &Node, status: &Snapshot) -> ApiError {
    if let Ok(address) = name.parse() {
        return ApiError::foreign_address(address, &status.name);
    }
    let known = node.known_names(crate::platform::clock::now());
    let known = known.iter().map(String::as_str);
    ApiError::no_such_name("peer or service", name, &status.name, known)
}

/// How packets reach a peer, and why not better.
///
/// # Errors
/// The peer is not known any more.
pub(super) fn path(
    now: Now,
    network: &Network,
    node: NodeId,
    answer: Answer,
) -> Result<WhyPath, ApiError> {
    let status = network.node.status(now);
    let view = status.peers.iter().find(|view| view.id == node);
    let router = router(&network.facts.mapping);
    let why = network.node.why(now, node, (router, answer));
    let (Some(view), Some(why)) = (view, why) else {
        return Err(ApiError::internal("the peer is gone meanwhile"));
    };
    let name_of = |node: &NodeId| network.node.name_of(*node);
    let names = |nodes: &[NodeId]| nodes.iter().map(name_of).collect();
    let judgement = &why.judgement;
    let mut peer = view::peer(now, network, view);
    if answer == Answer::Missing {
        (peer.path, peer.rtt_ms) = (None, None);
    }
    Ok(WhyPath {
        rtt_ms: peer.rtt_ms,
        cause: cause(judgement.cause),
        remedy: judgement.remedy.map(remedy),
        before: before(&network.node.ways_taken(node), peer.path.as_ref()),
        addresses: why
            .facts
            .addresses
            .iter()
            .map(|one| address(now, one, &names))
            .collect(),
        next_try_s: judgement.next_try_s(now),
        asked: names(&why.called),
        absent: names(&why.absent),
        last_heard_s: peer.last_heard_s,
        unplugged: Vec::new(),
        port: network.facts.port,
        versions_here: versions(why.facts.here.versions),
        versions_there: versions(why.facts.there.versions),
        path: peer.path,
    })
}

/// The word of [`path`] for the path of a peer that is not reached directly.
pub(super) fn code(now: Now, network: &Network, view: &PeerView) -> Option<String> {
    let router = router(&network.facts.mapping);
    let why = network.node.why(now, view.id, (router, Answer::Presumed))?;
    Some(cause(why.judgement.cause).code())
}

/// The ways to a peer in the last day, the oldest first.
pub(super) fn changes(node: &Node, peer: NodeId) -> Vec<WhyChange> {
    node.ways_taken(peer).iter().map(change).collect()
}

fn change(change: &ChangeView) -> WhyChange {
    let (way, path) = match &change.way {
        WayView::Path {
            class,
            endpoint,
            via,
        } => (WhyWay::Path, Some(path_of(*class, *endpoint, via))),
        WayView::Closed => (WhyWay::NoSession, None),
        WayView::Unreached => (WhyWay::Unreached, None),
    };
    WhyChange {
        at_ms: change.at_ms,
        way,
        path,
        cause: change.cause.map(cause),
    }
}

fn path_of(class: Class, endpoint: Option<Underlay>, via: &[String]) -> api::Path {
    let kind = match class {
        Class::Lan | Class::Direct => PathKind::Direct,
        Class::Relay | Class::TwoRelays => PathKind::Relay,
        Class::Stream => PathKind::Stream,
    };
    api::Path {
        kind,
        endpoint: endpoint.map(|endpoint| endpoint.to_string()),
        via: Some(via.join(", ")).filter(|via| !via.is_empty()),
        why: None,
    }
}

/// The path right before the one of now, if it belonged to the same session.
fn before(changes: &[ChangeView], current: Option<&api::Path>) -> Option<WhyBefore> {
    current?;
    let [.., earlier, last] = changes else {
        return None;
    };
    let path = change(earlier).path?;
    change(last).path?;
    Some(WhyBefore {
        path,
        for_ms: last.at_ms.saturating_sub(earlier.at_ms),
    })
}

fn address(now: Now, one: &Address, names: &impl Fn(&[NodeId]) -> Vec<String>) -> WhyAddress {
    let (source, seen_by) = match &one.source {
        Source::OwnLan => (WhySource::Lan, Vec::new()),
        Source::OwnV6 => (WhySource::Ipv6, Vec::new()),
        Source::Own => (WhySource::Public, Vec::new()),
        Source::Itself => (WhySource::Packets, Vec::new()),
        Source::Seen(observers) => (WhySource::Seen, names(observers)),
    };
    let in_s = |until: crate::time::Moment| Some(until.since(now.at).as_secs());
    let (outcome, sent, again_s) = match one.outcome {
        Outcome::Taken => (WhyOutcome::InUse, None, None),
        Outcome::Spare => (WhyOutcome::Spare, None, None),
        Outcome::NoAnswer(sent) => (WhyOutcome::NoAnswer, Some(sent), None),
        Outcome::HeldBack(sent, until) => (WhyOutcome::NoAnswer, Some(sent), in_s(until)),
        Outcome::Waiting(until) => (WhyOutcome::Waiting, None, in_s(until)),
        Outcome::Trying => (WhyOutcome::Trying, None, None),
        Outcome::Barred(until) => (WhyOutcome::Failed, None, in_s(until)),
        Outcome::NoV4 => (WhyOutcome::NoIpv4, None, None),
        Outcome::NoV6 => (WhyOutcome::NoIpv6, None, None),
        Outcome::OtherSite => (WhyOutcome::OtherSite, None, None),
        Outcome::Unattested => (WhyOutcome::Unattested, None, None),
        Outcome::Many => (WhyOutcome::Many, None, None),
        Outcome::Unneeded => (WhyOutcome::Unneeded, None, None),
    };
    WhyAddress {
        address: one.address.to_string(),
        source,
        seen_by,
        outcome,
        sent,
        again_s,
    }
}

fn router(mapping: &Finding) -> Router {
    match mapping {
        Finding::Behind { .. } => Router::BehindAnother,
        Finding::Off
        | Finding::Unneeded
        | Finding::Asking
        | Finding::Mapped { .. }
        | Finding::None(_) => Router::Other,
    }
}

fn versions(versions: Versions) -> WhyVersions {
    WhyVersions {
        ipv4: versions.v4,
        ipv6: versions.v6,
    }
}

fn cause(cause: Cause) -> WhyCause {
    match cause {
        Cause::Lan => WhyCause::Lan,
        Cause::OpenThere => WhyCause::OpenThere,
        Cause::OpenHere => WhyCause::OpenHere,
        Cause::BareThere => WhyCause::BareThere,
        Cause::BareHere => WhyCause::BareHere,
        Cause::Punched => WhyCause::Punched,
        Cause::Trying => WhyCause::Trying,
        Cause::JustFailed => WhyCause::JustFailed,
        Cause::NoCommonVersion => WhyCause::NoCommonVersion,
        Cause::UdpBlockedHere => WhyCause::UdpBlockedHere,
        Cause::UdpBlockedThere => WhyCause::UdpBlockedThere,
        Cause::BothHard => WhyCause::BothHard,
        Cause::HardHere => WhyCause::HardHere,
        Cause::HardThere => WhyCause::HardThere,
        Cause::FirewallHere => WhyCause::FirewallHere,
        Cause::FirewallThere => WhyCause::FirewallThere,
        Cause::DoubleNat => WhyCause::DoubleNat,
        Cause::NoAddress => WhyCause::NoAddress,
        Cause::NoAnswer => WhyCause::NoAnswer,
        Cause::Offline => WhyCause::Offline,
        Cause::NoRelay => WhyCause::NoRelay,
        Cause::Lost => WhyCause::Lost,
        Cause::Meeting => WhyCause::Meeting,
        Cause::Calling => WhyCause::Calling,
        Cause::Silence => WhyCause::Silence,
        Cause::Left => WhyCause::Left,
        Cause::PeerOff => WhyCause::PeerOff,
        Cause::Unasked => WhyCause::Unasked,
        Cause::Revoked => WhyCause::Revoked,
    }
}

fn remedy(remedy: Remedy) -> WhyRemedy {
    match remedy {
        Remedy::PortMapping => WhyRemedy::PortMapping,
        Remedy::PortMappingThere => WhyRemedy::PortMappingThere,
        Remedy::UdpHere => WhyRemedy::UdpHere,
        Remedy::UdpThere => WhyRemedy::UdpThere,
        Remedy::FirewallHere => WhyRemedy::FirewallHere,
        Remedy::FirewallThere => WhyRemedy::FirewallThere,
        Remedy::CommonVersion => WhyRemedy::CommonVersion,
        Remedy::Online => WhyRemedy::Online,
        Remedy::PeerOn => WhyRemedy::PeerOn,
        Remedy::EitherOn => WhyRemedy::EitherOn,
        Remedy::Relay => WhyRemedy::Relay,
        Remedy::Patience => WhyRemedy::Patience,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stands_behind_the_last_colon_unless_it_is_an_address() {
        let parse = |text: &str| Asked::parse(text).map(|asked| (asked.name, asked.port));
        let is = |name: &str, port| Ok((name.to_owned(), port));
        assert_eq!(parse("anna"), is("anna", None));
        assert_eq!(parse("anna:22"), is("anna", Some(22)));
        assert_eq!(parse("100.71.3.4:80"), is("100.71.3.4", Some(80)));
        assert_eq!(parse("fd7c::1"), is("fd7c::1", None));
        assert_eq!(parse("[fd7c::1]:22"), is("fd7c::1", Some(22)));
        for text in ["anna:", "anna:ssh", "anna:0", ":22", "anna:70000"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_path_before_counts_within_one_session() {
        let path = |at_ms, class| ChangeView {
            at_ms,
            way: WayView::Path {
                class,
                endpoint: None,
                via: vec!["vps".to_owned()],
            },
            cause: None,
        };
        let closed = ChangeView {
            way: WayView::Closed,
            ..path(1000, Class::Relay)
        };
        let current = path_of(Class::Direct, None, &[]);
        let relayed_first = [path(1000, Class::Relay), path(1200, Class::Direct)];
        let found = before(&relayed_first, Some(&current)).unwrap();
        assert_eq!(
            (found.for_ms, found.path.via),
            (200, Some("vps".to_owned()))
        );
        assert_eq!(before(&relayed_first, None), None);
        assert_eq!(
            before(&[closed, path(1200, Class::Direct)], Some(&current)),
            None
        );
        assert_eq!(before(&relayed_first[1..], Some(&current)), None);
    }
}
