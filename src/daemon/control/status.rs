//! `webmesh status`: the newest look, whole; with `watch` every newer one.

use std::time::Duration;

use axum::response::Response;

use super::{Control, lines, reply, talk_line};
use crate::api::{ApiError, StatusRequest};

/// How often a watcher is told at most.
const PACE: Duration = Duration::from_secs(1);

pub(super) fn answer(control: &Control, request: StatusRequest) -> Result<Response, ApiError> {
    if request.network.is_some() {
        control.network_look(request.network.as_deref())?;
    }
    if request.watch {
        return Ok(watch(control));
    }
    let look = control.look();
    if request.all {
        reply(&[&look.status])
    } else {
        reply(&look.status)
    }
}

fn watch(control: &Control) -> Response {
    let mut look = control.look.clone();
    lines(|out| async move {
        loop {
            let line = talk_line(&look.borrow_and_update().status);
            if out.send(line).await.is_err() {
                return;
            }
            tokio::time::sleep(PACE).await;
            if look.changed().await.is_err() {
                return;
            }
        }
    })
}
