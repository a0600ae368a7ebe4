//! What may be typed (design §4).

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};

use crate::{
    api::{PortSpec, Role},
    config::{Port, TunName},
};

/// Private networks between machines anywhere, without any server.
#[derive(Clone, Debug, Parser)]
#[command(name = "webmesh", version, about, max_term_width = 100)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that stand before or after any verb.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The agent's socket [default: /run/webmesh/webmesh.sock]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "WEBMESH_SOCKET",
        hide_env_values = true
    )]
    pub socket: Option<PathBuf>,
    /// Which network; with one it is the default
    #[arg(long, global = true, value_name = "NAME")]
    pub network: Option<String>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
}

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Run the agent
    Daemon(Daemon),
    /// Show Webmesh at work: three machines and two home routers inside this process, no root needed
    Demo(Demo),
    /// Make a network; this machine becomes its first admin
    Init(Init),
    /// Make a token by which another machine may join
    Invite(Invite),
    /// Join a network
    Join(Join),
    /// Leave a network and forget its keys
    Leave(Leave),
    /// Undo `down`
    Up,
    /// Take the network down here, also over reboots, until `up`
    Down,
    /// What there is: this machine, peers, services, and what is wrong
    Status(Status),
    /// The peers, or everything about one
    Peers(Peers),
    /// Wait until this machine is in its network, a peer is reached, or a service is up
    Wait(Wait),
    /// Ask a peer for an answer, through the mesh
    Ping(Ping),
    /// Why a peer or a service is reached the way it is, or is not, and what would help
    Why(Why),
    /// Whose an address or a name is
    Whois(Whois),
    /// What is known of the way between this machine and the world: addresses, NAT, router, LAN
    Netcheck,
    /// Names
    #[command(subcommand)]
    Dns(Dns),
    /// Set up the host's resolver as the agent wishes; nobody types this.
    #[command(hide = true)]
    DnsHelper {
        /// What to do.
        verb: DnsHelper,
    },
    /// Publish services, and see them
    #[command(subcommand)]
    Service(Service),
    /// Who may reach what
    #[command(subcommand)]
    Policy(Policy),
    /// Make this machine an admin by the recovery code
    Recover(Recover),
    /// For those who look for faults
    #[command(subcommand)]
    Debug(Debug),
    /// Print a completion script
    Completion(Completion),
    /// Write the manual's pages into a folder; the package's build does.
    #[command(hide = true)]
    Man(Manual),
}

/// Options of `daemon`.
#[derive(Clone, Debug, Args)]
pub struct Daemon {
    /// The configuration [default: /etc/webmesh/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where keys and records are kept [default: /var/lib/webmesh]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// What the device is called [default: wm0]
    #[arg(long, value_name = "NAME")]
    pub tun: Option<TunName>,
    /// The UDP port, 443 or 1024 and above; busy is an error [default: 41820, or another if it is busy]
    #[arg(long, value_name = "N")]
    pub port: Option<Port>,
    /// Read the configuration and services.d, say whether they are good, and end
    #[arg(long)]
    pub check_config: bool,
}

/// Options of `demo`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Demo {
    /// Something else than to run it.
    #[command(subcommand)]
    pub verb: Option<DemoVerb>,
    /// How many machines [default: 3]
    #[arg(long, value_name = "N", hide = true)]
    pub peers: Option<u32>,
    /// Keep the machines running at the end, to look around, until Ctrl-C or `demo stop`
    #[arg(long)]
    pub keep: bool,
}

/// What can be done with a kept demo.
#[derive(Clone, Debug, Subcommand)]
pub enum DemoVerb {
    /// Open a shell on a machine of a kept demo
    Shell {
        /// Which machine
        peer: String,
    },
    /// End a kept demo
    Stop,
    /// Hold a part of the demo's world; nobody types this.
    #[command(hide = true)]
    Hold {
        /// Which part.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Options of `init`.
#[derive(Clone, Debug, Args)]
pub struct Init {
    /// The network's name; it cannot be changed later. After `init`, `--network` names it too
    #[arg(value_name = "NETWORK", id = "new_network")]
    pub network: String,
    /// This machine's name in it [default: its host name]
    #[arg(long, value_name = "PEER")]
    pub name: Option<String>,
    /// What its names end in [default: NETWORK.internal]
    #[arg(long, value_name = "D")]
    pub domain: Option<String>,
    /// Its IPv4 addresses, private, /8 to /23 [default: one /16 of 100.64.0.0/10]
    #[arg(long, value_name = "CIDR")]
    pub ipv4: Option<String>,
    /// Only services may be reached (not built yet)
    #[arg(long)]
    pub closed: bool,
}

/// Options of `invite`.
#[derive(Clone, Debug, Args)]
pub struct Invite {
    /// Something else than to make one.
    #[command(subcommand)]
    pub verb: Option<InviteVerb>,
    /// How long it is good: 10m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_span)]
    pub expires: Duration,
    /// How many machines may join by it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub uses: u32,
    /// What they become
    #[arg(long, value_name = "ROLE", default_value = "member", value_parser = role_parser())]
    pub role: Role,
    /// Their groups (not built yet)
    #[arg(long = "group", value_name = "G")]
    pub groups: Vec<String>,
    /// The services they may offer, a * at the end stands for anything [default: all]
    #[arg(long = "service", value_name = "NAMES", value_delimiter = ',')]
    pub services: Option<Vec<String>>,
}

/// What can be done with invites.
#[derive(Clone, Debug, Subcommand)]
pub enum InviteVerb {
    /// The invites that somebody may still use
    List,
    /// Take an invite back
    Cancel {
        /// Its id, as `invite list` shows it
        id: String,
    },
}

/// Options of `join`.
#[derive(Clone, Debug, Args)]
pub struct Join {
    /// The token, or - to read it from stdin
    pub token: String,
    /// This machine's name in it; an error if it is taken [default: its host name, -2 if taken]
    #[arg(long, value_name = "PEER")]
    pub name: Option<String>,
}

/// Options of `leave`.
#[derive(Clone, Debug, Args)]
pub struct Leave {
    /// The network, to be sure
    #[arg(value_name = "NETWORK", id = "left_network")]
    pub network: String,
    /// Leave even as the last admin
    #[arg(long)]
    pub yes: bool,
}

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// Show every change, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// All networks; with --json an array
    #[arg(long)]
    pub all: bool,
}

/// Options of `peers`.
#[derive(Clone, Debug, Args)]
pub struct Peers {
    /// One peer, by name, address or id
    pub peer: Option<String>,
}

/// Options of `wait`.
#[derive(Clone, Debug, Args)]
pub struct Wait {
    /// Until this peer is reached
    #[arg(long, value_name = "P")]
    pub peer: Option<String>,
    /// Until this service is up somewhere
    #[arg(long, value_name = "S")]
    pub service: Option<String>,
    /// How long at most: 500ms, 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_span)]
    pub timeout: Duration,
}

/// Options of `ping`.
#[derive(Clone, Debug, Args)]
pub struct Ping {
    /// A peer's name, a name in the domain, or an address
    #[arg(value_name = "PEER|NAME")]
    pub peer: String,
    /// How often, a second apart
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
}

/// Options of `why`.
#[derive(Clone, Debug, Args)]
pub struct Why {
    /// A peer or a service, by name or address; with a port its door is tried too
    #[arg(value_name = "NAME[:PORT]")]
    pub what: String,
    /// How it was at a time of the last 24 hours: 14:05 or 14:05:30
    #[arg(long, value_name = "TIME", value_parser = parse_time_of_day)]
    pub at: Option<TimeOfDay>,
}

/// A time of day on this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    /// 0 to 23.
    pub hour: i8,
    /// 0 to 59.
    pub minute: i8,
    /// 0 to 59; None: the end of that minute.
    pub second: Option<i8>,
}

/// Options of `whois`.
#[derive(Clone, Debug, Args)]
pub struct Whois {
    /// An address or a name
    #[arg(value_name = "ADDRESS|NAME")]
    pub what: String,
}

/// What can be done with names.
#[derive(Clone, Debug, Subcommand)]
pub enum Dns {
    /// Ask the mesh's resolver
    Query {
        /// The name; the domain may be left out
        name: String,
        /// The record type [default: A and AAAA]
        #[arg(value_name = "TYPE")]
        record_type: Option<String>,
    },
    /// How names resolve on this machine, and why not
    Status,
    /// Name the mesh's resolver first in /etc/resolv.conf; it forwards all other names to the servers that stood there
    Takeover {
        /// Put /etc/resolv.conf back as it was
        #[arg(long)]
        undo: bool,
    },
}

/// What root does for the agent's names; a unit of systemd runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DnsHelper {
    /// What the agent wishes for now.
    Apply,
    /// Back to what was before.
    Revert,
    /// Back to what was before, unless the agent is about to come back.
    Ended,
    /// Our resolver into /etc/resolv.conf.
    Takeover,
}

/// What can be done with services.
#[derive(Clone, Debug, Subcommand)]
pub enum Service {
    /// Publish a service of this machine; kept over restarts
    Add(ServiceAdd),
    /// No longer publish it
    Rm {
        /// Its name
        name: String,
    },
    /// All services
    List,
    /// One service, instance by instance
    Show {
        /// Its name
        name: String,
    },
}

/// Options of `service add`.
#[derive(Clone, Debug, Args)]
pub struct ServiceAdd {
    /// Its name
    pub name: String,
    /// The port others dial: 80, or 53/udp
    #[arg(long, value_name = "P[/udp]")]
    pub port: PortSpec,
    /// Where the program listens, if not on the mesh address at that port: 127.0.0.1:8080
    #[arg(long, value_name = "HOST:PORT")]
    pub target: Option<String>,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "T")]
    pub tags: Vec<String>,
    /// Its share among the instances, 1 or more; 100 is the usual
    #[arg(long, value_name = "W")]
    pub weight: Option<u32>,
    /// The instance's name [default: this peer's]
    #[arg(long, value_name = "I")]
    pub instance: Option<String>,
}

/// What can be done with the policy.
#[derive(Clone, Debug, Subcommand)]
pub enum Policy {
    /// Show the rules
    Show,
}

/// What helps to find faults.
#[derive(Clone, Debug, Subcommand)]
pub enum Debug {
    /// Write a file for a bug report: no key, and names and addresses replaced
    Bundle {
        /// Where to [default: webmesh-debug-TIME.jsonl here]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Options of `recover`.
#[derive(Clone, Debug, Args)]
pub struct Recover {
    /// The code that `init` showed, or - to read it from stdin
    pub code: String,
}

/// Options of `completion`.
#[derive(Clone, Debug, Args)]
pub struct Completion {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Clone, Debug, Args)]
pub struct Manual {
    /// The folder.
    pub folder: PathBuf,
}

fn parse_time_of_day(text: &str) -> Result<TimeOfDay, String> {
    let wrong = || "give a time of day, such as 14:05".to_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let number = |text: &str, limit: i8| {
        let is_plain = matches!(text.len(), 1..=2) && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|number| *number < limit);
        number.filter(|_| is_plain).ok_or_else(wrong)
    };
    let (hour, minute, second) = match parts.as_slice() {
        [hour, minute] => (hour, minute, None),
        [hour, minute, second] => (hour, minute, Some(number(second, 60)?)),
        _ => return Err(wrong()),
    };
    Ok(TimeOfDay {
        hour: number(hour, 24)?,
        minute: number(minute, 60)?,
        second,
    })
}

fn parse_span(text: &str) -> Result<Duration, String> {
    let figures = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(figures);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(NO_SPAN.to_owned()),
    };
    let number: u64 = number.parse().or(Err(NO_SPAN))?;
    let whole = number
        .checked_mul(milliseconds)
        .filter(|whole| *whole <= LONGEST_SPAN_MS);
    Ok(Duration::from_millis(whole.ok_or("at most 365d")?))
}

const NO_SPAN: &str = "a time is a number with ms, s, m, h or d behind it";

/// A year: nobody waits longer, and no invite should be good longer.
const LONGEST_SPAN_MS: u64 = 365 * 86_400_000;

/// Leaf is known, so that it can be said that it is not built yet.
fn role_parser() -> impl TypedValueParser<Value = Role> {
    let roles = [
        PossibleValue::new(Role::Member.word()),
        PossibleValue::new(Role::Admin.word()),
        PossibleValue::new(Role::Leaf.word()).hide(true),
    ];
    PossibleValuesParser::new(roles).map(|word| match word.as_str() {
        "admin" => Role::Admin,
        "leaf" => Role::Leaf,
        _ => Role::Member,
    })
}

/// A command without what is hidden below it: completions would offer that too.
pub(super) fn shown(command: &clap::Command) -> clap::Command {
    let below = command.get_subcommands();
    let mut all = clap::Command::new(command.get_name().to_owned())
        .args(command.get_arguments().cloned())
        .subcommands(below.filter(|below| !below.is_hide_set()).map(shown));
    if let Some(about) = command.get_about() {
        all = all.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        all = all.version(version.to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_after_the_verb() {
        let orders = [
            ["webmesh", "--json", "--socket", "/s", "status"],
            ["webmesh", "status", "--json", "--socket", "/s"],
            ["webmesh", "--socket", "/s", "status", "--json"],
        ];
        for order in orders {
            let cli = Cli::try_parse_from(order).unwrap();
            assert!(
                cli.common.json && cli.common.socket == Some("/s".into()),
                "{order:?}"
            );
        }
        let cli = Cli::try_parse_from(["webmesh", "invite", "list", "--json", "--network", "home"])
            .unwrap();
        assert!(cli.common.json && cli.common.network.as_deref() == Some("home"));
    }

    #[test]
    fn the_network_that_init_makes_is_not_the_common_option() {
        let cli = Cli::try_parse_from(["webmesh", "init", "home"]).unwrap();
        assert_eq!(cli.common.network, None);
        assert!(matches!(cli.verb, Verb::Init(Init { network, .. }) if network == "home"));
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(parse_span("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_span("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_span("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in [
            "",
            "5",
            "h",
            "1w",
            "-1s",
            "1.5h",
            "366d",
            "99999999999999999999d",
        ] {
            assert!(parse_span(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_time_of_day_has_hours_and_minutes() {
        let time = |hour, minute, second| {
            Ok(TimeOfDay {
                hour,
                minute,
                second,
            })
        };
        assert_eq!(parse_time_of_day("14:05"), time(14, 5, None));
        assert_eq!(parse_time_of_day("0:00:59"), time(0, 0, Some(59)));
        for text in [
            "", "14", "24:00", "14:60", "1:2:3:4", "14:05:60", "+1:05", "14:005",
        ] {
            assert!(parse_time_of_day(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_a_held_demo_is_told_is_not_read_as_options() {
        let cli = Cli::try_parse_from(["webmesh", "demo", "hold", "machine", "root", "--x", "{}"])
            .unwrap();
        let Verb::Demo(Demo {
            verb: Some(DemoVerb::Hold { words }),
            ..
        }) = cli.verb
        else {
            panic!("not a hold");
        };
        assert_eq!(words, ["machine", "root", "--x", "{}"]);
    }
}
