//! Talks to the agent: one HTTP/1.1 request over its socket, an answer or JSON lines back.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{absent, start_hint::StartHint};
use crate::{
    api::{ApiError, Code, Line, Rights, Verb},
    config::DEFAULT_FILE,
};

/// The agent behind a socket.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Where it listens.
    pub socket: PathBuf,
    /// What to say when it does not.
    pub start: StartHint,
}

/// A reply, as the agent wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(String);

/// The longest line taken, bytes: `status` of 10,000 peers is some 5 MB. More is no answer of an agent of ours.
const LONGEST_REPLY: usize = 256 * 1024 * 1024;

/// How long the agent may take until an answer to looking begins: it reads what is published, in milliseconds.
const PATIENCE_LOOKING: Duration = Duration::from_secs(5);

/// The same of a change: one that waits for the disk or the kernel; and of a look at another machine.
const PATIENCE_CHANGING: Duration = Duration::from_secs(30);

impl Reply {
    /// The JSON document, without a newline at its end.
    pub fn json(&self) -> &str {
        &self.0
    }

    /// The same with another value under `key`.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn with(&self, key: &str, value: serde_json::Value) -> Result<Self, ApiError> {
        let mut all: serde_json::Map<_, _> = self.parse()?;
        all.insert(key.to_owned(), value);
        Ok(Self(serde_json::Value::Object(all).to_string()))
    }

    /// What it says.
    ///
    /// # Errors
    /// It is not what this client expects: another version's.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_str(&self.0).map_err(|error| unreadable(&error))
    }
}

impl Agent {
    /// Asks once and takes the whole answer.
    ///
    /// # Errors
    /// The agent does not run, does not answer, or says no.
    pub async fn ask(&self, verb: Verb, request: &impl Serialize) -> Result<Reply, ApiError> {
        let answered = tokio::time::timeout(patience(verb), self.send(verb, request)).await;
        let response = answered.unwrap_or_else(|_elapsed| Err(silent()))?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| cut_short(&error))?;
        text(body.to_bytes().to_vec()).map(Reply)
    }

    /// Asks and takes JSON lines: `on_talk` hears each talk, the reply is what comes last. None: the agent closed without
    /// a reply, as it does when it stops.
    ///
    /// # Errors
    /// The agent does not run, or says no, at once or at the end.
    pub async fn ask_lines<T: DeserializeOwned>(
        &self,
        verb: Verb,
        request: &impl Serialize,
        mut on_talk: impl FnMut(T),
    ) -> Result<Option<Reply>, ApiError> {
        let hear_all = |talk| {
            on_talk(talk);
            true
        };
        self.ask_lines_while(verb, request, hear_all).await
    }

    /// As [`Agent::ask_lines`], until `on_talk` says that it has heard enough.
    ///
    /// # Errors
    /// The agent does not run, or says no, at once or at the end.
    pub async fn ask_lines_while<T: DeserializeOwned>(
        &self,
        verb: Verb,
        request: &impl Serialize,
        mut on_talk: impl FnMut(T) -> bool,
    ) -> Result<Option<Reply>, ApiError> {
        let mut body = self.send(verb, request).await?.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| cut_short(&error))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if rest.len() > LONGEST_REPLY {
                return Err(ApiError::internal("the agent's answer has no end"));
            }
            match hear_all(&mut rest, &mut on_talk)? {
                Heard::More => {}
                Heard::Enough => return Ok(None),
                Heard::Reply(reply) => return Ok(Some(reply)),
            }
        }
        match hear(text(rest)?, &mut on_talk)? {
            Heard::More | Heard::Enough => Ok(None),
            Heard::Reply(reply) => Ok(Some(reply)),
        }
    }

    async fn send(
        &self,
        verb: Verb,
        request: &impl Serialize,
    ) -> Result<Response<Incoming>, ApiError> {
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            Err(error) => {
                let absent = self.absent(&error).await;
                // Why it does not listen was asked for up to a second, and one that was about to start may listen by now.
                let again = UnixStream::connect(&self.socket).await;
                again.map_err(|_still| absent)?
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| cut_short(&error))?;
        let body =
            serde_json::to_vec(request).expect("requests have text keys and no failing serializer");
        let request = Request::post(verb.path())
            .header(HOST, "webmesh")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("paths of verbs are paths");
        #[expect(
            clippy::disallowed_methods,
            reason = "the connection lives as long as this one request"
        )]
        tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| cut_short(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| cut_short(&error))?;
        let refusal: Option<ApiError> = serde_json::from_slice(&body.to_bytes()).ok();
        Err(refusal.unwrap_or_else(|| {
            ApiError::internal(format!("the agent answered {status} without a word"))
        }))
    }

    async fn absent(&self, error: &io::Error) -> ApiError {
        let socket = self.socket.display();
        let kind = error.kind();
        if matches!(
            kind,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ) {
            return absent::complaint(&self.start, Path::new(DEFAULT_FILE)).await;
        }
        if kind == io::ErrorKind::PermissionDenied {
            return ApiError::could_not(
                Code::AgentAbsent,
                format!("{socket} is closed to this user"),
            )
            .remedy("run it with sudo");
        }
        ApiError::could_not(
            Code::AgentAbsent,
            format!("cannot reach the agent at {socket}: {error}"),
        )
    }
}

/// What a line meant.
enum Heard {
    More,
    Enough,
    Reply(Reply),
}

/// Hears every whole line and leaves what comes after the last.
fn hear_all<T: DeserializeOwned>(
    bytes: &mut Vec<u8>,
    on_talk: &mut impl FnMut(T) -> bool,
) -> Result<Heard, ApiError> {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let heard = hear(text(bytes.drain(..=end).collect())?, on_talk)?;
        if !matches!(heard, Heard::More) {
            return Ok(heard);
        }
    }
    Ok(Heard::More)
}

fn hear<T: DeserializeOwned>(
    line: String,
    on_talk: &mut impl FnMut(T) -> bool,
) -> Result<Heard, ApiError> {
    if line.is_empty() {
        return Ok(Heard::More);
    }
    match Line::<T, serde_json::Value>::parse(&line) {
        Ok(Line::Talk(talk)) => Ok(if on_talk(talk) {
            Heard::More
        } else {
            Heard::Enough
        }),
        Ok(Line::Error(error)) => Err(error),
        Ok(Line::Reply(_)) => Ok(Heard::Reply(Reply(line))),
        Err(error) => Err(unreadable(&error)),
    }
}

fn patience(verb: Verb) -> Duration {
    match verb.rights() {
        Rights::Look if verb.asks_others() => PATIENCE_CHANGING,
        Rights::Look => PATIENCE_LOOKING,
        Rights::Change | Rights::Root => PATIENCE_CHANGING,
    }
}

fn silent() -> ApiError {
    ApiError::could_not(Code::AgentAbsent, "the agent does not answer")
        .remedy("sudo systemctl restart webmesh")
}

fn text(bytes: Vec<u8>) -> Result<String, ApiError> {
    let mut text = String::from_utf8(bytes).map_err(|error| unreadable(&error))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

fn unreadable(error: &dyn std::error::Error) -> ApiError {
    ApiError::could_not(
        Code::Internal,
        format!("the agent's answer cannot be read ({error})"),
    )
    .remedy("are webmesh and its agent of one version?")
}

fn cut_short(error: &hyper::Error) -> ApiError {
    ApiError::could_not(
        Code::AgentAbsent,
        format!("the agent hung up before it answered ({error})"),
    )
    .remedy("webmesh status")
}
