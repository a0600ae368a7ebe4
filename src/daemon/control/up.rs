//! `webmesh up` and `webmesh down` (design §4).

use super::Control;
use crate::{
    api::{ApiError, Code, NetworkReply, NetworkRequest},
    daemon::agent::{Agent, Downed, Place},
    node::Standing,
    platform::clock,
};

pub(super) async fn answer_up(
    control: &Control,
    request: NetworkRequest,
) -> Result<NetworkReply, ApiError> {
    control.network_look(request.network.as_deref())?;
    control.caller.ask(up).await?;
    told(control)
}

pub(super) async fn answer_down(
    control: &Control,
    request: NetworkRequest,
) -> Result<NetworkReply, ApiError> {
    control.network_look(request.network.as_deref())?;
    control.caller.ask(down).await?;
    told(control)
}

fn up(agent: &mut Agent) -> Result<(), ApiError> {
    let path = match &agent.place {
        Place::Down(downed) => downed.path.clone(),
        Place::Up(_) => return Ok(()),
        Place::Idle | Place::Joining(_) | Place::Unusable(_) => return agent.network().map(drop),
    };
    agent.wake_up(path).map_err(|error| {
        ApiError::could_not(
            Code::Internal,
            format!("the network cannot come up: {error:#}"),
        )
    })?;
    agent.publish();
    Ok(())
}

fn down(agent: &mut Agent) -> Result<(), ApiError> {
    if matches!(agent.place, Place::Down(_)) {
        return Ok(());
    }
    agent.network()?;
    if let Place::Up(network) = std::mem::replace(&mut agent.place, Place::Idle) {
        let snapshot = network.node.status(clock::now());
        let path = agent.take_down(*network, Standing::Down).path().to_owned();
        agent.place = Place::Down(Box::new(Downed { path, snapshot }));
    }
    agent.publish();
    Ok(())
}

fn told(control: &Control) -> Result<NetworkReply, ApiError> {
    let (look, network) = control.network_look(None)?;
    Ok(NetworkReply {
        network,
        own: look.status.own.clone(),
    })
}
