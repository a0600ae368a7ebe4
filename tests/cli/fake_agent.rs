//! An agent that says what a test tells it to, on a socket of its own; and the real binary that asks it.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, Uri},
};
use serde::Serialize;
use serde_json::Value;
use webmesh::api::{ApiError, Line, Verb};

/// What the agent answers to one path.
#[derive(Clone)]
struct Canned {
    status: u16,
    body: String,
}

/// The agent; it ends with the test.
pub(crate) struct FakeAgent {
    folder: PathBuf,
    canned: BTreeMap<String, Canned>,
    heard: Heard,
}

/// What it was asked: path and body, newest last.
type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// What the binary did.
#[derive(Debug)]
pub(crate) struct Told {
    pub stdout: String,
    pub stderr: String,
    pub exit: i32,
}

impl FakeAgent {
    /// One that knows nothing yet.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("webmesh-cli-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            folder,
            canned: BTreeMap::new(),
            heard: Arc::default(),
        }
    }

    /// It answers `verb` with `reply`.
    pub(crate) fn says(self, verb: Verb, reply: &impl Serialize) -> Self {
        let body = serde_json::to_string(reply).unwrap();
        self.answers(verb, 200, body)
    }

    /// It refuses `verb`.
    pub(crate) fn refuses(self, verb: Verb, error: &ApiError) -> Self {
        let body = serde_json::to_string(error).unwrap();
        self.answers(verb, error.code.http_status(), body)
    }

    /// It answers `verb` in lines.
    pub(crate) fn talks<T: Serialize, R: Serialize>(
        self,
        verb: Verb,
        lines: &[Line<T, R>],
    ) -> Self {
        let body = lines.iter().map(Line::encode).collect();
        self.answers(verb, 200, body)
    }

    fn answers(mut self, verb: Verb, status: u16, body: String) -> Self {
        self.canned.insert(verb.path(), Canned { status, body });
        self
    }

    /// Runs `webmesh` with these words against this agent, not on a terminal.
    pub(crate) fn run(&self, words: &str) -> Told {
        self.run_with(&words.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// The same with `stdin`.
    pub(crate) fn run_with(&self, words: &[&str], stdin: &str) -> Told {
        self.run_on(words, stdin, Stdio::piped())
    }

    /// The same with stdout led elsewhere.
    pub(crate) fn run_into(&self, words: &[&str], stdout: Stdio) -> Told {
        self.run_on(words, "", stdout)
    }

    fn run_on(&self, words: &[&str], stdin: &str, stdout: Stdio) -> Told {
        let socket = self.folder.join("socket");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let canned = self.canned.clone();
        let heard = self.heard.clone();
        let path = socket.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let _inside = runtime.enter();
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            ready.send(()).unwrap();
            runtime.block_on(serve(listener, canned, heard, stopped));
        });
        is_ready.recv().unwrap();
        let told = webmesh_on(
            words,
            &[("WEBMESH_SOCKET", socket.to_str().unwrap())],
            stdin,
            stdout,
        );
        drop(stop);
        server.join().unwrap();
        std::fs::remove_file(&socket).unwrap();
        told
    }

    /// What it was asked, newest last.
    pub(crate) fn last_request(&self) -> (String, Value) {
        self.heard
            .lock()
            .unwrap()
            .last()
            .cloned()
            .expect("it was asked")
    }
}

async fn serve(
    listener: tokio::net::UnixListener,
    canned: BTreeMap<String, Canned>,
    heard: Heard,
    stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let answer =
        move |uri: Uri, body: Bytes| std::future::ready(answer(&canned, &heard, &uri, &body));
    let stopped = async { drop(stopped.await) };
    axum::serve(listener, Router::new().fallback(answer))
        .with_graceful_shutdown(stopped)
        .await
        .unwrap();
}

fn answer(
    canned: &BTreeMap<String, Canned>,
    heard: &Heard,
    uri: &Uri,
    body: &[u8],
) -> (StatusCode, String) {
    let asked = serde_json::from_slice(body).unwrap_or(Value::Null);
    heard.lock().unwrap().push((uri.path().to_owned(), asked));
    match canned.get(uri.path()) {
        Some(canned) => (
            StatusCode::from_u16(canned.status).unwrap(),
            canned.body.clone(),
        ),
        None => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "nobody told me".to_owned(),
        ),
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Runs the real binary, in UTC, with nothing else of our environment.
pub(crate) fn webmesh(words: &[&str], environment: &[(&str, &str)], stdin: &str) -> Told {
    webmesh_on(words, environment, stdin, Stdio::piped())
}

fn webmesh_on(words: &[&str], environment: &[(&str, &str)], stdin: &str, stdout: Stdio) -> Told {
    let mut child = Command::new(env!("CARGO_BIN_EXE_webmesh"))
        .args(words)
        .env_clear()
        .env("TZ", "UTC")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    Told {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        exit: output.status.code().expect("it was not killed"),
    }
}
