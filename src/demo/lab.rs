//! A lab: machines and routers in namespaces, joined by cables, each with its own files. The demo and the namespace
//! tests are played in one.
//!
//! Knows the world process it talks to and what it has built. Refuses to know what runs in the machines.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;

use super::order::{Answer, INTERNET, MachineOrder, NatKind, Order, Plug};
use crate::platform::namespace::{Namespaces, put_inside};

/// The gateway of public machines: an address of the internet's bridge. Nothing is behind it.
const GATEWAY: [&str; 2] = ["203.0.113.1/24", "2001:db8::1/64"];

/// The bridge in [`INTERNET`].
const WIRE: &str = "wire";

/// The configuration of an agent whose neighbours on the wire are not in its LAN.
const IN_NO_LAN: &str = "[rendezvous]\nlan = false\n";

/// Why a lab could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel lets only root make one.
    #[error("{0}")]
    Forbidden(String),
    /// The world could not do something.
    #[error("{0}")]
    Refused(String),
    /// The world is gone, or cannot be started.
    #[error("the namespaces cannot be held: {0}")]
    Gone(#[from] io::Error),
}

/// Machines, routers and the wire between them. Everything ends and is removed when this is dropped, and also when
/// this process dies.
#[derive(Debug)]
pub struct Lab {
    program: PathBuf,
    directory: PathBuf,
    world: Mutex<World>,
    internet: Arc<Namespaces>,
    machines: Mutex<BTreeMap<String, Machine>>,
}

/// One machine of a lab.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name, which is its host name too.
    pub name: String,
    /// The process that holds its namespaces.
    pub pid: u32,
    /// Its own directory, seen by everybody: logs, state, sockets.
    pub directory: PathBuf,
    namespaces: Arc<Namespaces>,
}

#[derive(Debug)]
struct World {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Lab {
    /// Starts a world with an empty internet. `program` is the webmesh binary; `directory` is made, and removed at
    /// the end.
    ///
    /// # Errors
    /// [`LabError::Forbidden`] where only root may; nothing is left behind.
    pub fn build(program: &Path, directory: &Path) -> Result<Self, LabError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let mut process = Command::new(program)
            .args(["demo", "hold", "world"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut world = World {
            orders: process.stdin.take(),
            answers: BufReader::new(
                process
                    .stdout
                    .take()
                    .expect("stdout was asked to be a pipe"),
            ),
            process,
        };
        let pid = match world.answer() {
            Ok(Answer::Stands { pid }) => pid,
            other => {
                let _ = fs::remove_dir_all(directory);
                return Err(unexpected(other));
            }
        };
        let lab = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            internet: Arc::new(Namespaces::of(pid)?),
            world: Mutex::new(world),
            machines: Mutex::default(),
        };
        lab.order(Order::Bridge {
            at: INTERNET.to_owned(),
            name: WIRE.to_owned(),
        })?;
        for net in GATEWAY {
            lab.address(INTERNET, WIRE, net)?;
        }
        Ok(lab)
    }

    /// A machine with public addresses: those of 203.0.113.0/24 and 2001:db8::/64 reach each other. The wire between them
    /// stands for the internet, which carries no multicast: its agent is told that it is in no LAN.
    pub fn public(&self, name: &str, addresses: &[&str]) -> Result<Machine, LabError> {
        let machine = self.machine(name)?;
        fs::write(machine.directory.join("config.toml"), IN_NO_LAN)?;
        self.onto_wire(name, "eth0", addresses)?;
        Ok(machine)
    }

    /// A home router with a public side and a LAN side.
    pub fn router(
        &self,
        name: &str,
        public: &[&str],
        lan: &str,
        nat: NatKind,
    ) -> Result<Machine, LabError> {
        let machine = self.machine(name)?;
        self.onto_wire(name, "wan", public)?;
        self.order(Order::Bridge {
            at: name.to_owned(),
            name: "lan".to_owned(),
        })?;
        self.address(name, "lan", lan)?;
        self.order(Order::Router {
            at: name.to_owned(),
            wan: "wan".to_owned(),
            nat,
        })?;
        Ok(machine)
    }

    /// A machine in the LAN of a router, whose LAN address is `gateway`.
    pub fn behind(
        &self,
        router: &str,
        name: &str,
        address: &str,
        gateway: &str,
    ) -> Result<Machine, LabError> {
        let machine = self.machine(name)?;
        self.order(Order::Cable {
            near: Plug {
                at: name.to_owned(),
                link: "eth0".to_owned(),
                bridge: None,
            },
            far: Plug {
                at: router.to_owned(),
                link: name.to_owned(),
                bridge: Some("lan".to_owned()),
            },
        })?;
        self.address(name, "eth0", address)?;
        self.default_route(name, plain(gateway))?;
        Ok(machine)
    }

    /// A machine with a loopback and nothing else.
    pub fn machine(&self, name: &str) -> Result<Machine, LabError> {
        let directory = self.directory.join(name);
        fs::create_dir(&directory)?;
        let order = MachineOrder {
            name: name.to_owned(),
            resolv_conf: directory.join("resolv.conf"),
            nsswitch_conf: directory.join("nsswitch.conf"),
            scratch: directory.join("scratch"),
        };
        fs::write(&order.resolv_conf, "")?;
        fs::write(
            &order.nsswitch_conf,
            "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
        )?;
        fs::create_dir(&order.scratch)?;
        let pid = match self.ask(&Order::Machine(order))? {
            Answer::Stands { pid } => pid,
            other @ (Answer::Done | Answer::Forbidden(_) | Answer::Refused(_)) => {
                return Err(unexpected(Ok(other)));
            }
        };
        let machine = Machine {
            name: name.to_owned(),
            pid,
            directory,
            namespaces: Arc::new(Namespaces::of(pid)?),
        };
        self.machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), machine.clone());
        Ok(machine)
    }

    /// Gives a link an address such as `192.168.1.2/24`.
    pub fn address(&self, at: &str, link: &str, net: &str) -> Result<(), LabError> {
        self.order(Order::Address {
            at: at.to_owned(),
            link: link.to_owned(),
            net: net_of(net),
        })
    }

    /// Sends everything a machine has no other route for through `via`.
    pub fn default_route(&self, at: &str, via: IpAddr) -> Result<(), LabError> {
        let everything = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        self.order(Order::Route {
            at: at.to_owned(),
            to: net_of(everything),
            via,
        })
    }

    /// Carries out any other order.
    pub fn order(&self, order: Order) -> Result<(), LabError> {
        match self.ask(&order)? {
            Answer::Done => Ok(()),
            other @ (Answer::Stands { .. } | Answer::Forbidden(_) | Answer::Refused(_)) => {
                Err(unexpected(Ok(other)))
            }
        }
    }

    /// The machines built so far.
    pub fn machines(&self) -> Vec<Machine> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.values().cloned().collect()
    }

    /// Where the lab keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The webmesh binary of this lab.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command that will run where the wire lies, between the routers.
    pub fn on_the_wire(&self, program: impl AsRef<std::ffi::OsStr>) -> io::Result<Command> {
        command_inside(program.as_ref(), &self.internet, &self.directory)
    }

    fn onto_wire(&self, name: &str, link: &str, addresses: &[&str]) -> Result<(), LabError> {
        self.order(Order::Cable {
            near: Plug {
                at: name.to_owned(),
                link: link.to_owned(),
                bridge: None,
            },
            far: Plug {
                at: INTERNET.to_owned(),
                link: name.to_owned(),
                bridge: Some(WIRE.to_owned()),
            },
        })?;
        for address in addresses {
            self.address(name, link, address)?;
        }
        for gateway in GATEWAY.map(plain) {
            if addresses
                .iter()
                .any(|address| plain(address).is_ipv4() == gateway.is_ipv4())
            {
                self.default_route(name, gateway)?;
            }
        }
        Ok(())
    }

    fn ask(&self, order: &Order) -> Result<Answer, LabError> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.ask(order)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of its stdin is its sign to clear up.
        drop(world.orders.take());
        let _ = world.process.wait();
    }
}

impl Machine {
    /// A command that will run in this machine, in its directory, without a terminal's input, and that ends when the
    /// thread that starts it ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> io::Result<Command> {
        command_inside(program.as_ref(), &self.namespaces, &self.directory)
    }

    /// Tells the machine's programs whom to ask for names.
    pub fn set_resolv_conf(&self, text: &str) -> io::Result<()> {
        // Written in place: a new file would not be the one that is bound over /etc/resolv.conf.
        fs::write(self.directory.join("resolv.conf"), text)
    }
}

impl World {
    fn ask(&mut self, order: &Order) -> Result<Answer, LabError> {
        let text = serde_json::to_string(order).map_err(io::Error::from)?;
        let orders = self
            .orders
            .as_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        writeln!(orders, "{text}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer, LabError> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(serde_json::from_str(&line).map_err(io::Error::from)?)
    }
}

fn command_inside(
    program: &std::ffi::OsStr,
    namespaces: &Arc<Namespaces>,
    directory: &Path,
) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).process_group(0);
    put_inside(&mut command, namespaces, directory)?;
    Ok(command)
}

fn unexpected(answer: Result<Answer, LabError>) -> LabError {
    match answer {
        Ok(Answer::Forbidden(why)) => LabError::Forbidden(why),
        Ok(Answer::Refused(why)) => LabError::Refused(why),
        Ok(other @ (Answer::Done | Answer::Stands { .. })) => {
            LabError::Refused(format!("an odd answer: {other:?}"))
        }
        Err(error) => error,
    }
}

fn net_of(text: &str) -> IpNet {
    text.parse().expect("labs are written with whole prefixes")
}

fn plain(text: &str) -> IpAddr {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address
        .parse()
        .expect("labs are written with whole addresses")
}
