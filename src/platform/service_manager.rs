//! The service manager (systemd): descriptors that it keeps while no process of this service runs
//! (`sd_pid_notify_with_fds` and `sd_listen_fds`), and what it is about to do with the service.
//!
//! Knows the messages and how descriptors travel. Refuses to know what is kept, and why, and what a job means.
#![expect(unsafe_code, reason = "descriptors come in as numbers")]

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
    unistd::pipe2,
};
use zbus::zvariant::OwnedObjectPath;

/// Whether a service manager listens to this process.
pub fn is_present() -> bool {
    std::env::var_os(NOTIFY_SOCKET).is_some()
}

/// The kind of job that systemd carries out for the unit of this process (`start`, `stop`, `restart` …); None: it has none.
///
/// # Errors
/// There is no system bus, or systemd does not answer on it. It may take its time: whoever asks sets the limit.
pub async fn job_of_own_unit() -> zbus::Result<Option<String>> {
    let bus = zbus::Connection::system().await?;
    let answer = bus
        .call_method(
            Some(SYSTEMD),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            "GetUnitByPID",
            &(std::process::id(),),
        )
        .await?;
    let unit: OwnedObjectPath = answer.body().deserialize()?;
    let job = property(&bus, &unit, ("org.freedesktop.systemd1.Unit", "Job")).await?;
    let (number, job): (u32, OwnedObjectPath) = job.try_into()?;
    if number == 0 {
        return Ok(None);
    }
    let kind = property(&bus, &job, ("org.freedesktop.systemd1.Job", "JobType")).await?;
    Ok(Some(kind.try_into()?))
}

async fn property(
    bus: &zbus::Connection,
    object: &OwnedObjectPath,
    (interface, name): (&str, &str),
) -> zbus::Result<zbus::zvariant::OwnedValue> {
    let answer = bus
        .call_method(
            Some(SYSTEMD),
            object,
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &(interface, name),
        )
        .await?;
    answer.body().deserialize()
}

const SYSTEMD: &str = "org.freedesktop.systemd1";

/// The descriptors that this process was started with, by name; none at the second call, or when they were meant for
/// another process. A program that this one starts does not get them.
///
/// # Errors
/// The environment does not say what they are; they stay open.
pub fn handed() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    if sd_notify::listen_fds()?.len() == 0 {
        return Ok(Vec::new());
    }
    let named = sd_notify::listen_fds_with_names()?.map(|(fd, name)| {
        // SAFETY: the service manager opened these numbers for this process (LISTEN_PID is ours, and setting
        // close-on-exec has shown that each is open), and TAKEN lets nobody else own them.
        (name, unsafe { OwnedFd::from_raw_fd(fd) })
    });
    Ok(named.collect())
}

/// Has the service manager keep a copy of a descriptor and hand it to the next process. `name` has no colon: that
/// parts the names in `LISTEN_FDNAMES`. It is kept whatever becomes of it: a device that is down is still a device.
///
/// # Errors
/// It is not kept. Without a service manager there is nothing to do.
pub fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"), fd)
}

fn send(text: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    let Some(address) = std::env::var_os(NOTIFY_SOCKET) else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect(address)?;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        &[ControlMessage::ScmRights(&[fd.as_raw_fd()])],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Has the service manager close everything that it keeps under a name.
///
/// # Errors
/// It was not told.
pub fn forget(name: &str) -> io::Result<()> {
    FORGOT.store(true, Ordering::Relaxed);
    let text = format!("FDSTOREREMOVE=1\nFDNAME={name}");
    sd_notify::notify(&[sd_notify::NotifyState::Custom(&text)])
}

/// Whether this process has had anything closed that the service manager kept: it may still be open for a moment.
pub fn is_forgetting() -> bool {
    is_present() && FORGOT.load(Ordering::Relaxed)
}

static FORGOT: AtomicBool = AtomicBool::new(false);

/// Waits until the service manager has done what it was told so far, for at most 1 s (`sd_notify_barrier`): it closes the
/// end of a pipe that it is sent. What systemd closes of its store another thread of it closes, a moment later.
///
/// # Errors
/// It did not answer, or could not be asked. Without a service manager nothing is waited for.
pub fn settle() -> io::Result<()> {
    let (here, there) = pipe2(OFlag::O_CLOEXEC)?;
    send("BARRIER=1", there.as_fd())?;
    drop(there);
    loop {
        let mut hung_up = [PollFd::new(here.as_fd(), PollFlags::empty())];
        match poll(&mut hung_up, PollTimeout::from(SETTLE_MS)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_closed) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

const SETTLE_MS: u16 = 1000;

/// Where the service manager listens.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
