//! What two builds must agree on to share a transport: every byte of the exchange and of sealed packets, for both roles
//! and both ciphers. The values in `tests/vectors/transport.txt` were made once, by another implementation; one that
//! changes is a peer that is cut off.
//!
//! ML-KEM's randomness cannot be given to the library, so its key, ciphertext and secret are stored.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot get its sample has failed"
)]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use rand_core::RngCore;
use webmesh::{
    ids::{Boot, NetworkId, NodeId},
    time::Moment,
    transport::{
        Carrier, Content, Exchange, Opening, Order, Output, Outside, Sealing, Terms,
        kem::{self, KemKey, KemRefused, Shared},
        layout::{CIPHERTEXT_LEN, KEM_KEY_LEN},
        padded,
        schedule::End,
        suite::{Aes, Suite},
    },
    wire::exchange as frames,
};
use zeroize::Zeroizing;

const NOW: Moment = Moment(5_000_000);
const INITIATOR: usize = 0;
const RESPONDER: usize = 1;

/// Each suite, with the AES of a responder that chooses it.
const SUITES: [(Suite, Aes, &str); 2] = [
    (Suite::Aes256Gcm, Aes::InHardware, "aes"),
    (Suite::ChaCha20Poly1305, Aes::InSoftware, "chacha"),
];

/// The stored values by name.
struct Vectors(BTreeMap<String, Vec<u8>>);

impl Vectors {
    fn read() -> Self {
        let text = fs::read_to_string(file("vectors/transport.txt")).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let values = lines.chunks(2).map(|pair| {
            let name = pair[0].strip_prefix("# ").unwrap().to_owned();
            let value = data_encoding::HEXLOWER.decode(pair[1].as_bytes());
            (name, value.unwrap())
        });
        Self(values.collect())
    }

    fn bytes(&self, name: &str) -> &[u8] {
        let value = self.0.get(name);
        value.unwrap_or_else(|| panic!("no {name} in transport.txt"))
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap()
    }

    fn end(&self, role: &str) -> End {
        End {
            node: NodeId(self.array(&format!("node-{role}"))),
            tunnel: self.array(&format!("tunnel-{role}")),
        }
    }

    /// One end of the stored exchange.
    fn exchange(&self, role: usize, aes: Aes) -> Exchange {
        let (initiator, responder) = (self.end("initiator"), self.end("responder"));
        let (ends, boot) = match role {
            INITIATOR => ((initiator, responder), "boot-initiator"),
            _ => ((responder, initiator), "boot-responder"),
        };
        let terms = Terms {
            aes,
            boot: Boot(self.array(boot)),
        };
        let network = NetworkId(self.array("network"));
        Exchange::new(network, ends, self.array("psk"), terms).unwrap()
    }
}

/// Draws what is stored.
struct Stored<'a> {
    vectors: &'a Vectors,
    role: &'static str,
    drawn: Vec<u8>,
}

impl<'a> Stored<'a> {
    fn new(vectors: &'a Vectors, role: usize) -> Self {
        let role = ["initiator", "responder"][role];
        let mut drawn = vectors.bytes(&format!("drawn-{role}")).to_vec();
        drawn.reverse();
        Self {
            vectors,
            role,
            drawn,
        }
    }
}

impl RngCore for Stored<'_> {
    /// Only when messages are sent again is drawn so, which is no part of the vectors.
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn next_u64(&mut self) -> u64 {
        0
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.drawn.pop().unwrap());
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl Outside for Stored<'_> {
    fn random(&mut self) -> &mut dyn RngCore {
        self
    }

    fn draw_index(&mut self) -> u32 {
        u32::from_le_bytes(self.vectors.array(&format!("index-{}", self.role)))
    }

    fn generate(&mut self) -> Result<KemKey, KemRefused> {
        Ok(KemKey {
            public: self.vectors.array("kem-public-key"),
            secret: Zeroizing::new(self.vectors.array("kem-secret-key")),
        })
    }

    fn encapsulate(
        &mut self,
        public: &[u8; KEM_KEY_LEN],
    ) -> Result<([u8; CIPHERTEXT_LEN], Shared), KemRefused> {
        assert_eq!(public[..], *self.vectors.bytes("kem-public-key"));
        let shared = Zeroizing::new(self.vectors.array("kem-shared-secret"));
        Ok((self.vectors.array("kem-ciphertext"), shared))
    }
}

/// What an end is told to do.
#[derive(Default)]
struct Told {
    sent: Vec<Vec<u8>>,
    sealed: Vec<Vec<u8>>,
    opening: Option<Box<Opening>>,
    sealing: Option<Box<Sealing>>,
}

impl Told {
    fn take(&mut self, exchange: &mut Exchange) {
        while let Some(output) = exchange.poll_output() {
            match output {
                Output::Send(frame) => self.sent.push(frame),
                Output::Seal(frame) => {
                    let sealing = self.sealing.as_deref().unwrap();
                    self.sealed.push(seal(sealing, &frame, 0));
                }
                Output::Install(opening) => self.opening = Some(opening),
                Output::Switch(sealing) => self.sealing = Some(sealing),
                Output::Up(_) => {}
                output @ (Output::Withdraw | Output::Retire(_) | Output::Failed(_)) => {
                    panic!("{output:?}")
                }
            }
        }
    }
}

fn seal(sealing: &Sealing, packet: &[u8], limit: usize) -> Vec<u8> {
    let mut datagram = vec![0; 200];
    let mut run = sealing.run(NOW, 1, packet.len()).unwrap();
    let len = run.seal(packet, padded(packet.len(), limit), &mut datagram);
    datagram.truncate(len.unwrap());
    datagram
}

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// Both halves of a message of this kind, without their heads.
fn joined(kind: u8, sent: &[Vec<u8>]) -> Vec<u8> {
    let [first, second] = sent else {
        panic!("{} frames", sent.len());
    };
    let message = [&first[12..], &second[12..]].concat();
    let [low, high] = u16::try_from(message.len() / 2).unwrap().to_le_bytes();
    // Of an Init and of a Response alike.
    let number = &message[16..20];
    for (frame, fragment) in [(first, 0x02), (second, 0x12)] {
        let head = [&[0, 1, kind, fragment, low, high, 0, 0], number].concat();
        assert_eq!(frame[..12], head);
    }
    message
}

#[test]
fn an_initiator_sends_and_seals_the_stored_bytes() {
    let vectors = Vectors::read();
    for (suite, _, name) in SUITES {
        let value = |what: &str| vectors.bytes(&format!("{name}-{what}"));
        let mut alice = vectors.exchange(INITIATOR, Aes::InHardware);
        let mut outside = Stored::new(&vectors, INITIATOR);
        let mut told = Told::default();
        alice.handle_wanted(NOW, &mut outside);
        told.take(&mut alice);
        assert_eq!(joined(0x60, &told.sent), vectors.bytes("init"));

        let response = value("response").try_into().unwrap();
        for frame in frames::response_frames(1, &response) {
            let taken = alice.handle_frame(NOW, Carrier::WireGuard, &frame, &mut outside);
            assert_eq!(taken, Ok(()), "{name}");
        }
        told.take(&mut alice);
        let sealing = told.sealing.as_deref().unwrap();
        assert_eq!(sealing.suite(), suite);
        assert_eq!(told.sealed, [value("done-sealed")]);
        let packet = seal(sealing, vectors.bytes("packet"), 1420);
        assert_eq!(packet, value("packet-sealed-initiator"));

        let opening = told.opening.as_deref_mut().unwrap();
        let mut keepalive = value("keepalive-sealed").to_vec();
        let opened = opening.open(NOW, &mut keepalive).unwrap();
        assert_eq!(
            (opened.order, opened.content),
            (Order::First, Content::Keepalive)
        );
        opens_packet(&vectors, opening, value("packet-sealed-responder"));
    }
}

#[test]
fn a_responder_sends_and_seals_the_stored_bytes() {
    let vectors = Vectors::read();
    for (suite, aes, name) in SUITES {
        let value = |what: &str| vectors.bytes(&format!("{name}-{what}"));
        let mut bob = vectors.exchange(RESPONDER, aes);
        let mut outside = Stored::new(&vectors, RESPONDER);
        let mut told = Told::default();
        for frame in frames::init_frames(1, &vectors.array("init")) {
            let taken = bob.handle_frame(NOW, Carrier::WireGuard, &frame, &mut outside);
            assert_eq!(taken, Ok(()), "{name}");
        }
        told.take(&mut bob);
        assert_eq!(joined(0x61, &told.sent), value("response"));
        assert!(told.sealing.is_none(), "nothing opened yet");

        let opening = told.opening.as_deref_mut().unwrap();
        let index = opening.index();
        let mut done = value("done-sealed").to_vec();
        let opened = opening.open(NOW, &mut done).unwrap();
        let (Order::First, Content::Frame(frame)) = (opened.order, opened.content) else {
            panic!("{name}: no Done");
        };
        bob.handle_opened(NOW, index);
        let taken = bob.handle_frame(NOW, Carrier::Transport(index), frame, &mut outside);
        assert_eq!(taken, Ok(()), "{name}");
        opens_packet(&vectors, opening, value("packet-sealed-initiator"));

        told.take(&mut bob);
        let sealing = told.sealing.as_deref().unwrap();
        assert_eq!(sealing.suite(), suite);
        assert_eq!(told.sealed, [value("keepalive-sealed")]);
        let packet = seal(sealing, vectors.bytes("packet"), 1420);
        assert_eq!(packet, value("packet-sealed-responder"));
    }
}

fn opens_packet(vectors: &Vectors, opening: &mut Opening, sealed: &[u8]) {
    let mut sealed = sealed.to_vec();
    let opened = opening.open(NOW, &mut sealed).unwrap();
    let Content::Packet(packet) = opened.content else {
        panic!("no packet");
    };
    let expected = vectors.bytes("packet");
    assert_eq!(packet[..expected.len()], *expected);
    assert!(packet[expected.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_stored_secret_is_what_the_stored_key_opens() {
    let vectors = Vectors::read();
    let secret = vectors.array("kem-secret-key");
    let shared = kem::decapsulate(&secret, &vectors.array("kem-ciphertext")).unwrap();
    assert_eq!(shared[..], *vectors.bytes("kem-shared-secret"));
    assert!(kem::encapsulate(&vectors.array("kem-public-key")).is_ok());
}

/// Debian's Python and its `cryptography`, which `tests/run` installs.
#[test]
fn another_implementation_derives_the_same_keys() {
    let output = Command::new("/usr/bin/python3")
        .arg(file("transport/schedule.py"))
        .arg(file("vectors/transport.txt"))
        .output()
        .expect("Python is here: apt-get install python3 python3-cryptography");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "apt-get install python3-cryptography? {said}{complaint}"
    );
    assert_eq!(said, "aes agrees\nchacha agrees\n");
}
