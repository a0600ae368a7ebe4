//! `webmesh leave`: says so, closes everything, and forgets the network.

use super::Control;
use crate::{
    api::{ApiError, LeaveRequest, NetworkReply},
    daemon::{
        agent::{Agent, Place},
        state_dir::NetworkFolder,
    },
    node::status::{Role, Snapshot},
    platform::clock,
};

pub(super) async fn answer(
    control: &Control,
    request: LeaveRequest,
) -> Result<NetworkReply, ApiError> {
    let (_, network) = control.network_look(None)?;
    if network.name != request.network {
        return Err(ApiError::left_other(&request.network, &network.name));
    }
    control
        .caller
        .ask(move |agent| leave(agent, &request))
        .await?;
    Ok(NetworkReply {
        network,
        own: None,
        warnings: Vec::new(),
    })
}

fn leave(agent: &mut Agent, request: &LeaveRequest) -> Result<(), ApiError> {
    let snapshot = match &agent.place {
        Place::Up(network) => network.node.status(clock::now()),
        Place::Down(downed) => downed.snapshot.clone(),
        Place::Idle | Place::Joining(_) | Place::Unusable(_) => return agent.network().map(drop),
    };
    if is_last_admin(&snapshot) && !request.yes {
        return Err(ApiError::last_admin(&snapshot.name));
    }
    let folder = match std::mem::replace(&mut agent.place, Place::Idle) {
        Place::Up(network) => Ok(agent.take_down(*network)),
        Place::Down(downed) => NetworkFolder::open(downed.path)
            .map(|(folder, _)| folder)
            .map_err(anyhow::Error::from),
        Place::Idle | Place::Joining(_) | Place::Unusable(_) => return Ok(()),
    };
    let removed =
        folder.and_then(|folder| agent.state_dir.remove(folder).map_err(anyhow::Error::from));
    agent.publish();
    removed.map_err(|error| {
        ApiError::internal(format!(
            "a part of the state could not be removed: {error:#}"
        ))
    })
}

fn is_last_admin(snapshot: &Snapshot) -> bool {
    let others = snapshot.peers.iter().any(|peer| peer.role == Role::Admin);
    snapshot.own.role == Role::Admin && !others && !snapshot.peers.is_empty()
}
