//! `webmesh invite`, `invite list`, `invite cancel`.

use super::Control;
use crate::{
    addr::Underlay,
    api::{
        self, ApiError, InviteCancelReply, InviteCancelRequest, InviteListReply, InviteReply,
        InviteRequest, NetworkRequest, OpenInvite,
    },
    daemon::{agent::Agent, network::Network, sealing, view},
    keys::InviteSecret,
    members::invites::{CancelRefused, Invite, InviteRole},
    node::{InviteOptions, InviteRefused, status::Role},
    paths::allowed::is_private,
    platform::clock,
};

pub(super) async fn answer(
    control: &Control,
    request: InviteRequest,
) -> Result<InviteReply, ApiError> {
    if let Some(error) = request.unbuilt() {
        return Err(error);
    }
    control.network_look(request.network.as_deref())?;
    control
        .caller
        .ask(move |agent| invite(agent, &request))
        .await
}

pub(super) async fn answer_list(
    control: &Control,
    request: NetworkRequest,
) -> Result<InviteListReply, ApiError> {
    let (_, network) = control.network_look(request.network.as_deref())?;
    let invites = control
        .caller
        .ask(|agent| Ok(open_invites(agent.network()?)))
        .await?;
    Ok(InviteListReply {
        network: network.name,
        invites: invites.into_iter().map(open_invite).collect(),
    })
}

pub(super) async fn answer_cancel(
    control: &Control,
    request: InviteCancelRequest,
) -> Result<InviteCancelReply, ApiError> {
    let (_, network) = control.network_look(request.network.as_deref())?;
    control
        .caller
        .ask(move |agent| cancel(agent, &request.id, &network.name))
        .await
}

fn invite(agent: &mut Agent, request: &InviteRequest) -> Result<InviteReply, ApiError> {
    let network = agent.network()?;
    let now = clock::now();
    let nat = view::nat(&network.node.status(now));
    let secret = InviteSecret(sealing::draw());
    let options = InviteOptions {
        secret: secret.clone(),
        expires_in_s: request.expires_s,
        uses: request.uses,
        role: match request.role {
            api::Role::Admin => InviteRole::Admin,
            api::Role::Member | api::Role::Leaf => InviteRole::Member,
        },
        offers: request
            .services
            .clone()
            .unwrap_or_else(|| vec!["*".to_owned()]),
    };
    let token = network
        .node
        .invite(now, options)
        .map_err(|refused| refusal(network, refused))?;
    let _rest_next_turn = network.drain();
    if let Some(why) = &network.facts.unsaved {
        return Err(ApiError::internal(format!(
            "the invite cannot be stored: {why}"
        )));
    }
    let join_id = secret.join_id();
    let id = network
        .node
        .invites(now)
        .into_iter()
        .find(|(_, invite)| invite.id() == join_id);
    Ok(InviteReply {
        network: network.node.status(now).name,
        id: id.map(|(id, _)| id).unwrap_or_default(),
        token: token.to_string(),
        expires: u64::from(token.expires),
        uses: request.uses,
        role: request.role,
        warning: warning(&token.hints, network.dht.is_on(), nat),
    })
}

/// Why a machine elsewhere may not get in by a token with these addresses.
fn warning(hints: &[Underlay], has_dht: bool, nat: api::Nat) -> Option<String> {
    if !hints.iter().all(|hint| is_private(hint.ip())) {
        return None;
    }
    match (has_dht, nat) {
        (false, _) => Some(
            "the token has only addresses of this LAN, and the DHT is off here: machines elsewhere cannot find this one. Would help: a member with a public address, a port mapping at the router, or the agent's --config packaging/config.toml, at both ends"
                .to_owned(),
        ),
        (true, api::Nat::Hard) => Some(
            "the NAT here gives a new port per destination: a machine behind another NAT may not get in. Would help: a machine with a public address that joins first, or a port mapping at the router"
                .to_owned(),
        ),
        (true, api::Nat::None | api::Nat::Easy | api::Nat::Unknown) => None,
    }
}

fn refusal(network: &Network, refused: InviteRefused) -> ApiError {
    let status = network.node.status(clock::now());
    let admins: Vec<&str> = status
        .peers
        .iter()
        .filter(|peer| peer.role == Role::Admin)
        .map(|peer| peer.name.as_str())
        .collect();
    match refused {
        InviteRefused::NotAdmin => {
            ApiError::not_admin(api::Verb::Invite, &status.own.name, &status.name, &admins)
        }
        InviteRefused::NoRootKey => ApiError::root_elsewhere(
            &status.name,
            admins.first().copied().unwrap_or("another machine"),
        ),
        InviteRefused::NoAddress => ApiError::could_not(
            api::Code::Internal,
            "this machine has no address that another could join at",
        )
        .remedy("connect it to a network first"),
    }
}

fn open_invites(network: &Network) -> Vec<(String, Invite)> {
    let now = clock::now();
    let is_open = |invite: &Invite| {
        invite.cancelled_s.is_none() && invite.expires_s > now.unix_s() && uses_left(invite) != 0
    };
    network
        .node
        .invites(now)
        .into_iter()
        .filter(|(_, invite)| is_open(invite))
        .collect()
}

fn open_invite((id, invite): (String, Invite)) -> OpenInvite {
    OpenInvite {
        id,
        role: match invite.role {
            InviteRole::Admin => api::Role::Admin,
            InviteRole::Member => api::Role::Member,
        },
        uses_left: uses_left(&invite),
        expires: invite.expires_s,
        used_by: used_by(&invite),
    }
}

fn cancel(agent: &mut Agent, id: &str, name: &str) -> Result<InviteCancelReply, ApiError> {
    let network = agent.network()?;
    let now = clock::now();
    let join_id = network
        .node
        .cancel_invite(now, id)
        .map_err(|refused| match refused {
            CancelRefused::Ambiguous(_) => {
                ApiError::bad_request(format!("several invites begin with {id:?}"))
                    .remedy("give more letters: webmesh invite list")
            }
            CancelRefused::Unknown(_) => {
                let known = open_invites(network);
                ApiError::no_such_name(
                    "open invite",
                    id,
                    name,
                    known.iter().map(|(id, _)| id.as_str()),
                )
            }
        })?;
    let _rest_next_turn = network.drain();
    if let Some(why) = &network.facts.unsaved {
        return Err(ApiError::internal(format!(
            "the invite is cancelled until the agent stops, which cannot be stored: {why}"
        )));
    }
    let cancelled = network
        .node
        .invites(now)
        .into_iter()
        .find(|(_, invite)| invite.id() == join_id);
    Ok(match cancelled {
        Some((id, invite)) => InviteCancelReply {
            id,
            used_by: used_by(&invite),
        },
        None => InviteCancelReply {
            id: id.to_owned(),
            used_by: Vec::new(),
        },
    })
}

fn uses_left(invite: &Invite) -> u32 {
    invite
        .uses
        .saturating_sub(u32::try_from(invite.spends.len()).unwrap_or(u32::MAX))
}

fn used_by(invite: &Invite) -> Vec<String> {
    invite
        .spends
        .iter()
        .map(|spend| spend.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_that_leads_into_a_lan_alone_is_warned_of() {
        let hint = |text: &str| Underlay::new(text.parse().unwrap());
        let near = [hint("192.168.1.2:41820")];
        let warned = |has_dht, nat| warning(&near, has_dht, nat).unwrap_or_default();
        assert!(warned(false, api::Nat::Unknown).contains("the DHT is off here"));
        assert!(warned(true, api::Nat::Hard).contains("a new port per destination"));
        assert_eq!(warned(true, api::Nat::Easy), "");
        let far = [near[0], hint("203.0.113.9:41820")];
        assert_eq!(warning(&far, false, api::Nat::Hard), None);
    }
}
