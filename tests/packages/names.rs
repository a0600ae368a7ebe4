//! Names asked and answered: a DNS server outside the mesh, a program that keeps asking, and a tap that counts which
//! names pass the wire.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use webmesh::platform::wire_tap::WireTap;

use crate::{
    home::within,
    machine::{Lan, Machine},
    roots::text,
};

/// A name outside the mesh, and what [`Upstream`] answers for it.
const OUTSIDE: &str = "www.outside.example";
const OUTSIDE_ADDRESS: &str = "198.51.100.7";

/// How long a thread waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// A thread that ends when this is dropped.
#[derive(Debug)]
struct Running {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(act: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || act(&is_over)
        });
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A DNS server at 203.0.113.1, which knows [`OUTSIDE`] and nothing else.
#[derive(Debug)]
pub(crate) struct Upstream(#[expect(dead_code, reason = "held for its end")] Running);

impl Upstream {
    pub(crate) const ADDRESS: &str = "203.0.113.1";

    pub(crate) fn serve(lan: &Lan) -> Self {
        let socket = lan.within_network(|| UdpSocket::bind((Self::ADDRESS, 53)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(Running::start(move |is_over| {
            let mut query = [0; 1500];
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut query)
                    && let Some(answer) = answer(&query[..length])
                {
                    let _ = socket.send_to(&answer, from);
                }
            }
        }))
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?;
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_query(question.clone());
    if question.name() != &Name::from_ascii(format!("{OUTSIDE}.")).unwrap() {
        message.metadata.response_code = ResponseCode::NXDomain;
    } else if question.query_type() == RecordType::A {
        let address = A(OUTSIDE_ADDRESS.parse().unwrap());
        message.add_answer(Record::from_rdata(
            question.name().clone(),
            60,
            RData::A(address),
        ));
    }
    message.to_vec().ok()
}

/// Somebody on a machine who asks the machine's resolver for one mesh name after the other, none of them twice.
#[derive(Debug)]
pub(crate) struct Asker {
    asked: Arc<AtomicUsize>,
    _running: Running,
}

impl Asker {
    pub(crate) fn start(machine: &Machine, resolver: &str) -> Self {
        let socket = machine
            .within_network(|| UdpSocket::bind("0.0.0.0:0"))
            .unwrap();
        // Who is not answered soon asks for the next: that the names do not leak is the point, not the answers.
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let resolver: SocketAddr = format!("{resolver}:53").parse().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let running = Running::start({
            let asked = Arc::clone(&asked);
            move |is_over| {
                while !is_over.load(Ordering::Relaxed) {
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    let _ = socket.send_to(&question(number), resolver);
                    let _ = socket.recv(&mut [0; 1500]);
                }
            }
        });
        Self {
            asked,
            _running: running,
        }
    }

    /// Waits until it has asked for so many more.
    pub(crate) fn ask_on(&self, more: usize) {
        let wanted = self.asked() + more;
        within(Duration::from_secs(60), "names are asked for", || {
            self.asked() >= wanted
        });
    }

    /// How many it has asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn question(number: usize) -> Vec<u8> {
    let name = Name::from_ascii(format!("nobody-{number}.svc.home.internal.")).unwrap();
    let id = u16::try_from(number % 65_536).unwrap();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

/// Counts the names in what passes somewhere.
#[derive(Debug)]
pub(crate) struct Tap {
    counts: Arc<Counts>,
    _running: Running,
}

#[derive(Debug, Default)]
struct Counts {
    mesh: AtomicUsize,
    outside: AtomicUsize,
}

impl Tap {
    /// What passes between a machine and the bridge.
    pub(crate) fn on(lan: &Lan, machine: &str) -> Self {
        Self::reading(lan.within_network(|| WireTap::open(machine)).unwrap())
    }

    /// What passes a link of a machine.
    pub(crate) fn inside(machine: &Machine, link: &str) -> Self {
        Self::reading(machine.within_network(|| WireTap::open(link)).unwrap())
    }

    fn reading(tap: WireTap) -> Self {
        let counts = Arc::new(Counts::default());
        let running = Running::start({
            let counts = Arc::clone(&counts);
            move |is_over| {
                let mut frame = vec![0; 1 << 16];
                while !is_over.load(Ordering::Relaxed) {
                    if !has_frame(&tap) {
                        continue;
                    }
                    // A link that is taken away is the end of what passes it.
                    let Ok(length) = tap.read(&mut frame) else {
                        return;
                    };
                    counts.add(&frame[..length]);
                }
            }
        });
        Self {
            counts,
            _running: running,
        }
    }

    /// Frames with a name of the mesh in them, in whatever protocol.
    pub(crate) fn mesh_names(&self) -> usize {
        self.counts.mesh.load(Ordering::Relaxed)
    }

    /// Frames with [`OUTSIDE`] in them: that the tap sees.
    pub(crate) fn outside_names(&self) -> usize {
        self.counts.outside.load(Ordering::Relaxed)
    }
}

/// Waits a moment for a frame.
fn has_frame(tap: &WireTap) -> bool {
    let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    poll(&mut ready, patience).is_ok_and(|ready| ready > 0)
}

impl Counts {
    fn add(&self, frame: &[u8]) {
        let lower = frame.to_ascii_lowercase();
        let has = |needle: &[u8]| lower.windows(needle.len()).any(|window| window == needle);
        if has(b"\x04home\x08internal") {
            self.mesh.fetch_add(1, Ordering::Relaxed);
        }
        if has(b"\x07outside\x07example") {
            self.outside.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a machine's programs get the right address for [`OUTSIDE`].
pub(crate) fn resolves_outside(machine: &Machine) -> bool {
    resolves(machine, OUTSIDE, OUTSIDE_ADDRESS)
}

/// Whether a machine's programs get this IPv4 address for a name.
pub(crate) fn resolves(machine: &Machine, name: &str, address: &str) -> bool {
    let said = machine.run(&format!("getent ahostsv4 {name}")).stdout;
    text(&said).split_whitespace().next() == Some(address)
}
