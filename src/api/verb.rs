//! The verbs, and who may say them.

/// What a client may ask of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Makes a network.
    Init,
    /// Makes an invite.
    Invite,
    /// Lists the open invites of this machine.
    InviteList,
    /// Takes an invite back.
    InviteCancel,
    /// Joins a network by a token.
    Join,
    /// Leaves a network and forgets it.
    Leave,
    /// Undoes [`Verb::Down`].
    Up,
    /// Takes the device away, also over reboots.
    Down,
    /// Tells everything there is to see.
    Status,
    /// Tells of the peers.
    Peers,
    /// Waits until something is so.
    Wait,
    /// Asks a peer for an answer.
    Ping,
    /// Tells why a peer or a service is reached as it is.
    Why,
    /// Tells whose an address or a name is.
    Whois,
    /// Tells what is known of the way to the world.
    Netcheck,
    /// Tells how names resolve on this host.
    DnsStatus,
    /// Asks the resolver.
    DnsQuery,
    /// Publishes a service.
    ServiceAdd,
    /// Takes a service back.
    ServiceRemove,
    /// Lists all services.
    ServiceList,
    /// Tells of one service.
    ServiceShow,
    /// Shows who may reach what.
    PolicyShow,
    /// Makes this machine an admin by the recovery code.
    Recover,
    /// Gathers what a maintainer needs.
    DebugBundle,
}

/// The HTTP methods spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Looks, without options.
    Get,
    /// Everything else.
    Post,
}

/// Who may say a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Looking: any local user, unless `api.read = "group"`.
    Look,
    /// Changing: root and the group `webmesh`.
    Change,
    /// What makes or breaks a network: root.
    Root,
}

/// Who asks, by the credentials of the socket's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Uid 0, or the uid the agent runs as.
    Root,
    /// In the group `webmesh`.
    Group,
    /// Any other local user.
    Other,
}

/// Who may look: `[api] read`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadAccess {
    /// Any local user: `all`.
    #[default]
    #[serde(rename = "all")]
    Anyone,
    /// Root and the group `webmesh`: `group`.
    Group,
}

impl Rights {
    /// Whether `caller` may.
    pub fn allow(self, caller: Caller, read: ReadAccess) -> bool {
        match (self, caller) {
            (_, Caller::Root) => true,
            (Self::Root, Caller::Group | Caller::Other) => false,
            (Self::Change | Self::Look, Caller::Group) => true,
            (Self::Change, Caller::Other) => false,
            (Self::Look, Caller::Other) => read == ReadAccess::Anyone,
        }
    }
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Init,
        Self::Invite,
        Self::InviteList,
        Self::InviteCancel,
        Self::Join,
        Self::Leave,
        Self::Up,
        Self::Down,
        Self::Status,
        Self::Peers,
        Self::Wait,
        Self::Ping,
        Self::Why,
        Self::Whois,
        Self::Netcheck,
        Self::DnsStatus,
        Self::DnsQuery,
        Self::ServiceAdd,
        Self::ServiceRemove,
        Self::ServiceList,
        Self::ServiceShow,
        Self::PolicyShow,
        Self::Recover,
        Self::DebugBundle,
    ];

    /// The verb as a person types it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Invite => "invite",
            Self::InviteList => "invite list",
            Self::InviteCancel => "invite cancel",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Up => "up",
            Self::Down => "down",
            Self::Status => "status",
            Self::Peers => "peers",
            Self::Wait => "wait",
            Self::Ping => "ping",
            Self::Why => "why",
            Self::Whois => "whois",
            Self::Netcheck => "netcheck",
            Self::DnsStatus => "dns status",
            Self::DnsQuery => "dns query",
            Self::ServiceAdd => "service add",
            Self::ServiceRemove => "service rm",
            Self::ServiceList => "service list",
            Self::ServiceShow => "service show",
            Self::PolicyShow => "policy show",
            Self::Recover => "recover",
            Self::DebugBundle => "debug bundle",
        }
    }

    /// Where it is asked: `/v1/` and its words joined by `/`.
    pub fn path(self) -> String {
        format!("/v1/{}", self.words().replace(' ', "/"))
    }

    /// The verb that a request means, if any. `POST` is good for every verb.
    pub fn find(method: Method, path: &str) -> Option<Self> {
        if method == Method::Get && path == "/v1/services" {
            return Some(Self::ServiceList);
        }
        if method == Method::Get && path == "/v1/dns" {
            return Some(Self::DnsStatus);
        }
        Self::ALL
            .into_iter()
            .filter(|verb| method == Method::Post || verb.method() == Method::Get)
            .find(|verb| verb.path() == path)
    }

    /// The method a client uses.
    pub const fn method(self) -> Method {
        match self {
            Self::Status
            | Self::Peers
            | Self::ServiceList
            | Self::PolicyShow
            | Self::DnsStatus
            | Self::InviteList => Method::Get,
            Self::Init
            | Self::Invite
            | Self::InviteCancel
            | Self::Join
            | Self::Leave
            | Self::Up
            | Self::Down
            | Self::Wait
            | Self::Ping
            | Self::Why
            | Self::Whois
            | Self::Netcheck
            | Self::DnsQuery
            | Self::ServiceAdd
            | Self::ServiceRemove
            | Self::ServiceShow
            | Self::Recover
            | Self::DebugBundle => Method::Post,
        }
    }

    /// Who may say it (design §4).
    pub const fn rights(self) -> Rights {
        match self {
            Self::Init
            | Self::Invite
            | Self::InviteList
            | Self::InviteCancel
            | Self::Join
            | Self::Leave
            | Self::Recover
            | Self::DebugBundle => Rights::Root,
            Self::Up | Self::Down | Self::ServiceAdd | Self::ServiceRemove => Rights::Change,
            Self::Status
            | Self::Peers
            | Self::Wait
            | Self::Ping
            | Self::Why
            | Self::Whois
            | Self::Netcheck
            | Self::DnsStatus
            | Self::DnsQuery
            | Self::ServiceList
            | Self::ServiceShow
            | Self::PolicyShow => Rights::Look,
        }
    }

    /// Whether the answer waits for other machines.
    pub const fn asks_others(self) -> bool {
        matches!(self, Self::Join | Self::Ping | Self::Wait | Self::Why)
    }

    /// Whether a 200 to it is JSON lines. `status` is only when [`super::StatusRequest::watch`] is set.
    pub const fn answers_in_lines(self) -> bool {
        matches!(self, Self::Join | Self::Ping | Self::Wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_found_again_by_its_path() {
        for verb in Verb::ALL {
            assert_eq!(Verb::find(verb.method(), &verb.path()), Some(verb));
            assert_eq!(Verb::find(Method::Post, &verb.path()), Some(verb));
        }
        assert_eq!(Verb::find(Method::Get, "/v1/init"), None);
        assert_eq!(Verb::find(Method::Post, "/v1/"), None);
        assert_eq!(
            Verb::find(Method::Get, "/v1/services"),
            Some(Verb::ServiceList)
        );
        assert_eq!(Verb::find(Method::Get, "/v1/dns"), Some(Verb::DnsStatus));
    }

    /// Design §4, verb by verb. No wildcard: a new verb is judged here before it can be built.
    fn of_the_design(verb: Verb) -> Rights {
        match verb {
            Verb::Init
            | Verb::Join
            | Verb::Leave
            | Verb::Invite
            | Verb::InviteList
            | Verb::InviteCancel
            | Verb::Recover
            | Verb::DebugBundle => Rights::Root,
            Verb::Up | Verb::Down | Verb::ServiceAdd | Verb::ServiceRemove => Rights::Change,
            Verb::Status
            | Verb::Peers
            | Verb::Wait
            | Verb::Ping
            | Verb::Why
            | Verb::Whois
            | Verb::Netcheck
            | Verb::DnsStatus
            | Verb::DnsQuery
            | Verb::ServiceList
            | Verb::ServiceShow
            | Verb::PolicyShow => Rights::Look,
        }
    }

    #[test]
    fn who_may_say_what_is_the_table_of_the_design() {
        use Caller::{Group, Other, Root};
        for verb in Verb::ALL {
            let who = |read| {
                let may = |caller: &Caller| verb.rights().allow(*caller, read);
                [Root, Group, Other]
                    .into_iter()
                    .filter(may)
                    .collect::<Vec<_>>()
            };
            let (open, closed) = match of_the_design(verb) {
                Rights::Root => (vec![Root], vec![Root]),
                Rights::Change => (vec![Root, Group], vec![Root, Group]),
                Rights::Look => (vec![Root, Group, Other], vec![Root, Group]),
            };
            assert_eq!(who(ReadAccess::Anyone), open, "{verb:?}");
            assert_eq!(who(ReadAccess::Group), closed, "{verb:?}");
        }
    }

    #[test]
    fn anyone_may_look_unless_looking_is_closed() {
        assert!(Rights::Look.allow(Caller::Other, ReadAccess::Anyone));
        assert!(!Rights::Look.allow(Caller::Other, ReadAccess::Group));
        assert!(Rights::Look.allow(Caller::Group, ReadAccess::Group));
        assert!(!Rights::Change.allow(Caller::Other, ReadAccess::Anyone));
    }
}
