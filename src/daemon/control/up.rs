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
    let warning = control.caller.ask(up).await?;
    told(control, warning)
}

pub(super) async fn answer_down(
    control: &Control,
    request: NetworkRequest,
) -> Result<NetworkReply, ApiError> {
    control.network_look(request.network.as_deref())?;
    let warning = control.caller.ask(down).await?;
    told(control, warning)
}

fn up(agent: &mut Agent) -> Result<Option<ApiError>, ApiError> {
    let path = match &agent.place {
        Place::Down(downed) => downed.path.clone(),
        Place::Up(_) => return Ok(None),
        Place::Idle | Place::Joining(_) | Place::Unusable(_) => {
            return agent.network().map(|_up| None);
        }
    };
    agent.wake_up(path).map_err(|error| {
        ApiError::could_not(
            Code::Internal,
            format!("the network cannot come up: {error:#}"),
        )
    })?;
    agent.publish();
    Ok(agent
        .network()?
        .facts
        .unsaved
        .as_ref()
        .map(|why| forgotten("is down again", why)))
}

fn down(agent: &mut Agent) -> Result<Option<ApiError>, ApiError> {
    if matches!(agent.place, Place::Down(_)) {
        return Ok(None);
    }
    let network = agent.network()?;
    network.node.keep_down(Standing::Down);
    let _rest_at_the_stop = network.drain();
    let unsaved = network.facts.unsaved.clone();
    if let Place::Up(network) = std::mem::replace(&mut agent.place, Place::Idle) {
        let snapshot = network.node.status(clock::now());
        let path = agent.take_down(*network).path().to_owned();
        agent.place = Place::Down(Box::new(Downed { path, snapshot }));
    }
    agent.publish();
    Ok(unsaved.map(|why| forgotten("comes up again", &why)))
}

/// That the disk does not know what was said.
fn forgotten(what: &str, why: &str) -> ApiError {
    ApiError::warning(
        Code::Internal,
        format!("this cannot be remembered, the network {what} at the agent's next start ({why})"),
    )
    .remedy("make room on the disk of the state directory, and say it again")
}

fn told(control: &Control, warning: Option<ApiError>) -> Result<NetworkReply, ApiError> {
    let (look, network) = control.network_look(None)?;
    Ok(NetworkReply {
        network,
        own: look.status.own.clone(),
        warnings: warning.into_iter().collect(),
    })
}
