//! A TCP stream that is watched: a small block every ten milliseconds, each checked, its silences measured.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Beside, Peer};

/// It flows from one machine to another until it is dropped.
pub(crate) struct Flow {
    arrivals: PathBuf,
    _source: Beside,
    _sink: Beside,
}

impl Flow {
    /// From `from` to `to`, to which it is an ordinary program's connection by name.
    pub(crate) fn start(from: &Peer, to: &Peer) -> Self {
        let source = from.beside(&format!("python3 -c \"{SOURCE}\""));
        from.await_port(PORT);
        let name = from.name();
        let arrivals = to.file(&format!("arrivals-from-{name}"));
        let sink = to.beside(&format!(
            "python3 -c \"{SINK}\" {name}.home.internal {}",
            arrivals.display()
        ));
        let flow = Self {
            arrivals,
            _source: source,
            _sink: sink,
        };
        flow.await_steady();
        flow
    }

    /// How many blocks have come.
    pub(crate) fn mark(&self) -> usize {
        self.read().len()
    }

    /// Waits for a second in which the stream flowed.
    pub(crate) fn await_steady(&self) {
        let began = Instant::now();
        loop {
            let before = self.mark();
            thread::sleep(TURN);
            // Half of what is due, for a machine that is busy.
            if self.mark() - before > 50 {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "no block every 10 ms within 30 s: {:?}",
                self.read().last()
            );
        }
    }

    /// Waits until a round may begin: a pair that has just found its way has no relays ready yet, and one that has just moved
    /// sends by the old way too for a second or two, until that has left some Pings unanswered.
    pub(crate) fn await_settled(&self) {
        self.await_steady();
        self.await_steady();
    }

    /// The longest silence since a mark, when the stream is steady again.
    pub(crate) fn longest_silence_since(&self, mark: usize) -> Duration {
        self.await_steady();
        let arrivals = self.read();
        let since = &arrivals[mark.saturating_sub(1)..];
        let longest = since.windows(2).map(|two| two[1] - two[0]).max();
        longest.unwrap_or_default()
    }

    /// When each block came, since the machine's start.
    fn read(&self) -> Vec<Duration> {
        let text = fs::read_to_string(&self.arrivals).unwrap_or_default();
        // A line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                let millis = line.parse();
                Duration::from_millis(millis.unwrap_or_else(|_| panic!("the stream broke: {line}")))
            })
            .collect()
    }
}

const TURN: Duration = Duration::from_secs(1);
const PORT: u16 = 7100;

const SOURCE: &str = "
import hashlib, socket, time
server = socket.create_server(('::', 7100), family=socket.AF_INET6, dualstack_ipv6=True)
sink, _ = server.accept()
sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
count, due = 0, time.monotonic()
while True:
    sink.sendall(hashlib.sha256(str(count).encode()).digest() * 64)
    count, due = count + 1, due + 0.01
    time.sleep(max(0, due - time.monotonic()))
";

const SINK: &str = "
import hashlib, socket, sys, time
source = socket.create_connection((sys.argv[1], 7100), 10)
source.settimeout(None)
count = 0
with open(sys.argv[2], 'w', buffering=1) as out:
    while True:
        block = b''
        while len(block) < 2048:
            more = source.recv(2048 - len(block))
            if not more:
                print('it ended at block', count, file=out)
                sys.exit(1)
            block += more
        if block != hashlib.sha256(str(count).encode()).digest() * 64:
            print('block', count, 'is wrong', file=out)
            sys.exit(1)
        print(int(time.monotonic() * 1000), file=out)
        count += 1
";
