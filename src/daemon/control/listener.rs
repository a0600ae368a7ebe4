//! The API's socket, and how much of it one user may take: everybody may connect, and nobody may keep the others out, use up
//! the agent's descriptors, or have it hold an answer that is never read.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    time::{Sleep, sleep},
};

use crate::platform::credentials::{self, Caller};

/// Connections that one user may have open. A person has a few; a monitor that keeps `status --watch` has one.
const PER_USER: usize = 64;

/// Connections above which only root and the agent's own user come in: one person may own thousands of users, as rootless
/// containers do.
const ALTOGETHER: usize = 512;

/// How long to stop accepting after an accept failed (no descriptor left): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client may leave what is written to it unread, once the kernel's buffer is full. Long enough for a person who
/// holds `status --watch` up; short enough that a thousand answers that nobody reads do not pile up.
const UNREAD: Duration = Duration::from_secs(60);

/// The socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    users: Users,
}

/// One connection, with who is at its other end; its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    caller: Option<Caller>,
    /// How long it may leave what is written unread.
    patience: Duration,
    /// Runs while it does not read.
    unread: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

/// How many connections each user has.
#[derive(Clone, Debug, Default)]
struct Users(Arc<Mutex<BTreeMap<u32, usize>>>);

#[derive(Debug)]
struct Place {
    users: Users,
    uid: u32,
}

impl Listener {
    /// Around a socket that listens.
    pub(super) fn new(socket: UnixListener) -> Self {
        Self {
            socket,
            users: Users::default(),
        }
    }

    /// The next client that may come in.
    pub(super) async fn accept(&self) -> Connection {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    let caller = Caller::of(&stream).ok();
                    let uid = caller.map_or(u32::MAX, |caller| caller.uid);
                    if let Some(place) = self.users.enter(uid) {
                        return Connection {
                            stream,
                            caller,
                            patience: UNREAD,
                            unread: None,
                            _place: place,
                        };
                    }
                }
                Err(_none_left) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

impl Connection {
    /// Who is at the other end; None when the kernel does not say.
    pub(super) fn caller(&self) -> Option<Caller> {
        self.caller
    }
}

impl Users {
    /// A place for one more connection. Root and the agent's own user always get one.
    fn enter(&self, uid: u32) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_trusted = uid == 0 || uid == credentials::own_uid();
        let own = open.get(&uid).copied().unwrap_or_default();
        let all: usize = open.values().sum();
        if !is_trusted && (own >= PER_USER || all >= ALTOGETHER) {
            return None;
        }
        open.insert(uid, own + 1);
        Some(Place {
            users: self.clone(),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(written) => {
                self.unread = None;
                Poll::Ready(written)
            }
            Poll::Pending => {
                let patience = self.patience;
                let unread = self.unread.get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(unread.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_takes_64_places_and_no_place_of_another() {
        let users = Users::default();
        let eve = credentials::own_uid() + 1;
        let mut places: Vec<Place> = std::iter::from_fn(|| users.enter(eve)).take(1000).collect();
        assert_eq!(places.len(), PER_USER);
        assert!(users.enter(eve + 1).is_some());
        assert!(users.enter(0).is_some());
        places.pop();
        assert!(users.enter(eve).is_some());
    }

    #[test]
    fn root_always_gets_in() {
        let users = Users::default();
        let places: Vec<Place> = std::iter::from_fn(|| users.enter(0)).take(1000).collect();
        assert_eq!(places.len(), 1000);
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up() {
        use tokio::io::AsyncWriteExt as _;
        let (near, far) = UnixStream::pair().unwrap();
        let mut connection = Connection {
            stream: near,
            caller: None,
            patience: Duration::from_millis(20),
            unread: None,
            _place: Users::default().enter(7).unwrap(),
        };
        let more_than_the_kernel_holds = vec![0; 4 << 20];
        let error = connection
            .write_all(&more_than_the_kernel_holds)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let users = Users::default();
        drop(users.enter(7));
        assert!(users.0.lock().unwrap().is_empty());
    }
}
