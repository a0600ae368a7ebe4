//! Issue 4, point 6: no secret that is made here is found anywhere but in the state directory.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use webmesh::{
    ids::NodeId,
    keys::{InviteSecret, NetSecret, RootSeed, Token, pair_psk},
    wire::record::{Body, Record},
};

use crate::{
    dht::{self, Nodes},
    harness::{Net, Peer, within},
};

/// A secret, and all the ways in which it could have been written.
struct Secret {
    what: String,
    forms: BTreeSet<Vec<u8>>,
}

impl Secret {
    fn bytes(what: impl Into<String>, secret: &[u8]) -> Self {
        let mut forms = BTreeSet::from([secret.to_vec()]);
        let hex = HEXLOWER.encode(secret);
        forms.insert(hex.to_uppercase().into_bytes());
        forms.insert(hex.into_bytes());
        // Beside other bytes its letters depend on where it begins, except for the first and the last of them.
        for shift in 0..5 {
            let shifted = [vec![0; shift], secret.to_vec()].concat();
            let (head, inner) = ((shift * 8).div_ceil(5), secret.len() * 8 / 5 - 2);
            let text: String = BASE32_NOPAD
                .encode(&shifted)
                .chars()
                .skip(head)
                .take(inner)
                .collect();
            forms.insert(text.to_lowercase().into_bytes());
            forms.insert(text.into_bytes());
        }
        for shift in 0..3 {
            let shifted = [vec![0; shift], secret.to_vec()].concat();
            let (head, inner) = ((shift * 8).div_ceil(6), secret.len() * 8 / 6 - 2);
            for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
                let text: String = encoding
                    .encode(&shifted)
                    .chars()
                    .skip(head)
                    .take(inner)
                    .collect();
                forms.insert(text.into_bytes());
            }
        }
        // As `{:?}` prints an array.
        let figures: Vec<String> = secret.iter().take(8).map(u8::to_string).collect();
        forms.insert(figures.join(", ").into_bytes());
        Self {
            what: what.into(),
            forms,
        }
    }

    fn text(what: &str, secret: &str) -> Self {
        let forms = [secret, &secret.replace('-', "")].map(|text| text.as_bytes().to_vec());
        Self {
            what: what.to_owned(),
            forms: forms.into(),
        }
    }

    fn is_in(&self, heap: &[u8]) -> bool {
        self.forms.iter().any(|form| {
            heap.windows(form.len())
                .any(|window| window == form.as_slice())
        })
    }
}

#[test]
fn no_secret_is_found_outside_the_state_directory() {
    let mut net = Net::empty();
    let _dht = Nodes::start(net.lab());
    for (name, number) in [("anna", 11), ("bo", 12)] {
        net.add_configured(name, number, dht::CONFIG);
        let agent = &mut net.peer_mut(name).agent;
        agent.stop().unwrap();
        agent.set_environment("WEBMESH_LOG", "trace");
        agent.start().unwrap();
    }
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    only_by_tls(bo);
    let init = anna.ok(&["init", "home"]);
    let code = init.split("all admins are lost:   ").nth(1).unwrap();
    let code = code.lines().next().unwrap();
    let token = anna.invite();
    let given = net.lab().directory().join("given");
    fs::write(&given, &token).unwrap();
    bo.sh(&format!("\"$WEBMESH\" join - < {}", given.display()));
    fs::remove_file(&given).unwrap();
    bo.ok(&["ping", "anna"]);
    let path = &bo.status()["peers"][0]["path"]["kind"];
    assert_eq!(path, "stream", "keys of streams are in use");
    // From here on as usual, for a bundle with an address in it.
    become_direct(anna, bo);
    let log = anna.agent.log();
    assert!(
        log.contains("The DHT is in use"),
        "keys of slots are: {log}"
    );
    let said_no = bo.refused(2, &["join", &token]) + &bo.refused(2, &["recover", "4XKD-91TQ-0000"]);

    let invite = token.parse::<Token>().unwrap().secret;
    let mut secrets = vec![
        Secret::text("the recovery code", code),
        Secret::text("the token", &token),
        Secret::bytes("the invite's secret", &invite.0),
        Secret::bytes("the root seed", &RootSeed::parse_code(code).unwrap().0),
    ];
    for peer in [anna, bo] {
        secrets.extend(seeds_of(peer));
    }
    let net_secret = net_secret_of(anna);
    secrets.push(Secret::bytes("the network's secret", &net_secret));
    let [a, b] = [anna, bo].map(|peer| {
        let id = peer.status()["self"]["id"].as_str().unwrap().to_owned();
        NodeId(HEXLOWER.decode(id.as_bytes()).unwrap().try_into().unwrap())
    });
    let psk = pair_psk(&NetSecret(net_secret), a, b);
    secrets.push(Secret::bytes("the pair's psk", &psk));
    secrets.extend(derived(&NetSecret(net_secret), &invite));
    secrets.push(Secret::bytes("a listener's TLS key", PKCS8_P256));
    assert_eq!(secrets.len(), 4 + 4 + 2 + (1 + 2 * 2 + 2 * 3 * 4) + 1);

    let mut heaps = vec![("what was said".to_owned(), said_no.into_bytes())];
    for peer in [anna, bo] {
        let bundle = peer.file("bundle.jsonl");
        peer.ok(&["debug", "bundle", "--output", bundle.to_str().unwrap()]);
        must_be_of_use(&bundle, peer);
        let log = peer.agent.log().into_bytes();
        assert!(!log.is_empty(), "a log that says something");
        heaps.push((format!("{}'s log", peer.name()), log));
        assert!(
            is_in_state(peer, &secrets),
            "the search finds what is there"
        );
        for path in files_outside_state(peer) {
            // What this user cannot read the agent, which runs as the same, did not write.
            if let Ok(heap) = fs::read(&path) {
                heaps.push((path.display().to_string(), heap));
            }
        }
    }
    heaps.extend(all_processes());
    let mut found = Vec::new();
    for (place, heap) in &heaps {
        for secret in &secrets {
            if secret.is_in(heap) {
                found.push(format!("{} in {place}", secret.what));
            }
        }
    }
    assert_eq!(found, [""; 0]);
}

/// As in an office that lets no UDP out but what the DHT needs.
fn only_by_tls(peer: &Peer) {
    peer.sh(
        "nft 'add table inet office; add chain inet office out { type filter hook output priority 0; }; \
         add rule inet office out udp dport 41820 drop'",
    );
}

fn become_direct(anna: &Peer, bo: &Peer) {
    bo.sh("nft delete table inet office");
    within(Duration::from_secs(60), "the direct path is found", || {
        let path_of = |peer: &Peer| peer.status()["peers"][0]["path"]["kind"].clone();
        path_of(bo) == "direct" && path_of(anna) == "direct"
    });
}

/// How every key of the kind begins that the listener for TLS makes for itself; nobody else knows the rest.
const PKCS8_P256: &[u8] = &[
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
    0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d,
];

/// What is made of the network's secret and the invite's for streams and for the slots of the DHT, around today.
fn derived(network: &NetSecret, invite: &InviteSecret) -> Vec<Secret> {
    let mut secrets = vec![Secret::bytes(
        "the key that begins streams",
        &network.stream_key(),
    )];
    let mut slots = vec![("invite", invite.slot(0)), ("invite", invite.slot(1))];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let today = u32::try_from(now.as_secs() / 86_400).unwrap();
    for day in [today - 1, today, today + 1] {
        slots.extend((0..4).map(|i| ("network", network.slot(day, i, 0))));
    }
    for (whose, slot) in slots {
        secrets.push(Secret::bytes(
            format!("a slot's seed ({whose})"),
            &slot.seed,
        ));
        secrets.push(Secret::bytes(
            format!("a slot's seal ({whose})"),
            &slot.seal,
        ));
    }
    secrets
}

/// Both seeds, as they lie in the two-slot file of an identity: byte strings of 32 bytes.
fn seeds_of(peer: &Peer) -> Vec<Secret> {
    let file = fs::read(network_folder(peer).join("identity.a")).unwrap();
    let mut seeds = Vec::new();
    let mut at = 18;
    while let Some(rest) = file.get(at..at + 34) {
        if rest.starts_with(&[0x58, 32]) && file.len() >= at + 34 + 32 {
            let what = format!("seed {} of {}", seeds.len(), peer.name());
            seeds.push(Secret::bytes(what, &rest[2..]));
            at += 33;
        }
        at += 1;
    }
    assert_eq!(seeds.len(), 2);
    seeds
}

fn net_secret_of(peer: &Peer) -> [u8; 32] {
    let log = fs::read(network_folder(peer).join("records.log")).unwrap();
    let mut rest = log.as_slice();
    while let [low, high, tail @ ..] = rest {
        let (record, after) = tail.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        if let Ok(record) = Record::decode(record)
            && let Ok(Body::Epoch(epoch)) = record.body()
        {
            return epoch.secret;
        }
        rest = after;
    }
    panic!("no epoch in the record log");
}

fn network_folder(peer: &Peer) -> PathBuf {
    let entries = fs::read_dir(peer.agent.state_directory()).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.is_dir()).unwrap()
}

fn is_in_state(peer: &Peer, secrets: &[Secret]) -> bool {
    let files = files_below(&peer.agent.state_directory());
    let heaps: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let seed = secrets
        .iter()
        .filter(|secret| secret.what.ends_with(peer.name()));
    seed.into_iter()
        .all(|seed| heaps.iter().any(|heap| seed.is_in(heap)))
}

/// Everything of the lab but what lies in this machine's state directory, and what the machine has in places for all.
fn files_outside_state(peer: &Peer) -> Vec<PathBuf> {
    let directory = peer.agent.machine().directory.clone();
    let state = peer.agent.state_directory();
    let mut files: Vec<PathBuf> = files_below(&directory)
        .into_iter()
        .filter(|path| !path.starts_with(&state))
        .collect();
    for place in [
        "/run/webmesh",
        "/etc/webmesh",
        "/var/lib/webmesh",
        "/dev/shm",
    ] {
        files.extend(files_below(Path::new(place)));
    }
    files
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
    files
}

/// What `ps` shows of every process, with its environment. Some end while this looks.
fn all_processes() -> Vec<(String, Vec<u8>)> {
    let mut heaps = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if !entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            continue;
        }
        for name in ["cmdline", "environ", "comm"] {
            let path = entry.path().join(name);
            if let Ok(bytes) = fs::read(&path) {
                heaps.push((path.display().to_string(), bytes));
            }
        }
    }
    assert!(heaps.len() > 9, "processes can be looked at");
    heaps
}

/// A bundle that says what a maintainer asks, of a network of two, and nobody's name or address.
fn must_be_of_use(bundle: &Path, peer: &Peer) {
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(bundle).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(bundle).unwrap();
    let parts: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: BTreeSet<&str> = parts
        .iter()
        .map(|part| part["part"].as_str().unwrap())
        .collect();
    let wanted = [
        "about", "config", "dns", "drops", "files", "health", "host", "log", "network", "peer",
        "sysctl", "timers",
    ];
    assert_eq!(kinds, wanted.into());
    let other = parts.iter().find(|part| part["part"] == "peer").unwrap();
    assert_eq!(
        (&other["peer"]["state"], &other["peer"]["name"]),
        (&"up".into(), &"peer2".into())
    );
    let endpoint = other["peer"]["path"]["endpoint"].as_str().unwrap();
    assert!(
        (endpoint.contains("public4-") || endpoint.contains("public6-"))
            && endpoint.ends_with(":41820"),
        "{endpoint}"
    );
    for hidden in ["anna", "bo", "home", "203.0.113.", "100.", "2001:db8"] {
        let words = || {
            text.split(|letter: char| !(letter.is_alphanumeric() || letter == '.' || letter == ':'))
        };
        let is_name = hidden.bytes().all(|byte| byte.is_ascii_alphabetic());
        let shows = words().any(|word| match is_name {
            true => word.split(['.', ':']).any(|part| part == hidden),
            false => word.starts_with(hidden) && word.parse::<std::net::IpAddr>().is_ok(),
        });
        assert!(!shows, "{}'s bundle says {hidden}", peer.name());
    }
}
