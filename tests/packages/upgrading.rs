//! Issue 4, point 4: `apt` puts another version in the middle of a download over the mesh.

use std::{
    io::Read,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ring::digest;

use crate::{
    building::newer_packages,
    home::{Home, await_new_agent, install, within},
    machine::Machine,
    roots::Kind,
    web::Web,
};

/// The longest that the download may stand still.
const STALL_LIMIT: Duration = Duration::from_secs(1);

#[test]
fn neither_an_upgrade_nor_a_crash_of_an_agent_costs_a_download_anything() {
    let home = Home::formed(Kind::RESOLVED);
    let (anna, bo) = (&home.anna, &home.bo);
    let web = Web::serve(anna, "0.0.0.0:80");
    anna.sh("webmesh service add web --port 80");
    // Built before the download begins.
    newer_packages();
    within(Duration::from_secs(10), "the name is known", || {
        bo.run("getent hosts web.svc.home.internal")
            .status
            .success()
    });
    let download = Download::start(bo, "http://web.svc.home.internal/flow");
    download.await_more(4 << 20);
    let renewals = [
        ("the server is upgraded", anna, upgrade as fn(&Machine)),
        ("the client is upgraded", bo, upgrade),
        ("the client is killed", bo, kill),
    ];
    for (what, machine, renew) in renewals {
        download.forget_stall();
        let took = await_new_agent(machine, Duration::from_secs(120), || renew(machine));
        download.await_more(4 << 20);
        let stall = download.longest_stall();
        eprintln!("{what}, {took:?}: the download stood still for {stall:?}");
        assert!(stall <= STALL_LIMIT, "{what}: {stall:?}");
    }
    web.end_flow();
    assert_eq!(download.hash(), web.flow_hash(), "SHA-256");
}

fn upgrade(machine: &Machine) {
    install(machine, &newer_packages().deb);
}

fn kill(machine: &Machine) {
    machine.sh("systemctl kill --signal=KILL webmesh");
}

/// curl, whose output is read as it comes.
#[derive(Debug)]
struct Download {
    progress: Arc<Progress>,
    reading: thread::JoinHandle<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    longest_stall_us: AtomicU64,
}

impl Download {
    fn start(machine: &Machine, url: &str) -> Self {
        let mut curl = machine
            .command(&["curl", "-sSN", url])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let progress = Arc::new(Progress::default());
        let reading = thread::spawn({
            let progress = Arc::clone(&progress);
            move || {
                let hash = progress.read(curl.stdout.take().unwrap());
                assert!(curl.wait().unwrap().success(), "curl ended well");
                hash
            }
        });
        Self { progress, reading }
    }

    /// Waits until so much more has come.
    fn await_more(&self, bytes: u64) {
        let bytes = self.progress.bytes.load(Ordering::Relaxed) + bytes;
        within(Duration::from_secs(60), "the download goes on", || {
            assert!(!self.reading.is_finished(), "the download has ended");
            self.progress.bytes.load(Ordering::Relaxed) >= bytes
        });
    }

    fn forget_stall(&self) {
        self.progress.longest_stall_us.store(0, Ordering::Relaxed);
    }

    fn longest_stall(&self) -> Duration {
        Duration::from_micros(self.progress.longest_stall_us.load(Ordering::Relaxed))
    }

    /// The SHA-256 of all that came, when it has ended.
    fn hash(self) -> Vec<u8> {
        self.reading.join().unwrap()
    }
}

impl Progress {
    fn read(&self, mut from: impl Read) -> Vec<u8> {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut piece = vec![0; 1 << 16];
        let mut last = Instant::now();
        loop {
            let length = from.read(&mut piece).unwrap();
            let stall = u64::try_from(last.elapsed().as_micros()).unwrap();
            self.longest_stall_us.fetch_max(stall, Ordering::Relaxed);
            last = Instant::now();
            if length == 0 {
                return hash.finish().as_ref().to_vec();
            }
            hash.update(&piece[..length]);
            self.bytes
                .fetch_add(u64::try_from(length).unwrap(), Ordering::Relaxed);
        }
    }
}
