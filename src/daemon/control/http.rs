//! HTTP/1.1 on the socket: how long a client may take, and how much it may send. What is asked is `control`'s.

use std::{convert::Infallible, time::Duration};

use axum::{body::Bytes, response::Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{Request, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};

use super::{
    Asker, Control, answer,
    listener::{Connection, Listener},
};
use crate::api::{self, ApiError, Code};

/// How long a client may take for a request's head, and then for its body; also how long it may keep a connection on which
/// it asks nothing. A request is some hundred bytes from a process on this machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of one connection's buffer: the least that hyper takes. A head that does not fit is refused.
const BUFFER: usize = 8 * 1024;

/// Answers clients until it is dropped.
pub(super) async fn serve(listener: Listener, control: Control) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            connection = listener.accept() => {
                conversations.spawn(converse(connection, control.clone()));
            }
            Some(ended) = conversations.join_next() => survive(ended),
        }
    }
}

/// A panic in a conversation is one of the agent: it must not run on without knowing what it lost.
fn survive(ended: Result<(), JoinError>) {
    let panic = ended.err().and_then(|error| error.try_into_panic().ok());
    if let Some(panic) = panic {
        std::panic::resume_unwind(panic);
    }
}

async fn converse(connection: Connection, control: Control) {
    let asker = Asker(connection.caller());
    let service = service_fn(move |request| {
        let control = control.clone();
        async move { Ok::<Response, Infallible>(answer(control, asker, request).await) }
    });
    let _client_gone = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

/// The whole body of a request, at most [`api::MAX_REQUEST`] bytes of it.
///
/// # Errors
/// It is longer, does not come in time, or the client went.
pub(super) async fn body(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let told: Option<u64> = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if told.is_some_and(|told| told > api::MAX_REQUEST as u64) {
        return Err(too_long());
    }
    let limited = Limited::new(request.into_body(), api::MAX_REQUEST);
    match timeout(PATIENCE, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "the request cannot be read: {error}"
        ))),
        Err(_elapsed) => Err(ApiError::could_not(
            Code::TimedOut,
            format!("the request did not come in {} s", PATIENCE.as_secs()),
        )),
    }
}

fn too_long() -> ApiError {
    ApiError::could_not(
        Code::TooLong,
        format!("a request has at most {} bytes", api::MAX_REQUEST),
    )
}
