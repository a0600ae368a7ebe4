//! Tasks beside the loop: named, ended when their handle is dropped, and never dead in silence.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;

/// A running task; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` beside the loop until it ends or the handle is dropped. A panic in it ends the whole process: an agent
/// that runs without one of its parts is worse than one that is started again.
#[must_use = "the task ends when its handle is dropped"]
pub(super) fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Task {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that names and watches tasks"
    )]
    let handle = tokio::spawn(async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            tracing::error!(task = name, "A task panicked; the agent stops");
            std::process::abort();
        }
    });
    Task(handle)
}
