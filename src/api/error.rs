//! Errors as the agent tells them.

use serde::{Deserialize, Serialize};

/// Why a request was not done, in words for a person and a code for a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", self.line())]
pub struct ApiError {
    /// The client's exit code: 1 "no", 2 could not; 0 where it is a warning about something done.
    pub exit: u8,
    /// For programs.
    pub code: Code,
    /// What could not be done.
    pub message: String,
    /// What to do next; printed after a colon.
    pub remedy: Option<String>,
}

/// What kind of error it is. New ones may come; none changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The agent does not run, or its socket is closed to this user. The client's own.
    AgentAbsent,
    /// Root only.
    NeedsRoot,
    /// Root or the group `webmesh`.
    NeedsGroup,
    /// The request cannot be read, or a value in it is not possible.
    BadRequest,
    /// The request is longer than any request is.
    TooLong,
    /// No such verb.
    UnknownVerb,
    /// Designed, and not built yet.
    NotBuilt,
    /// The token's text is damaged.
    BadToken,
    /// The recovery code's text is damaged, or it is another network's.
    BadRecovery,
    /// This machine is in no network.
    NoNetwork,
    /// This machine is in a network already.
    AlreadyInNetwork,
    /// The network is down here.
    NetworkDown,
    /// The network's name cannot be taken.
    NetworkNameInUse,
    /// A name is not a label of design §3, or is reserved.
    BadName,
    /// The invite was used.
    InviteUsed,
    /// The invite ran out.
    InviteExpired,
    /// The invite was taken back.
    InviteCancelled,
    /// The wished peer name is taken.
    NameTaken,
    /// No IPv4 address is free.
    NoIpv4,
    /// The issuer has too much to do.
    Busy,
    /// The issuer did not answer.
    IssuerSilent,
    /// What the issuer granted does not prove itself.
    GrantUnproven,
    /// Only an admin can do this.
    NotAdmin,
    /// The root key is on another machine.
    RootElsewhere,
    /// Leaving would leave the network without any admin.
    LastAdmin,
    /// The name is outside the certificate's `offers`; the service exists under the peer only.
    MayNotOffer,
    /// Another service of this peer has the port.
    PortTaken,
    /// A file of `services.d` defines the service.
    DefinedInFile,
    /// No peer, service, invite or name is called so.
    NoSuchName,
    /// The peer did not answer.
    NoAnswer,
    /// What was waited for did not come in time.
    TimedOut,
    /// Nothing listens behind a published service.
    NothingListens,
    /// The program listens on the loopback address only.
    LoopbackOnly,
    /// The host drops what comes to the service's port.
    DoorDropped,
    /// The network's IPv4 cannot be used on this host.
    Ipv4Blocked,
    /// The state on disk is damaged or of a newer version.
    StateUnusable,
    /// The agent's own fault, or the host's.
    Internal,
}

impl Code {
    /// The HTTP status that carries it.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest
            | Self::NotBuilt
            | Self::BadToken
            | Self::BadRecovery
            | Self::BadName
            | Self::MayNotOffer
            | Self::NothingListens
            | Self::LoopbackOnly
            | Self::DoorDropped
            | Self::Ipv4Blocked => 400,
            Self::NeedsRoot | Self::NeedsGroup | Self::NotAdmin | Self::RootElsewhere => 403,
            Self::UnknownVerb | Self::NoSuchName => 404,
            Self::TooLong => 413,
            Self::NoNetwork
            | Self::AlreadyInNetwork
            | Self::NetworkDown
            | Self::NetworkNameInUse
            | Self::InviteUsed
            | Self::InviteExpired
            | Self::InviteCancelled
            | Self::NameTaken
            | Self::NoIpv4
            | Self::LastAdmin
            | Self::PortTaken
            | Self::DefinedInFile => 409,
            Self::AgentAbsent
            | Self::Busy
            | Self::IssuerSilent
            | Self::GrantUnproven
            | Self::NoAnswer
            | Self::TimedOut
            | Self::StateUnusable
            | Self::Internal => 503,
        }
    }
}

impl ApiError {
    /// An answer "no": exit 1.
    pub fn no(code: Code, message: impl Into<String>) -> Self {
        Self {
            exit: 1,
            code,
            message: message.into(),
            remedy: None,
        }
    }

    /// Could not: exit 2.
    pub fn could_not(code: Code, message: impl Into<String>) -> Self {
        Self {
            exit: 2,
            code,
            message: message.into(),
            remedy: None,
        }
    }

    /// Something to know about what was done: exit 0.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self {
            exit: 0,
            code,
            message: message.into(),
            remedy: None,
        }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// `<message>: <remedy>`, as the client prints it after `webmesh: `.
    pub fn line(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}: {remedy}", self.message),
            None => self.message.clone(),
        }
    }
}
