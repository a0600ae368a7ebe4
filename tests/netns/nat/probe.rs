//! A UDP socket in a machine, driven by the test.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use webmesh::demo::lab::Machine;

/// It closes when this is dropped.
pub(crate) struct Probe {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    asked: u32,
}

/// A datagram that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) from: SocketAddr,
    pub(crate) text: String,
}

impl Probe {
    /// A socket for both families on this port of a machine.
    pub(crate) fn open(machine: &Machine, port: u16) -> Self {
        let mut process = machine
            .command("python3")
            .unwrap()
            .args(["-uc", SOCKET, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut probe = Self {
            process,
            orders,
            answers,
            asked: 0,
        };
        assert_eq!(probe.line(), "open");
        probe
    }

    pub(crate) fn send(&mut self, to: SocketAddr, text: &str) {
        writeln!(self.orders, "send {} {} {text}", to.ip(), to.port()).unwrap();
        // Without a route nothing leaves; the other side's silence tells it.
        let said = self.line();
        assert!(said == "sent" || said.starts_with("not sent: "), "{said}");
    }

    /// The next datagram, if one comes in time.
    pub(crate) fn receive(&mut self, limit: Duration) -> Option<Heard> {
        writeln!(self.orders, "receive {}", limit.as_secs_f64()).unwrap();
        let line = self.line();
        let mut words = line.splitn(3, ' ');
        let from = words.next().unwrap();
        let address = from.parse().ok()?;
        let port = words.next().unwrap().parse().unwrap();
        Some(Heard {
            from: SocketAddr::new(address, port),
            text: words.next().unwrap().to_owned(),
        })
    }

    /// How this socket is seen by `other`, which is at `to`. It asks until it is: a link that has just been laid drops what
    /// goes through it for up to a second.
    pub(crate) fn seen_by(&mut self, other: &mut Self, to: SocketAddr) -> SocketAddr {
        (0..20)
            .find_map(|_| self.seen_at_once_by(other, to))
            .unwrap_or_else(|| panic!("no datagram comes to {to}"))
    }

    /// The same, where nobody seeing it may be the truth.
    pub(crate) fn seen_at_once_by(
        &mut self,
        other: &mut Self,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        self.asked += 1;
        let question = format!("how am I seen, {}", self.asked);
        self.send(to, &question);
        // An answer to an earlier question tells of an earlier hole.
        std::iter::from_fn(|| other.receive(SOON))
            .find(|heard| heard.text == question)
            .map(|heard| heard.from)
    }

    /// Whether a datagram to `to` comes to `other`.
    pub(crate) fn reaches(&mut self, other: &mut Self, to: SocketAddr) -> bool {
        self.reaches_as(other, to, "hello")
    }

    /// The same with a text; what else comes to `other` meanwhile is passed over.
    pub(crate) fn reaches_as(&mut self, other: &mut Self, to: SocketAddr, text: &str) -> bool {
        self.send(to, text);
        std::iter::from_fn(|| other.receive(SOON)).any(|heard| heard.text == text)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A datagram crosses a lab in well under a millisecond; a machine that is busy takes longer.
pub(crate) const SOON: Duration = Duration::from_millis(500);

const SOCKET: &str = "
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', int(sys.argv[1])))
print('open')
for line in sys.stdin:
    words = line.rstrip('\\n').split(' ', 3)
    if words[0] == 'send':
        host = words[1] if ':' in words[1] else '::ffff:' + words[1]
        try:
            s.sendto(words[3].encode(), (host, int(words[2])))
            print('sent')
        except OSError as error:
            print('not sent:', error)
    else:
        s.settimeout(float(words[1]))
        try:
            text, where = s.recvfrom(2000)
            print(where[0].removeprefix('::ffff:'), where[1], text.decode())
        except TimeoutError:
            print('-')
";
