//! What the API asks of the loop: a function that the loop runs on the agent between two wakes.

use tokio::sync::{mpsc, oneshot};

use super::agent::Agent;
use crate::api::ApiError;

/// Something to do to the agent.
pub(super) type Call = Box<dyn FnOnce(&mut Agent) + Send>;

/// Calls that wait for the loop; more callers wait for room.
const WAITING: usize = 64;

/// Where calls go in.
#[derive(Clone, Debug)]
pub(super) struct Caller(mpsc::Sender<Call>);

/// A way into the loop, and its other end.
pub(super) fn channel() -> (Caller, mpsc::Receiver<Call>) {
    let (calls, inbox) = mpsc::channel(WAITING);
    (Caller(calls), inbox)
}

impl Caller {
    /// Has the loop run `ask`, and gives its answer. Whoever drops this before has the work done all the same.
    ///
    /// # Errors
    /// What `ask` says, or that the agent stops.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Agent) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |agent| {
            let _asker_gone = answer.send(ask(agent));
        });
        let stopping = || ApiError::internal("the agent stops");
        self.0.send(call).await.map_err(|_closed| stopping())?;
        answered.await.map_err(|_dropped| stopping())?
    }
}
