//! The system bus: who is there, and calls that do not wait for ever.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use zbus::{
    MatchRule, MessageStream,
    zvariant::{DynamicType, Type},
};

/// The longest wait for any answer. What is asked is a matter of milliseconds; a host that is busy starting gets more.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to the system bus.
#[derive(Clone, Debug)]
pub struct Bus(zbus::Connection);

/// Where something is said on the bus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

impl Bus {
    /// The host's bus; None where there is none.
    pub async fn of_host() -> Option<Self> {
        Self::built(zbus::connection::Builder::system()).await
    }

    /// The bus at an address, for tests.
    pub async fn at(address: &str) -> Option<Self> {
        Self::built(zbus::connection::Builder::address(address)).await
    }

    async fn built(builder: zbus::Result<zbus::connection::Builder<'_>>) -> Option<Self> {
        let building = builder.ok()?.method_timeout(PATIENCE).build();
        match tokio::time::timeout(PATIENCE, building).await {
            Ok(Ok(connection)) => Some(Self(connection)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "No system bus");
                None
            }
            Err(_late) => None,
        }
    }

    /// The connection itself.
    pub fn connection(&self) -> &zbus::Connection {
        &self.0
    }

    /// Whether somebody has this name.
    pub async fn has_owner(&self, name: &str) -> bool {
        let bus = Seat {
            name: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
        };
        self.ask(bus, "NameHasOwner", &name).await.unwrap_or(false)
    }

    /// Calls a method that answers something.
    pub(super) async fn ask<R: DeserializeOwned + Type>(
        &self,
        seat: Seat,
        method: &str,
        body: &(impl Serialize + DynamicType + Sync),
    ) -> zbus::Result<R> {
        let (name, interface) = (Some(seat.name), Some(seat.interface));
        let reply = self
            .0
            .call_method(name, seat.path, interface, method, body)
            .await?;
        reply.body().deserialize()
    }

    /// What somebody says from now on, unasked.
    pub(super) async fn hear(&self, seat: Seat, signal: &str) -> zbus::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(seat.name)?
            .path(seat.path)?
            .interface(seat.interface)?
            .member(signal)?
            .build();
        MessageStream::for_match_rule(rule, &self.0, None).await
    }

    /// Calls a method that answers nothing.
    pub(super) async fn tell(
        &self,
        seat: Seat,
        method: &str,
        body: &(impl Serialize + DynamicType + Sync),
    ) -> zbus::Result<()> {
        let (name, interface) = (Some(seat.name), Some(seat.interface));
        self.0
            .call_method(name, seat.path, interface, method, body)
            .await
            .map(drop)
    }
}
