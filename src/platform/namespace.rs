//! User, mount, network and host-name namespaces: leaving the host's, and entering others'.
//!
//! Knows what the kernel asks for before it lets an ordinary user do this. Refuses to know what the namespaces hold.
#![expect(
    unsafe_code,
    reason = "a child of fork enters a namespace before it becomes another program"
)]

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::Command,
    sync::Arc,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, chdir},
};

use super::mount;

/// Whether a process gets a user namespace of its own with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    /// Its own: it becomes root there, and only there.
    Own,
    /// The one it is in: it is root already.
    Kept,
}

/// Why a process could not leave the host's namespaces.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The kernel, or a security module of it, keeps namespaces for root.
    #[error("this machine lets only root make namespaces ({what}: {source})")]
    Forbidden {
        /// The step that was refused.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot make a namespace ({what}: {source})")]
    Refused {
        /// The step that was refused.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LeaveError {
    /// Sorts what the kernel said at the step `what`.
    pub fn at(what: &'static str, source: io::Error) -> Self {
        // Storage is "full" where the sysctl user.max_user_namespaces is 0.
        if matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull
        ) {
            Self::Forbidden { what, source }
        } else {
            Self::Refused { what, source }
        }
    }
}

/// Moves this process, which must have one thread, into new mount, network and host-name namespaces, and into a new
/// user namespace where uid 0 alone is mapped. Mounts made from then on stay there.
///
/// # Errors
/// The process may then be in some of the namespaces: it is to end.
pub fn leave_host(user: UserNamespace) -> Result<(), LeaveError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    if user == UserNamespace::Own {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|errno| LeaveError::at("unshare", errno.into()))?;
    if user == UserNamespace::Own {
        map_root(uid, gid).map_err(|error| LeaveError::at("uid_map", error))?;
        // A change of user namespace makes a process unreadable to its own user; then nobody could enter after it.
        prctl::set_dumpable(true).map_err(|errno| LeaveError::at("prctl", errno.into()))?;
    }
    mount::make_private().map_err(|error| LeaveError::at("mount", error))
}

/// Has the kernel kill this process when the thread that started it ends. To be called after [`leave_host`], which
/// may clear it.
pub fn die_with_parent() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)
}

/// Gives this process's host-name namespace a name.
pub fn set_hostname(name: &str) -> io::Result<()> {
    nix::unistd::sethostname(name).map_err(io::Error::from)
}

/// The namespaces of a process, kept open: they live as long as this does.
#[derive(Debug)]
pub struct Namespaces {
    /// None where it is the one we are in, which cannot be entered again.
    user: Option<OwnedFd>,
    mount: OwnedFd,
    network: OwnedFd,
    hostname: OwnedFd,
}

impl Namespaces {
    /// Opens the namespaces that the process `pid` is in.
    pub fn of(pid: u32) -> io::Result<Self> {
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
        let user = open("user")?;
        let is_ours = user.metadata()?.ino() == fs::metadata("/proc/self/ns/user")?.ino();
        Ok(Self {
            user: (!is_ours).then(|| user.into()),
            mount: open("mnt")?.into(),
            network: open("net")?.into(),
            hostname: open("uts")?.into(),
        })
    }

    /// The network namespace, to put links into.
    pub fn network(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// Moves this process, which must have one thread, into all of them. It allocates nothing, so that a child may
    /// call it between fork and exec.
    pub fn enter(&self) -> io::Result<()> {
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
        }
        setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        setns(&self.hostname, CloneFlags::CLONE_NEWUTS)?;
        Ok(())
    }

    /// Runs `act` with the calling thread in the network namespace, and comes back. Sockets that it opens stay there.
    ///
    /// # Errors
    /// When the thread may not go there.
    ///
    /// # Panics
    /// When the thread cannot come back, which would leave it in a foreign network.
    pub fn within_network<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        let home = File::open("/proc/thread-self/ns/net")?;
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        let done = act();
        setns(&home, CloneFlags::CLONE_NEWNET).expect("a thread may go back to where it came from");
        Ok(done)
    }
}

/// Makes `command` start inside `namespaces`, in `directory`, and end when the thread that starts it ends.
pub fn put_inside(
    command: &mut Command,
    namespaces: &Arc<Namespaces>,
    directory: &Path,
) -> io::Result<()> {
    let namespaces = Arc::clone(namespaces);
    let directory = CString::new(directory.as_os_str().as_encoded_bytes())?;
    let enter = move || {
        namespaces.enter()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        chdir(directory.as_c_str()).map_err(|errno: Errno| errno.into())
    };
    // SAFETY: `enter` calls setns, prctl and chdir alone, on descriptors and a string made before the fork: nothing
    // in it allocates or takes a lock.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Maps uid 0 and gid 0 of the new user namespace to the user we were, and nothing else.
fn map_root(uid: Uid, gid: Gid) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}
