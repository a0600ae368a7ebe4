//! `webmesh policy show`: the one rule there is until policies are built (design §10).

use super::Control;
use crate::api::{ApiError, NetworkRequest, PolicyReply, PolicyRule};

/// The default policy, as `init` tells it.
pub(super) const DEFAULT: &str = "members may reach every port of each other";

pub(super) fn answer(control: &Control, request: &NetworkRequest) -> Result<PolicyReply, ApiError> {
    let (_, network) = control.network_look(request.network.as_deref())?;
    Ok(PolicyReply {
        network: network.name,
        rules: vec![PolicyRule {
            number: 1,
            rule: "members → members: everything".to_owned(),
            source: "default".to_owned(),
        }],
    })
}
