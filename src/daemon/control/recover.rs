//! `webmesh recover CODE`: makes this machine an admin by the root's seed (protocol §8).

use super::Control;
use crate::{
    api::{ApiError, RecoverReply, RecoverRequest},
    daemon::agent::Agent,
    keys::RootSeed,
    platform::clock,
};

pub(super) async fn answer(
    control: &Control,
    request: RecoverRequest,
) -> Result<RecoverReply, ApiError> {
    let (_, network) = control.network_look(request.network.as_deref())?;
    let seed =
        RootSeed::parse_code(&request.code).map_err(|_refused| ApiError::wrong_recovery_code())?;
    control
        .caller
        .ask(move |agent| recover(agent, seed))
        .await?;
    let (look, _) = control.network_look(None)?;
    let own = look.status.own.clone().ok_or_else(ApiError::no_network)?;
    Ok(RecoverReply { network, own })
}

fn recover(agent: &mut Agent, seed: RootSeed) -> Result<(), ApiError> {
    let network = agent.network()?;
    network
        .node
        .recover(clock::now(), seed)
        .map_err(|_refused| ApiError::wrong_recovery_code())?;
    let _rest_next_turn = network.drain();
    agent.publish();
    Ok(())
}
