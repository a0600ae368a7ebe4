//! What passed a wire: frames kept in a file, and what they say about us.
//!
//! Knows Ethernet, IPv4, IPv6 and UDP as far as the ports. Refuses to open anything.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::lab::Lab;
use crate::platform::wire_tap::WireTap;

/// A capture that runs until [`Capture::stop`].
#[derive(Debug)]
pub struct Capture {
    process: Child,
    stop: Option<ChildStdin>,
    file: PathBuf,
}

/// What a capture saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// UDP datagrams.
    pub datagrams: usize,
    /// The UDP ports of both sides of all datagrams.
    pub ports: BTreeSet<u16>,
    /// Whether a UDP port of either side, for every datagram, was among those asked for.
    pub foreign_ports: BTreeSet<(u16, u16)>,
    /// IP packets that were neither UDP nor what any host says by itself: ICMPv6, and IGMP to its routers.
    pub other_packets: usize,
    /// The protocol numbers of these.
    pub other_protocols: BTreeSet<u8>,
    /// How often the needle was found in a frame.
    pub needles: usize,
}

impl Capture {
    /// Starts to record what passes between the wire and the machine `name`, which is on it.
    pub fn start(lab: &Lab, name: &str) -> io::Result<Self> {
        let file = lab.directory().join(format!("{name}.frames"));
        let mut process = lab
            .on_the_wire(lab.program())?
            .args(["demo", "hold", "capture", name])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0];
        process
            .stdout
            .as_mut()
            .expect("stdout was asked to be a pipe")
            .read_exact(&mut ready)?;
        Ok(Self {
            stop: process.stdin.take(),
            process,
            file,
        })
    }

    /// Ends the recording and reads it: datagrams that touch none of `ports`, and places where `needle` stands.
    pub fn stop(self, ports: &[u16], needle: &[u8]) -> io::Result<Seen> {
        let mut seen = Seen::default();
        self.read(|frame| seen.add(&frame, ports, needle))?;
        Ok(seen)
    }

    /// Ends the recording and gives every frame, with its Ethernet header.
    pub fn frames(self) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        self.read(|frame| frames.push(frame))?;
        Ok(frames)
    }

    fn read(mut self, mut take: impl FnMut(Vec<u8>)) -> io::Result<()> {
        drop(self.stop.take());
        self.process.wait()?;
        let mut frames = BufReader::new(File::open(&self.file)?);
        while let Some(frame) = read_frame(&mut frames)? {
            take(frame);
        }
        fs::remove_file(&self.file)
    }
}

impl Seen {
    fn add(&mut self, frame: &[u8], ports: &[u16], needle: &[u8]) {
        self.needles += frame
            .windows(needle.len().max(1))
            .filter(|window| *window == needle)
            .count();
        match classify(frame) {
            Kind::Udp(source, destination) => {
                self.datagrams += 1;
                self.ports.extend([source, destination]);
                if !ports.contains(&source) && !ports.contains(&destination) {
                    self.foreign_ports.insert((source, destination));
                }
            }
            Kind::Housekeeping => {}
            Kind::Other(protocol) => {
                self.other_packets += 1;
                self.other_protocols.insert(protocol);
            }
        }
    }
}

/// Records the frames of the interface `link` into `file` until stdin ends: the body of `demo hold capture`.
pub(super) fn run(link: &str, file: &Path) -> io::Result<()> {
    let tap = WireTap::open(link)?;
    let mut out = BufWriter::new(File::create(file)?);
    io::stdout().write_all(b"+")?;
    io::stdout().flush()?;
    let stdin = io::stdin();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let mut ready = [
            PollFd::new(tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
            Ok(_) => {}
        }
        let [frames, end] = ready.map(|one| one.any().unwrap_or_default());
        if frames {
            let length = tap.read(&mut buffer)?;
            write_frame(&mut out, &buffer[..length])?;
        } else if end {
            // Frames first: what was there when the end was asked for is kept.
            return out.flush();
        }
    }
}

enum Kind {
    Udp(u16, u16),
    Housekeeping,
    Other(u8),
}

fn classify(frame: &[u8]) -> Kind {
    let two = |at: usize| {
        frame
            .get(at..at + 2)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_be_bytes)
    };
    let (protocol, transport) = match two(12) {
        Some(ETHERTYPE_IPV4) => {
            let first = frame.get(14).copied().unwrap_or_default();
            (frame.get(23).copied(), 14 + usize::from(first & 0x0f) * 4)
        }
        Some(ETHERTYPE_IPV6) => (frame.get(20).copied(), 54),
        Some(_) | None => return Kind::Housekeeping,
    };
    match protocol {
        Some(PROTOCOL_UDP) => match (two(transport), two(transport + 2)) {
            (Some(source), Some(destination)) => Kind::Udp(source, destination),
            _ => Kind::Other(PROTOCOL_UDP),
        },
        Some(PROTOCOL_IGMP | PROTOCOL_ICMP6 | PROTOCOL_HOP_BY_HOP) => Kind::Housekeeping,
        Some(other) => Kind::Other(other),
        None => Kind::Other(0),
    }
}

fn write_frame(out: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).expect("a frame is at most 64 KiB");
    out.write_all(&length.to_le_bytes())?;
    out.write_all(frame)
}

fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    let mut frame = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap_or_default()];
    from.read_exact(&mut frame)?;
    Ok(Some(frame))
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_IGMP: u8 = 2;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMP6: u8 = 58;
const PROTOCOL_HOP_BY_HOP: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn udp4(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        let mut ip = [0; 20];
        ip[0] = 0x45;
        ip[9] = PROTOCOL_UDP;
        frame.extend(ip);
        frame.extend(source.to_be_bytes());
        frame.extend(destination.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_datagram_between_foreign_ports_and_a_needle_are_seen() {
        let mut seen = Seen::default();
        seen.add(&udp4(41820, 7, b"sealed"), &[41820], b"hello");
        seen.add(&udp4(7, 41820, b"sealed"), &[41820], b"hello");
        assert_eq!(
            (seen.datagrams, seen.foreign_ports.len(), seen.needles),
            (2, 0, 0)
        );
        seen.add(&udp4(53, 1024, b"say hello, hello"), &[41820], b"hello");
        assert_eq!((seen.datagrams, seen.needles), (3, 2));
        assert_eq!(seen.foreign_ports.first(), Some(&(53, 1024)));
    }

    #[test]
    fn a_tcp_packet_is_counted_as_other_and_arp_is_not() {
        let mut seen = Seen::default();
        let mut tcp = udp4(1, 2, b"");
        tcp[23] = 6;
        seen.add(&tcp, &[], b"x");
        let mut arp = udp4(1, 2, b"");
        arp[13] = 0x06;
        seen.add(&arp, &[], b"x");
        assert_eq!((seen.other_packets, seen.datagrams), (1, 0));
    }

    #[test]
    fn frames_come_back_as_they_were_written() {
        let mut file = Vec::new();
        for frame in [b"one".as_slice(), b"", b"three"] {
            write_frame(&mut file, frame).unwrap();
        }
        let mut from = file.as_slice();
        let mut back = Vec::new();
        while let Some(frame) = read_frame(&mut from).unwrap() {
            back.push(frame);
        }
        assert_eq!(back, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
    }
}
