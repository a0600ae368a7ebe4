//! The world process: it holds the namespace that is the internet, starts a holder for every machine, and lays the
//! cables between them. When whoever started it goes away, it takes everything away.
//!
//! Knows orders and netlink. Refuses to know agents and steps.
//!
//! An ordinary user's world is root in a user namespace of its own, of which the machines' are children: so it may put
//! links into theirs.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use super::order::{Answer, INTERNET, MachineOrder, Order, Plug};
use crate::platform::{
    credentials,
    link::{self, Links, VethEnd},
    mount,
    namespace::{self, LeaveError, Namespaces, UserNamespace},
    nat,
};

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error(transparent)]
    Leave(#[from] LeaveError),
    #[error("there is no machine {0} in this world")]
    Unknown(String),
    #[error("{machine} did not start: {said}")]
    Holder { machine: String, said: String },
    #[error(
        "a router cannot forward, since /proc/sys is read-only here, as in most containers: run the demo outside of it, or start the container with --privileged"
    )]
    SealedSysctls,
    #[error("{what}: {source}")]
    Kernel {
        what: String,
        #[source]
        source: io::Error,
    },
}

/// Runs the world until stdin ends, then removes `directory`.
pub(super) fn run(directory: &Path) -> ExitCode {
    let user = match leave() {
        Ok(user) => user,
        Err(error) => {
            say(&refusal(&OrderError::Leave(error)));
            return ExitCode::from(2);
        }
    };
    let ended = World::new(user).map(|mut world| {
        say(&Answer::Stands {
            pid: std::process::id(),
        });
        world.serve();
    });
    if let Err(error) = &ended {
        say(&refusal(error));
    }
    clear(directory);
    ExitCode::from(if ended.is_ok() { 0 } else { 2 })
}

/// Runs one machine's holder until stdin ends or the world dies.
pub(super) fn hold_machine(user: UserNamespace, order: &MachineOrder) -> ExitCode {
    let settle = || -> Result<(), OrderError> {
        namespace::leave_host(user)?;
        namespace::die_with_parent().map_err(|source| kernel("prctl", source))?;
        namespace::set_hostname(&order.name).map_err(|source| kernel("sethostname", source))?;
        Links::open()
            .and_then(|mut links| links.up("lo"))
            .map_err(|error| LeaveError::at("netlink", error))?;
        mount::use_names(&order.resolv_conf, &order.nsswitch_conf, &order.scratch).map_err(
            |error| {
                kernel(
                    "mount",
                    io::Error::new(error.source.kind(), error.to_string()),
                )
            },
        )
    };
    if let Err(error) = settle() {
        say(&refusal(&error));
        return ExitCode::from(2);
    }
    say(&Answer::Stands {
        pid: std::process::id(),
    });
    // Nobody writes: this returns when the world is gone.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    ExitCode::SUCCESS
}

/// Leaves the host: as root with the user namespace kept, else, and where root may not, with an own one.
fn leave() -> Result<UserNamespace, LeaveError> {
    if credentials::own_uid() == 0 {
        match namespace::leave_host(UserNamespace::Kept) {
            Ok(()) => return Ok(UserNamespace::Kept),
            Err(LeaveError::Forbidden { .. }) => {}
            Err(error @ LeaveError::Refused { .. }) => return Err(error),
        }
    }
    namespace::leave_host(UserNamespace::Own)?;
    Ok(UserNamespace::Own)
}

struct World {
    user: UserNamespace,
    places: BTreeMap<String, Place>,
}

/// A machine, or the internet: its namespaces and what is known of them.
struct Place {
    namespaces: Namespaces,
    links: Links,
    /// None for the internet, which this process holds itself.
    holder: Option<Child>,
}

impl World {
    /// The internet alone. The first netlink request is made here: where a security module lets an ordinary user
    /// unshare but gives no rights inside, it shows now.
    fn new(user: UserNamespace) -> Result<Self, OrderError> {
        let mut internet = Place::of(std::process::id(), None)?;
        internet
            .links
            .up("lo")
            .map_err(|error| LeaveError::at("netlink", error))?;
        Ok(Self {
            user,
            places: BTreeMap::from([(INTERNET.to_owned(), internet)]),
        })
    }

    fn serve(&mut self) {
        for line in io::stdin().lines() {
            let Ok(line) = line else { return };
            let answer = match serde_json::from_str::<Order>(&line) {
                Ok(order) => self.apply(order).unwrap_or_else(|error| refusal(&error)),
                Err(error) => Answer::Refused(format!("an order nobody here knows: {error}")),
            };
            say(&answer);
        }
    }

    fn apply(&mut self, order: Order) -> Result<Answer, OrderError> {
        match order {
            Order::Machine(machine) => return self.start(&machine),
            Order::Bridge { at, name } => self.change(&at, &name, |links| {
                links.add_bridge(&name)?;
                links.up(&name)
            })?,
            Order::Cable { near, far } => self.lay(&near, &far)?,
            Order::Unplug { at, link } => self.change(&at, &link, |links| links.remove(&link))?,
            Order::Mtu { at, link, mtu } => {
                self.change(&at, &link, |links| links.set_mtu(&link, mtu))?;
            }
            Order::Address { at, link, net } => {
                self.change(&at, &link, |links| links.add_address(&link, net))?;
            }
            Order::RemoveAddress { at, link, net } => {
                self.change(&at, &link, |links| links.remove_address(&link, net))?;
            }
            Order::Route { at, to, via } => {
                self.change(&at, "route", |links| links.add_route(to, via))?;
            }
            Order::Router { at, wan, nat: kind } => self
                .place(&at)?
                .namespaces
                .within_network(|| {
                    link::forward().and_then(|()| nat::masquerade(&wan, kind.into()))
                })
                .and_then(|done| done)
                .map_err(|source| of_router(&at, source))?,
        }
        Ok(Answer::Done)
    }

    fn start(&mut self, order: &MachineOrder) -> Result<Answer, OrderError> {
        let started = || -> io::Result<(Child, Answer)> {
            let mut holder = Command::new("/proc/self/exe")
                .args(["demo", "hold", "machine", user_word(self.user)])
                .arg(serde_json::to_string(order)?)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut line = String::new();
            let stdout = holder.stdout.take().expect("stdout was asked to be a pipe");
            BufReader::new(stdout).read_line(&mut line)?;
            Ok((holder, serde_json::from_str(&line)?))
        };
        let (holder, answer) = started().map_err(|source| kernel(&order.name, source))?;
        match &answer {
            Answer::Stands { pid } => {
                let place = Place::of(*pid, Some(holder))?;
                self.places.insert(order.name.clone(), place);
                Ok(answer)
            }
            Answer::Forbidden(_) => Ok(answer),
            Answer::Done | Answer::Refused(_) => Err(OrderError::Holder {
                machine: order.name.clone(),
                said: format!("{answer:?}"),
            }),
        }
    }

    fn lay(&mut self, near: &Plug, far: &Plug) -> Result<(), OrderError> {
        let made = {
            let ends = [near, far].map(|plug| {
                self.place(&plug.at).map(|place| VethEnd {
                    name: &plug.link,
                    namespace: place.namespaces.network(),
                })
            });
            let [near_end, far_end] = ends;
            let ends = [near_end?, far_end?];
            Links::open().and_then(|mut links| links.add_veth(ends))
        };
        made.map_err(|source| kernel(&format!("cable {} – {}", near.link, far.link), source))?;
        for plug in [near, far] {
            self.change(&plug.at, &plug.link, |links| match &plug.bridge {
                Some(bridge) => links
                    .plug(&plug.link, bridge)
                    .and_then(|()| links.up(&plug.link)),
                None => links.up(&plug.link),
            })?;
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<&Place, OrderError> {
        self.places
            .get(name)
            .ok_or_else(|| OrderError::Unknown(name.to_owned()))
    }

    fn change(
        &mut self,
        at: &str,
        what: &str,
        act: impl FnOnce(&mut Links) -> io::Result<()>,
    ) -> Result<(), OrderError> {
        let place = self
            .places
            .get_mut(at)
            .ok_or_else(|| OrderError::Unknown(at.to_owned()))?;
        act(&mut place.links).map_err(|source| kernel(&format!("{what} in {at}"), source))
    }
}

impl Place {
    fn of(pid: u32, holder: Option<Child>) -> Result<Self, OrderError> {
        let open = || -> io::Result<Self> {
            let namespaces = Namespaces::of(pid)?;
            let links = namespaces.within_network(Links::open)??;
            Ok(Self {
                namespaces,
                links,
                holder,
            })
        };
        open().map_err(|source| kernel("namespaces", source))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            // It may have died already; either way it is gone afterwards.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// The word by which a holder is told of its user namespace.
pub(super) fn user_word(user: UserNamespace) -> &'static str {
    match user {
        UserNamespace::Own => "own",
        UserNamespace::Kept => "kept",
    }
}

/// Reads [`user_word`] back.
pub(super) fn user_from_word(word: &str) -> Option<UserNamespace> {
    [UserNamespace::Own, UserNamespace::Kept]
        .into_iter()
        .find(|user| user_word(*user) == word)
}

/// A router needs to switch forwarding on, which is a file.
fn of_router(at: &str, source: io::Error) -> OrderError {
    if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
        OrderError::SealedSysctls
    } else {
        kernel(&format!("router {at}"), source)
    }
}

fn kernel(what: &str, source: io::Error) -> OrderError {
    OrderError::Kernel {
        what: what.to_owned(),
        source,
    }
}

fn refusal(error: &OrderError) -> Answer {
    match error {
        OrderError::Leave(LeaveError::Forbidden { .. }) => Answer::Forbidden(error.to_string()),
        OrderError::Leave(LeaveError::Refused { .. })
        | OrderError::Unknown(_)
        | OrderError::Holder { .. }
        | OrderError::SealedSysctls
        | OrderError::Kernel { .. } => Answer::Refused(error.to_string()),
    }
}

fn say(answer: &Answer) {
    let text = serde_json::to_string(answer).expect("an answer is plain data");
    // A reader that is gone shows as the end of stdin.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Removes what the lab kept on disk. Agents that are still dying may write once more, so it is tried again.
fn clear(directory: &Path) {
    for _ in 0..CLEAR_TRIES {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ if !directory.exists() => break,
            _ => {}
        }
        thread::sleep(CLEAR_PAUSE);
    }
    if let Some(parent) = directory.parent().filter(|parent| is_demos(parent)) {
        // Stays while another demo of the same user is in it.
        let _ = fs::remove_dir(parent);
    }
}

fn is_demos(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(super::DIRECTORY)
}

/// How often [`clear`] tries: a killed process is gone within milliseconds, on a machine that is busy within a second.
const CLEAR_TRIES: u32 = 60;
const CLEAR_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_sysctls_are_said_in_a_sentence_that_helps() {
        let sealed = of_router("router-anna", io::Error::from_raw_os_error(libc::EROFS));
        assert!(
            sealed.to_string().ends_with("with --privileged"),
            "{sealed}"
        );
        let other = of_router("router-anna", io::Error::from_raw_os_error(libc::EPERM));
        assert!(
            other.to_string().starts_with("router router-anna: "),
            "{other}"
        );
    }
}
