//! The API's server: HTTP/1.1 on the unix socket, one file per verb (design §4).
//!
//! Who asks is known by the socket's credentials; what he may is [`api::Rights`]. Looking reads the published look and
//! never waits for the loop; changing is asked of the loop.

mod debug;
mod dns;
mod http;
mod init;
mod invite;
mod join;
mod leave;
mod listener;
mod netcheck;
mod peers;
mod ping;
mod policy;
mod recover;
mod service;
mod status;
mod up;
mod wait;
mod whois;
mod why;

use std::{
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode, header},
    response::Response,
};
use hyper::{Request, body::Incoming};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};

use self::listener::Listener;
use super::{
    calls::Caller,
    event_loop::Look,
    ownership,
    tasks::{self, Task},
};
use crate::{
    api::{self, ApiError, Line, ReadAccess, Verb},
    config::Config,
    platform::credentials,
};

/// The group whose members may change things (design §4).
const GROUP: &str = "webmesh";

/// Lines that wait for a slow reader of a streaming answer.
const LINES: usize = 16;

/// How long the database of groups may take.
const GROUPS: Duration = Duration::from_secs(2);

/// What every request is answered with.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) caller: Caller,
    pub(super) look: watch::Receiver<Look>,
    /// The settings that run; HUP changes them.
    pub(super) settings: watch::Receiver<Config>,
}

/// The running server. The socket file goes with it.
#[derive(Debug)]
pub(super) struct Server {
    socket: PathBuf,
    _task: Task,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = remove_socket(&self.socket);
    }
}

/// Who is at the other end of a connection; None when the kernel does not say.
#[derive(Clone, Copy, Debug)]
struct Asker(Option<credentials::Caller>);

impl Asker {
    /// What counts for a verb of these rights. The database of groups, which may be slow, is asked only where membership
    /// of the group makes a difference.
    async fn standing(self, rights: api::Rights, read: ReadAccess) -> api::Caller {
        let Some(caller) = self.0 else {
            return api::Caller::Other;
        };
        if caller.is_root() || caller.uid == credentials::own_uid() {
            return api::Caller::Root;
        }
        let (if_member, if_not) = (api::Caller::Group, api::Caller::Other);
        let matters = rights.allow(if_member, read) != rights.allow(if_not, read);
        if matters && is_member(caller).await {
            if_member
        } else {
            if_not
        }
    }
}

/// The database of groups may lie behind a network, this one even: the loop does not stand still for it, and who cannot be
/// looked up is no member.
async fn is_member(caller: credentials::Caller) -> bool {
    let asked = tokio::task::spawn_blocking(move || caller.is_in_group(GROUP));
    matches!(tokio::time::timeout(GROUPS, asked).await, Ok(Ok(true)))
}

/// Listens at `socket`, in place of a socket file that nobody listens at any more.
///
/// # Errors
/// The socket cannot be made, or another agent listens there.
pub(super) fn serve(socket: &Path, control: Control) -> anyhow::Result<Server> {
    anyhow::ensure!(
        std::fs::symlink_metadata(socket).map_or(true, |facts| facts.file_type().is_socket()),
        "{} is a file, not a socket: give another place with --socket",
        socket.display()
    );
    let listener = listen(socket).with_context(|| {
        format!(
            "cannot listen at {}: give another place with --socket{}",
            socket.display(),
            ownership::or_as_root()
        )
    })?;
    let task = tasks::spawn("api", http::serve(Listener::new(listener), control));
    Ok(Server {
        socket: socket.to_owned(),
        _task: task,
    })
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = socket
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        // The last folder alone: a mistyped path makes no tree.
        match std::fs::DirBuilder::new().mode(0o755).create(parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => return Err(io::Error::other("another agent listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            remove_socket(socket)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Removes a socket's file, and nothing else that has its name by now.
fn remove_socket(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.file_type().is_socket() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

async fn answer(control: Control, asker: Asker, request: Request<Incoming>) -> Response {
    let outcome = match permitted(&control, asker, &request).await {
        Ok((verb, asker)) => match http::body(request).await {
            Ok(body) => carry_out(control, asker, verb, &body).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| refusal(&error))
}

/// What is asked, if this caller may ask it; nothing of the body is read before.
async fn permitted(
    control: &Control,
    asker: Asker,
    request: &Request<Incoming>,
) -> Result<(Verb, api::Caller), ApiError> {
    let path = request.uri().path();
    let method = match *request.method() {
        Method::GET => api::Method::Get,
        Method::POST => api::Method::Post,
        _ => return Err(ApiError::unknown_verb(path)),
    };
    let verb = Verb::find(method, path).ok_or_else(|| ApiError::unknown_verb(path))?;
    let read = control.settings.borrow().api.read;
    let asker = asker.standing(verb.rights(), read).await;
    if verb.rights().allow(asker, read) {
        Ok((verb, asker))
    } else {
        Err(ApiError::not_allowed(verb))
    }
}

async fn carry_out(
    control: Control,
    asker: api::Caller,
    verb: Verb,
    body: &[u8],
) -> Result<Response, ApiError> {
    match verb {
        Verb::Init => reply(&init::answer(&control, request(body)?).await?),
        Verb::Invite => reply(&invite::answer(&control, request(body)?).await?),
        Verb::InviteList => reply(&invite::answer_list(&control, request(body)?).await?),
        Verb::InviteCancel => reply(&invite::answer_cancel(&control, request(body)?).await?),
        Verb::Join => join::answer(&control, request(body)?).await,
        Verb::Leave => reply(&leave::answer(&control, request(body)?).await?),
        Verb::Up => reply(&up::answer_up(&control, request(body)?).await?),
        Verb::Down => reply(&up::answer_down(&control, request(body)?).await?),
        Verb::Status => status::answer(&control, request(body)?),
        Verb::Peers => reply(&peers::answer(&control, &request(body)?)?),
        Verb::Wait => wait::answer(&control, request(body)?),
        Verb::Ping => ping::answer(&control, request(body)?).await,
        Verb::Why => reply(&why::answer(&control, request(body)?).await?),
        Verb::Whois => reply(&whois::answer(&control, request(body)?).await?),
        Verb::Netcheck => reply(&netcheck::answer(&control, request(body)?).await?),
        Verb::DnsStatus => reply(&dns::answer_status(&control, request(body)?).await?),
        Verb::DnsQuery => reply(&dns::answer(&control, request(body)?).await?),
        Verb::ServiceAdd => reply(&service::answer_add(&control, request(body)?, asker).await?),
        Verb::ServiceRemove => reply(&service::answer_remove(&control, request(body)?).await?),
        Verb::ServiceList => reply(&service::answer_list(&control, &request(body)?)?),
        Verb::ServiceShow => reply(&service::answer_show(&control, &request(body)?)?),
        Verb::PolicyShow => reply(&policy::answer(&control, &request(body)?)?),
        Verb::Recover => reply(&recover::answer(&control, request(body)?).await?),
        Verb::DebugBundle => reply(&debug::answer(&control, request(body)?).await?),
    }
}

/// The options of a request; no body means all defaults.
fn request<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    // serde would take a list for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::bad_request(
            "the request cannot be read: its options are no JSON object",
        ));
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the request cannot be read: {error}")))
}

fn reply(value: &impl Serialize) -> Result<Response, ApiError> {
    let text = serde_json::to_string(value)
        .map_err(|error| ApiError::internal(format!("the answer cannot be written: {error}")))?;
    Ok(response(
        StatusCode::OK,
        "application/json",
        Body::from(text),
    ))
}

fn refusal(error: &ApiError) -> Response {
    let status =
        StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let text = serde_json::to_string(error).unwrap_or_default();
    response(status, "application/json", Body::from(text))
}

fn response(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// An answer in JSON lines: whatever `work` says through its sender, until it ends. It is dropped when the client goes.
pub(super) fn lines<W>(work: impl FnOnce(mpsc::Sender<String>) -> W) -> Response
where
    W: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel::<String>(LINES);
    let task = tasks::spawn("api-lines", work(sender));
    let stream =
        futures_util::stream::unfold((receiver, task), |(mut receiver, task)| async move {
            let line = receiver.recv().await?;
            Some((Ok::<_, io::Error>(Bytes::from(line)), (receiver, task)))
        });
    response(
        StatusCode::OK,
        "application/x-ndjson",
        Body::from_stream(stream),
    )
}

/// The last line of a streaming answer.
pub(super) fn last_line<R: Serialize>(outcome: Result<R, ApiError>) -> String {
    match outcome {
        Ok(reply) => Line::<(), R>::Reply(reply).encode(),
        Err(error) => Line::<(), R>::Error(error).encode(),
    }
}

/// A line of talk.
pub(super) fn talk_line<T: Serialize>(talk: T) -> String {
    Line::<T, ()>::Talk(talk).encode()
}

impl Control {
    /// The newest look at the agent.
    pub(super) fn look(&self) -> Look {
        Look::clone(&self.look.borrow())
    }

    /// The newest look at the network that was asked for.
    ///
    /// # Errors
    /// There is none, or it is another.
    pub(super) fn network_look(
        &self,
        asked: Option<&str>,
    ) -> Result<(Look, api::Network), ApiError> {
        let look = self.look();
        let network = look.status.network.clone().ok_or_else(|| nowhere(&look))?;
        match asked {
            Some(asked) if asked != network.name => {
                Err(ApiError::other_network(asked, &network.name))
            }
            Some(_) | None => Ok((look, network)),
        }
    }
}

/// What is to be said when there is no network: that its files are damaged, if they are.
fn nowhere(look: &Look) -> ApiError {
    match look
        .status
        .health
        .iter()
        .find(|line| line.code == "state_unusable")
    {
        Some(line) => ApiError {
            remedy: line.remedy.clone(),
            ..ApiError::could_not(api::Code::StateUnusable, line.message.clone())
        },
        None => ApiError::no_network(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::state_dir::tests::scratch;

    #[tokio::test]
    async fn a_stale_socket_gives_way() {
        let path = scratch("socket").join("webmesh.sock");
        drop(listen(&path).unwrap());
        assert!(path.exists());
        drop(listen(&path).unwrap());
        remove_socket(&path).unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_stays() {
        let path = scratch("socket").join("notes");
        std::fs::write(&path, "mine").unwrap();
        assert!(listen(&path).is_err());
        remove_socket(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn only_the_last_folder_of_the_sockets_place_is_made() {
        let folder = scratch("socket");
        assert!(listen(&folder.join("a/b/x.sock")).is_err());
        assert!(!folder.join("a").exists());
        listen(&folder.join("a/x.sock")).unwrap();
    }

    #[tokio::test]
    async fn who_the_kernel_does_not_name_may_look_and_no_more() {
        let nobody = Asker(None);
        for verb in Verb::ALL {
            let rights = verb.rights();
            let standing = nobody.standing(rights, ReadAccess::Anyone).await;
            let may = rights.allow(standing, ReadAccess::Anyone);
            assert_eq!(may, rights == api::Rights::Look, "{verb:?}");
            let standing = nobody.standing(rights, ReadAccess::Group).await;
            assert!(!rights.allow(standing, ReadAccess::Group), "{verb:?}");
        }
    }

    #[tokio::test]
    async fn root_and_the_agents_own_user_may_everything() {
        for uid in [0, credentials::own_uid()] {
            let asker = Asker(Some(credentials::Caller {
                uid,
                gid: 0,
                pid: 1,
            }));
            for verb in Verb::ALL {
                let standing = asker.standing(verb.rights(), ReadAccess::Group).await;
                assert!(verb.rights().allow(standing, ReadAccess::Group), "{verb:?}");
            }
        }
    }
}
