//! A web server of the tests' own, which runs in a machine's network: a page, and a download that flows until it is told
//! to end.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use ring::digest;

use crate::machine::Machine;

/// What the page says.
pub(crate) const PAGE: &str = "hello from anna\n";

/// One piece of the download, and how often one is sent: 8 MB/s, which a restart is to be noticed in.
const PIECE: usize = 1 << 16;
const PAUSE: Duration = Duration::from_millis(8);

/// Serves `/` and `/flow` until this is dropped.
#[derive(Debug)]
pub(crate) struct Web {
    listener: TcpListener,
    flow: Arc<Flow>,
    accepting: Option<JoinHandle<()>>,
}

/// The download, of which there is one at a time.
#[derive(Debug, Default)]
struct Flow {
    is_over: AtomicBool,
    sent: Mutex<Option<digest::Digest>>,
}

impl Web {
    /// Listens on an address of the machine.
    pub(crate) fn serve(machine: &Machine, address: &str) -> Self {
        let listener = machine
            .within_network(|| TcpListener::bind(address))
            .unwrap();
        let flow = Arc::new(Flow::default());
        let accepting = thread::spawn({
            let (listener, flow) = (listener.try_clone().unwrap(), Arc::clone(&flow));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let flow = Arc::clone(&flow);
                    thread::spawn(move || answer(stream, &flow));
                }
            }
        });
        Self {
            listener,
            flow,
            accepting: Some(accepting),
        }
    }

    /// Ends the download.
    pub(crate) fn end_flow(&self) {
        self.flow.is_over.store(true, Ordering::Relaxed);
    }

    /// The SHA-256 of what the download was, when all of it is sent.
    pub(crate) fn flow_hash(&self) -> Vec<u8> {
        let sent = self.flow.sent.lock().unwrap();
        sent.as_ref()
            .expect("the download is over")
            .as_ref()
            .to_vec()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.end_flow();
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

/// Answers one request. A client that goes away ends it.
fn answer(stream: TcpStream, flow: &Flow) -> Option<()> {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let request = lines.next()?;
    lines.find(String::is_empty)?;
    if request.starts_with("GET /flow ") {
        send_flow(&stream, flow)
    } else {
        let length = PAGE.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        (&stream).write_all(format!("{head}{PAGE}").as_bytes()).ok()
    }
}

fn send_flow(mut stream: &TcpStream, flow: &Flow) -> Option<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; PIECE];
    for number in 0_u64.. {
        // No two pieces are the same: one that is lost, doubled or out of its place shows.
        blake3::Hasher::new()
            .update(&number.to_le_bytes())
            .finalize_xof()
            .fill(&mut piece);
        stream.write_all(&piece).ok()?;
        hash.update(&piece);
        if flow.is_over.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(PAUSE);
    }
    *flow.sent.lock().unwrap() = Some(hash.finish());
    Some(())
}
