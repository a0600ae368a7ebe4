//! The errors a person can meet, word by word (transcripts.md). Golden tests hold them.

use std::net::IpAddr;

use super::{ApiError, Code, Rights, Verb, nearest, words};

/// What a joiner tried before it gave up, and what it learned of its own NAT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// The ways, in the order they were tried: `LAN`, addresses.
    pub ways: Vec<String>,
    /// A sentence about this machine's own way out, ending in a full stop; None if nothing is known.
    pub here: Option<String>,
}

impl ApiError {
    /// The caller may not say `verb`. The client completes the remedy with what was typed.
    pub fn not_allowed(verb: Verb) -> Self {
        let words = verb.words();
        match verb.rights() {
            Rights::Root => Self::could_not(Code::NeedsRoot, format!("{words} needs root")),
            Rights::Change | Rights::Look => Self::could_not(
                Code::NeedsGroup,
                format!("{words} needs root or the group webmesh"),
            ),
        }
        .remedy(format!("sudo webmesh {words} …"))
    }

    /// The request cannot be read.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::could_not(Code::BadRequest, message)
    }

    /// There is no such verb.
    pub fn unknown_verb(path: &str) -> Self {
        Self::could_not(Code::UnknownVerb, format!("the agent knows no {path:?}"))
            .remedy("are webmesh and its agent of one version?")
    }

    /// Designed, and not there yet.
    pub fn not_built(what: &str) -> Self {
        Self::could_not(Code::NotBuilt, format!("{what} is not built yet")).remedy("leave it out")
    }

    /// A token whose check does not match.
    pub fn cut_token() -> Self {
        Self::could_not(
            Code::BadToken,
            "this token is cut or mistyped (its check does not match)",
        )
        .remedy("copy the whole line that begins with wm1-")
    }

    /// A recovery code whose check does not match, or of another network.
    pub fn wrong_recovery_code() -> Self {
        Self::could_not(
            Code::BadRecovery,
            "this is not the recovery code of this network",
        )
        .remedy("copy all of what init printed, or find the paper it stands on")
    }

    /// The verb needs a network.
    pub fn no_network() -> Self {
        Self::could_not(Code::NoNetwork, "this machine is in no network")
            .remedy("sudo webmesh init NAME makes one, sudo webmesh join TOKEN joins one")
    }

    /// `--network` names another network than this machine's.
    pub fn other_network(asked: &str, network: &str) -> Self {
        Self::no(
            Code::NoSuchName,
            format!("this machine is not in {asked}, it is in {network}"),
        )
        .remedy(format!("leave --network out, or give --network {network}"))
    }

    /// `leave` names another network than this machine's.
    pub fn left_other(asked: &str, network: &str) -> Self {
        Self::no(
            Code::NoSuchName,
            format!("this machine is not in {asked}, it is in {network}"),
        )
        .remedy(format!("sudo webmesh leave {network}"))
    }

    /// A name exists and has no record of the type that was asked for.
    pub fn no_such_record(name: &str, record_type: &str) -> Self {
        Self::no(
            Code::NoSuchName,
            format!("{name} is there, and has no {record_type} record"),
        )
        .remedy(format!("webmesh dns query {name}"))
    }

    /// `init` or `join` on a machine that is in a network.
    pub fn already_in(network: &str) -> Self {
        Self::could_not(
            Code::AlreadyInNetwork,
            format!("this machine is already in {network}. Leave it first"),
        )
        .remedy(format!("sudo webmesh leave {network}"))
    }

    /// The verb needs the network up.
    pub fn network_down(network: &str) -> Self {
        Self::could_not(Code::NetworkDown, format!("{network} is down here"))
            .remedy("sudo webmesh up")
    }

    /// A network's name that `.internal` has already.
    pub fn network_name_in_use(name: &str) -> Self {
        Self::could_not(
            Code::NetworkNameInUse,
            format!(
                "{name:?} cannot be a network's name: {name}.internal is in use. Choose another, or --domain."
            ),
        )
    }

    /// The invite was used by another machine, `ago_s` seconds ago.
    pub fn invite_used(by: &str, ago_s: u64, issuer: &str) -> Self {
        Self::no(
            Code::InviteUsed,
            format!(
                "this invite was used {} by {by:?}. Ask {issuer} for",
                words::ago(ago_s)
            ),
        )
        .remedy("sudo webmesh invite")
    }

    /// The invite ran out at a time, unix s.
    pub fn invite_expired(at: u64, now: u64, issuer: &str) -> Self {
        Self::no(
            Code::InviteExpired,
            format!(
                "this invite ran out at {}. Ask {issuer} for",
                words::clock(at, now)
            ),
        )
        .remedy("sudo webmesh invite")
    }

    /// The issuer took the invite back at a time, unix s.
    pub fn invite_cancelled(at: u64, now: u64, issuer: &str) -> Self {
        Self::no(
            Code::InviteCancelled,
            format!(
                "{issuer} took this invite back at {}. Ask {issuer} for",
                words::clock(at, now)
            ),
        )
        .remedy("sudo webmesh invite")
    }

    /// The name given by `--name` is taken; `network` if the joiner knows it.
    pub fn name_taken(name: &str, network: Option<&str>) -> Self {
        let place = network
            .map(|network| format!(" in {network}"))
            .unwrap_or_default();
        Self::no(
            Code::NameTaken,
            format!("the name {name} is taken{place}. Choose another"),
        )
        .remedy("sudo webmesh join … --name NAME   (the invite is still good)")
    }

    /// The pool is empty; network and pool if the joiner knows them.
    pub fn no_ipv4(network: Option<(&str, &str)>) -> Self {
        let whose = network
            .map(|(name, pool)| format!(" of {name} ({pool})"))
            .unwrap_or_default();
        Self::no(
            Code::NoIpv4,
            format!("every IPv4 address{whose} is given out"),
        )
        .remedy("how many there are is chosen when a network is made: sudo webmesh init NAME --ipv4 CIDR")
    }

    /// The issuer has too much to do.
    pub fn busy(issuer: &str) -> Self {
        Self::no(
            Code::Busy,
            format!("{issuer} is busy with other machines that join"),
        )
        .remedy("try again in a minute, the invite is still good")
    }

    /// Nobody answered the joiner.
    pub fn issuer_silent(issuer: &str, after_s: u64, tried: &Tried, until: u64, now: u64) -> Self {
        let ways = tried.ways.join(", ");
        let here = tried
            .here
            .as_deref()
            .map(|here| format!(" {here}"))
            .unwrap_or_default();
        Self::no(
            Code::IssuerSilent,
            format!(
                "{issuer} did not answer in {after_s} s ({ways}). Is her machine on?{here} The invite stays good until {}.",
                words::clock(until, now)
            ),
        )
    }

    /// The issuer granted membership, and not all that a member needs to speak with others.
    pub fn grant_unproven(issuer: &str) -> Self {
        Self::no(
            Code::GrantUnproven,
            format!("what {issuer} granted does not hold: the records that prove it did not come. This machine is in no network"),
        )
        .remedy(format!(
            "bring webmesh on {issuer} up to date, or use an invite of another admin"
        ))
    }

    /// Only an admin can; `admins` are their names.
    pub fn not_admin(verb: Verb, peer: &str, network: &str, admins: &[&str]) -> Self {
        let verb = verb.words();
        let error = Self::could_not(Code::NotAdmin, format!("{peer} is no admin of {network}"));
        match admins.first() {
            Some(admin) => error.remedy(format!("sudo webmesh {verb} on {admin}")),
            None => error.remedy("webmesh recover CODE here"),
        }
    }

    /// The root key is not here.
    pub fn root_elsewhere(network: &str, on: &str) -> Self {
        Self::could_not(
            Code::RootElsewhere,
            format!("the root key of {network} is on {on}"),
        )
        .remedy("run this there, or webmesh recover CODE here")
    }

    /// Leaving without another admin.
    pub fn last_admin(network: &str) -> Self {
        Self::could_not(
            Code::LastAdmin,
            format!("this machine is the last admin of {network}: without its recovery code nobody can be added again"),
        )
        .remedy(format!("sudo webmesh leave {network} --yes"))
    }

    /// A service outside the certificate's `offers`: published under the peer only.
    pub fn may_not_offer(peer: &str, service: &str, domain: &str) -> Self {
        Self::warning(
            Code::MayNotOffer,
            format!(
                "{peer} may not offer {service}: it is {service}.{peer}.{domain} only. Ask an admin"
            ),
        )
        .remedy(format!("webmesh invite … --service '{service}'"))
    }

    /// Two services on one port of one peer.
    pub fn port_taken(port: u16, service: &str) -> Self {
        Self::could_not(
            Code::PortTaken,
            format!("port {port} of this machine is {service}'s, and services have no addresses of their own yet"),
        )
        .remedy(format!("choose another --port, or sudo webmesh service rm {service}"))
    }

    /// A service that a file defines, and no command changes.
    pub fn defined_in(service: &str, file: &str) -> Self {
        Self::could_not(
            Code::DefinedInFile,
            format!("{service} is defined in {file}"),
        )
        .remedy("change it there, then sudo systemctl reload webmesh or send the agent a HUP")
    }

    /// Nothing is called so, and what was probably meant; `what` is `peer or service`, `invite`, `service` ….
    pub fn no_such_name<'a>(
        what: &str,
        name: &str,
        network: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let hint = nearest(name, known)
            .map(|near| format!(". Did you mean {near}?"))
            .unwrap_or_default();
        Self::no(
            Code::NoSuchName,
            format!("there is no {what} {name:?} in {network}{hint}"),
        )
    }

    /// A name below another domain than the network's.
    pub fn foreign_name(name: &str, domain: &str) -> Self {
        Self::no(
            Code::NoSuchName,
            format!("{name} is not below {domain}: webmesh answers for {domain} alone"),
        )
    }

    /// An address that nobody in the network has.
    pub fn foreign_address(address: IpAddr, network: &str) -> Self {
        Self::no(
            Code::NoSuchName,
            format!("{address} is not an address of {network}"),
        )
        .remedy("webmesh status")
    }

    /// A peer did not answer `ping`.
    pub fn no_answer(peer: &str) -> Self {
        Self::no(Code::NoAnswer, format!("no answer from {peer}"))
            .remedy(format!("webmesh why {peer}"))
    }

    /// What was waited for did not come.
    pub fn timed_out(what: &str, after_s: f64) -> Self {
        Self::no(Code::TimedOut, format!("{what} after {after_s} s")).remedy("webmesh status")
    }

    /// The state on disk cannot be used; `why` says what is wrong and where.
    pub fn state_unusable(why: &str) -> Self {
        Self::could_not(
            Code::StateUnusable,
            format!("the network on this disk cannot be used: {why}"),
        )
        .remedy("restore the state directory, or move the folder away and join anew")
    }

    /// The agent may not read its files; `folder` is the state directory.
    pub fn state_closed(why: &str, folder: &str) -> Self {
        Self::could_not(
            Code::StateUnusable,
            format!("the network on this disk cannot be used: {why}"),
        )
        .remedy(format!(
            "sudo chown -R --reference={folder} {folder}, then sudo systemctl restart webmesh; nothing is lost"
        ))
    }

    /// The agent or the host failed; `what` says in which.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::could_not(Code::Internal, what).remedy("journalctl -u webmesh")
    }
}
