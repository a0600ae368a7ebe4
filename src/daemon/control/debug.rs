//! `webmesh debug bundle`.

use super::Control;
use crate::{
    api::{ApiError, DebugBundleReply, NetworkRequest},
    daemon::{agent::Agent, bundle},
};

pub(super) async fn answer(
    control: &Control,
    _one_network: NetworkRequest,
) -> Result<DebugBundleReply, ApiError> {
    let look = control.look();
    let ask = move |agent: &mut Agent| Ok(bundle::from_agent(agent, &look));
    let from_agent = control.caller.ask(ask).await?;
    Ok(DebugBundleReply {
        parts: bundle::gather(from_agent),
    })
}
