//! Transports of sessions, as far as the control thread has to do with them: what their keys are made of, and what a person
//! is told.

use super::network::Network;
use crate::{
    datapath::command::{Command, TransportParts},
    ids::SessionId,
    node::{Identity, output::OtherEnd},
    transport::{Failure, Terms, schedule::End, suite::Suite},
};

impl Network {
    /// Lets the data thread make keys with another end.
    pub(super) fn begin_transport(&self, session: SessionId, other: &OtherEnd) {
        let Identity { key, tunnel, boot } = &self.identity;
        let parts = TransportParts {
            network: self.node.network_id(),
            local: End {
                node: key.id(),
                tunnel: tunnel.public(),
            },
            remote: End {
                node: other.node,
                tunnel: other.tunnel,
            },
            psk: other.psk,
            terms: Terms {
                aes: self.aes,
                boot: *boot,
            },
        };
        let parts = Box::new(parts);
        self.data.tell(Command::Transport { session, parts });
    }

    /// Both ends have keys, or why they have none.
    pub(super) fn on_keys(&mut self, session: SessionId, result: Result<Suite, Failure>) {
        match result {
            Ok(suite) => tracing::debug!(?session, %suite, "A transport has new keys"),
            Err(why) => tracing::debug!(?session, %why, "A transport has no new keys"),
        }
        self.traffic.note_keys(session, result.err());
    }
}
