//! What each verb takes. Options not given are null or missing; unknown ones are refused.

use serde::{Deserialize, Serialize};

use super::{ApiError, Code, Protocol, Role};

/// What a service without a weight weighs.
pub const USUAL_WEIGHT: u32 = 100;

/// Options of `init`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InitRequest {
    /// The network's name.
    pub network: String,
    /// This machine's name; else the host's.
    pub name: Option<String>,
    /// What the host is called where the asker is. The agent's own look at it may be as old as its start.
    pub host_name: Option<String>,
    /// What names end in; else `<network>.internal`.
    pub domain: Option<String>,
    /// The IPv4 pool, /8 to /23.
    pub ipv4: Option<String>,
    /// Only services may be reached. Not built.
    pub closed: bool,
}

/// Options of `invite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InviteRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// How long it is good.
    pub expires_s: u64,
    /// How many machines may join by it.
    pub uses: u32,
    /// What they become.
    pub role: Role,
    /// Their groups. Not built.
    pub groups: Vec<String>,
    /// What services they may offer; a `*` at the end stands for anything. None: all.
    pub services: Option<Vec<String>>,
}

impl Default for InviteRequest {
    fn default() -> Self {
        Self {
            network: None,
            expires_s: 3600,
            uses: 1,
            role: Role::Member,
            groups: Vec::new(),
            services: None,
        }
    }
}

/// Options of the verbs that only need to know which network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
}

/// Options of `invite cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InviteCancelRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// The first letters of the invite's id.
    pub id: String,
}

/// Options of `join`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JoinRequest {
    /// The token, whole.
    pub token: String,
    /// This machine's name, and no other will do; else the host's, made fit.
    pub name: Option<String>,
    /// What the host is called where the asker is. The agent's own look at it may be as old as its start.
    pub host_name: Option<String>,
}

/// Options of `leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaveRequest {
    /// Which network.
    pub network: String,
    /// Leave even as the last admin.
    pub yes: bool,
}

/// Options of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// Answer in JSON lines: a [`super::Status`] as talk at once and at every change, at most once a second, until the
    /// client goes.
    pub watch: bool,
    /// All networks: the reply is an array.
    pub all: bool,
}

/// Options of `peers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeersRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// One peer, by name, address or id; this machine is one too.
    pub peer: Option<String>,
}

/// Options of `wait`. Without a peer and a service: until this machine is in a network, in sync, and has a session or
/// is alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaitRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// Until a session with this peer stands.
    pub peer: Option<String>,
    /// Until this service has an instance that is up.
    pub service: Option<String>,
    /// How long at most.
    pub timeout_s: f64,
}

impl Default for WaitRequest {
    fn default() -> Self {
        Self {
            network: None,
            peer: None,
            service: None,
            timeout_s: 30.0,
        }
    }
}

/// Options of `ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PingRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// A peer's name, a name in the domain, or an address.
    pub peer: String,
    /// How often; a second apart.
    pub count: u32,
}

impl Default for PingRequest {
    fn default() -> Self {
        Self {
            network: None,
            peer: String::new(),
            count: 1,
        }
    }
}

/// Options of `whois`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhoisRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// An address or a name.
    pub what: String,
}

/// Options of `dns query`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsQueryRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// The name; completed by the search list.
    pub name: String,
    /// The record type by its name; else A and AAAA.
    #[serde(rename = "type")]
    pub record_type: Option<String>,
}

/// Options of `service add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceAddRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// Its name.
    pub name: String,
    /// The port others dial.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the program listens, `HOST:PORT`; else on the mesh address at the port.
    pub target: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Weight among the instances; 100 is the usual.
    pub weight: Option<u32>,
    /// The instance's name; else the peer's.
    pub instance: Option<String>,
}

/// Options of `service rm` and `service show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// The service's name.
    pub name: String,
}

/// Options of `recover`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoverRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// The code that `init` showed.
    pub code: String,
}

impl InitRequest {
    /// The refusal of what is not built yet, if any of it is asked for.
    pub fn unbuilt(&self) -> Option<ApiError> {
        self.closed.then(|| ApiError::not_built("init --closed"))
    }
}

impl InviteRequest {
    /// The refusal of what is not built yet or cannot be, if any of it is asked for.
    pub fn unbuilt(&self) -> Option<ApiError> {
        if !self.groups.is_empty() {
            return Some(ApiError::not_built("invite --group"));
        }
        if self.role == Role::Leaf {
            return Some(ApiError::not_built("invite --role leaf"));
        }
        if self.uses == 0 || self.expires_s == 0 {
            let what = if self.uses == 0 {
                "--uses"
            } else {
                "--expires"
            };
            return Some(
                ApiError::could_not(
                    Code::BadRequest,
                    format!("an invite with {what} 0 is of no use to anybody"),
                )
                .remedy("leave it out"),
            );
        }
        None
    }
}
