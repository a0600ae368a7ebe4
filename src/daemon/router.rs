//! One home router, asked to let others in to our UDP port: by PCP, NAT-PMP or UPnP, whichever it speaks.
//!
//! Knows the three crates' words and how long each may take. Refuses to know when to ask and who is told.
//!
//! PCP and NAT-PMP (RFC 6887, RFC 6886) are one datagram each way and are tried first; the search for UPnP runs beside
//! them, since it may take seconds. Only the default gateway itself is believed.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{
    InternetProtocol, PortMapping as Datagrams, PortMappingOptions, PortMappingType, TimeoutConfig,
    natpmp, pcp,
};
use igd_next::{
    AddPortError, GatewayIpVersion, PortMappingProtocol, SearchOptions,
    aio::{
        Gateway as Igd,
        tokio::{Tokio, search_gateway},
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::tasks;

/// How long a mapping lasts unless it is renewed. A machine that dies leaves a hole in its router for so long.
const LIFE: Duration = Duration::from_hours(1);

/// What a router that has a shorter mind is believed to mean at least: nobody renews more often than twice a minute.
const LIFE_MIN: Duration = Duration::from_mins(1);

/// How long a router may take to answer a PCP or NAT-PMP datagram; asked once more, for twice as long. One that is silent
/// about the first is asked by the second after that, while whoever said `init` still waits.
const ANSWER: Duration = Duration::from_millis(250);

/// How long it may take to answer the search for UPnP, and then to show what it can do: some wait as long as the search
/// allows, which is 3 s.
const SEARCH: Duration = Duration::from_secs(4);

/// How long one UPnP request may take.
const REQUEST: Duration = Duration::from_secs(3);

/// What the router's own list of mappings calls ours.
const DESCRIPTION: &str = "webmesh";

/// The router that all goes through, and this machine as it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Router {
    /// Its address in the LAN.
    pub(super) gateway: Ipv4Addr,
    /// Ours.
    pub(super) own: Ipv4Addr,
    /// Our UDP port.
    pub(super) port: NonZeroU16,
    /// Tells the router that we are who we were, also after a restart (RFC 6887 §11.1).
    pub(super) nonce: pcp::Nonce,
}

/// By which protocol a router was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// The internet gateway device of UPnP.
    Upnp,
}

/// A mapping that the router made.
#[derive(Debug)]
pub(super) struct Lease {
    /// Who is let in: what comes to this address of the router's.
    pub(super) external: SocketAddrV4,
    /// How long it lasts from the moment it was given.
    pub(super) lasts: Duration,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Datagrams(Datagrams),
    Upnp(Box<Igd<Tokio>>),
}

/// Why there is no mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoLease {
    /// The router speaks none of the three, or does not speak to us.
    Silent,
    /// It said no.
    Refused {
        /// By which protocol.
        by: Protocol,
        /// In the words of its protocol.
        why: String,
    },
}

impl Protocol {
    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }
}

impl Router {
    /// Asks for a mapping of our port to the same port outside, or to any.
    ///
    /// # Errors
    /// There is none, as far as the router said.
    pub(super) async fn ask(self) -> Result<Lease, NoLease> {
        let (found, search) = oneshot::channel();
        let _searching = tasks::spawn("upnp-search", async move {
            // Nobody waits any more when a datagram was answered first.
            let _unneeded = found.send(self.search().await);
        });
        let mut refusal = NoLease::Silent;
        match self.ask_by_datagrams().await {
            Ok(lease) => return Ok(lease),
            Err(NoLease::Silent) => {}
            Err(refused) => refusal = refused,
        }
        let Ok(Some(igd)) = search.await else {
            return Err(refusal);
        };
        self.ask_by_upnp(igd)
            .await
            .map_err(|refused| match refused {
                NoLease::Silent => refusal,
                refused @ NoLease::Refused { .. } => refused,
            })
    }

    async fn ask_by_datagrams(self) -> Result<Lease, NoLease> {
        let options = PortMappingOptions {
            external_port: Some(self.port),
            lifetime_seconds: Some(seconds(LIFE)),
            timeout_config: Some(PATIENCE),
        };
        let base = pcp::BaseMapRequest::new(
            self.gateway.into(),
            self.own.into(),
            InternetProtocol::Udp,
            self.port,
        );
        let why = match pcp::port_mapping(base, Some(self.nonce), None, options).await {
            Ok(mapping) => return Lease::of_datagrams(mapping).await,
            // The port is closed: NAT-PMP is at the same one.
            Err(pcp::Failure::Socket(_)) => return Err(NoLease::Silent),
            Err(pcp::Failure::Timeout | pcp::Failure::UnsupportedVersion(_)) => NoLease::Silent,
            Err(failure) => NoLease::Refused {
                by: Protocol::Pcp,
                why: failure.to_string(),
            },
        };
        let gateway = self.gateway.into();
        match natpmp::port_mapping(gateway, InternetProtocol::Udp, self.port, options).await {
            Ok(mapping) => Lease::of_datagrams(mapping).await,
            Err(
                natpmp::Failure::Socket(_)
                | natpmp::Failure::Timeout
                | natpmp::Failure::UnsupportedVersion(_),
            ) => Err(why),
            Err(failure) => Err(NoLease::Refused {
                by: Protocol::NatPmp,
                why: failure.to_string(),
            }),
        }
    }

    /// Asks the gateway itself, and everybody: some routers answer only the one, some only the other.
    async fn search(self) -> Option<Igd<Tokio>> {
        let search = |to: Ipv4Addr| {
            let mut options = SearchOptions::default();
            options.bind_addr = SocketAddr::from((self.own, 0));
            options.broadcast_address = SocketAddr::from((to, SSDP_PORT));
            options.timeout = Some(SEARCH);
            options.single_search_timeout = Some(SEARCH);
            options.gateway_ip_version = GatewayIpVersion::V4;
            search_gateway(options)
        };
        let is_the_gateway = |igd: &Igd<Tokio>| igd.addr.ip() == IpAddr::V4(self.gateway);
        let alone = async { search(self.gateway).await.ok().filter(is_the_gateway) };
        let everybody = async { search(SSDP_GROUP).await.ok().filter(is_the_gateway) };
        tokio::pin!(alone, everybody);
        tokio::select! {
            Some(igd) = &mut alone => Some(igd),
            Some(igd) = &mut everybody => Some(igd),
            else => None,
        }
    }

    async fn ask_by_upnp(self, igd: Igd<Tokio>) -> Result<Lease, NoLease> {
        let asked = timeout(2 * REQUEST, async {
            let external = match igd.get_external_ip().await {
                Ok(IpAddr::V4(external)) => external,
                Ok(IpAddr::V6(_)) => return Err("its public address is no IPv4".to_owned()),
                Err(error) => return Err(error.to_string()),
            };
            let (port, lasts) = self.map_by_upnp(&igd).await?;
            Ok((SocketAddrV4::new(external, port), lasts))
        });
        match asked.await {
            Ok(Ok((external, lasts))) => Ok(Lease {
                external,
                lasts,
                hold: Hold::Upnp(Box::new(igd)),
            }),
            Ok(Err(why)) => Err(NoLease::Refused {
                by: Protocol::Upnp,
                why,
            }),
            Err(_elapsed) => Err(NoLease::Silent),
        }
    }

    /// The same port outside if it is free; for ever where the router knows no other way, since it is taken back at the end.
    async fn map_by_upnp(self, igd: &Igd<Tokio>) -> Result<(u16, Duration), String> {
        let udp = PortMappingProtocol::UDP;
        let own = SocketAddr::from((self.own, self.port.get()));
        let port = self.port.get();
        match igd
            .add_port(udp, port, own, seconds(LIFE), DESCRIPTION)
            .await
        {
            Ok(()) => return Ok((port, LIFE)),
            Err(AddPortError::OnlyPermanentLeasesSupported) => {
                let forever = igd.add_port(udp, port, own, 0, DESCRIPTION).await;
                return forever
                    .map(|()| (port, LIFE))
                    .map_err(|error| error.to_string());
            }
            Err(AddPortError::PortInUse) => {}
            Err(error) => return Err(error.to_string()),
        }
        let any = igd.add_any_port(udp, own, seconds(LIFE), DESCRIPTION).await;
        any.map(|port| (port, LIFE))
            .map_err(|error| error.to_string())
    }
}

impl Lease {
    async fn of_datagrams(mapping: Datagrams) -> Result<Self, NoLease> {
        let external = match mapping.mapping_type() {
            PortMappingType::Pcp {
                external_ip: IpAddr::V4(external),
                ..
            } => external,
            PortMappingType::Pcp {
                external_ip: IpAddr::V6(_),
                ..
            } => {
                return Err(NoLease::Refused {
                    by: Protocol::Pcp,
                    why: "its public address is no IPv4".to_owned(),
                });
            }
            PortMappingType::NatPmp => {
                let asked = natpmp::external_address(mapping.gateway(), Some(PATIENCE)).await;
                asked.map_err(|failure| NoLease::Refused {
                    by: Protocol::NatPmp,
                    why: failure.to_string(),
                })?
            }
        };
        let lasts = Duration::from_secs(mapping.lifetime().into());
        Ok(Self {
            external: SocketAddrV4::new(external, mapping.external_port().get()),
            lasts: lasts.max(LIFE_MIN),
            hold: Hold::Datagrams(mapping),
        })
    }

    /// By which protocol it was given.
    pub(super) fn protocol(&self) -> Protocol {
        match &self.hold {
            Hold::Datagrams(mapping) => match mapping.mapping_type() {
                PortMappingType::Pcp { .. } => Protocol::Pcp,
                PortMappingType::NatPmp => Protocol::NatPmp,
            },
            Hold::Upnp(_) => Protocol::Upnp,
        }
    }

    /// Asks for the same again. None: the router will not, or is another one.
    pub(super) async fn renewed(self, router: Router) -> Option<Self> {
        match self.hold {
            Hold::Datagrams(mut mapping) => {
                mapping.renew().await.ok()?;
                Self::of_datagrams(mapping).await.ok()
            }
            Hold::Upnp(igd) => router.ask_by_upnp(*igd).await.ok(),
        }
    }

    /// Takes the mapping back, by `until` at the latest.
    pub(super) async fn give_back(self, until: Instant) {
        let port = self.external.port();
        let given_back = async {
            match self.hold {
                Hold::Datagrams(mapping) => {
                    let done = mapping.try_drop().await;
                    done.map_err(|(failure, _mapping)| failure.to_string())
                }
                Hold::Upnp(igd) => {
                    let done = igd.remove_port(PortMappingProtocol::UDP, port).await;
                    done.map_err(|error| error.to_string())
                }
            }
        };
        match tokio::time::timeout_at(until, given_back).await {
            Ok(Ok(())) => tracing::debug!("Port mapping is given back"),
            Ok(Err(why)) => {
                tracing::info!(why, "Port mapping could not be given back; it will end");
            }
            Err(_elapsed) => {
                tracing::info!("Router does not answer; the port mapping there will end by itself");
            }
        }
    }
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: ANSWER,
    max_retries: 1,
    max_retry_timeout: None,
};

/// Where UPnP devices listen for searches (UPnP Device Architecture 1.1 §1.3.2).
const SSDP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);

/// See [`SSDP_GROUP`].
const SSDP_PORT: u16 = 1900;
