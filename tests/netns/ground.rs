//! What the internet of a test is like: a story told once is run over each.

use webmesh::demo::order::Order;

use crate::harness::Net;

/// The underlay between three public machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Both families, Ethernet's packets.
    Plain,
    /// IPv4 alone, Ethernet's packets.
    Only4,
    /// IPv4 alone, no packet above 1,280 bytes.
    Narrow4,
    /// IPv6 alone, no packet above 1,280 bytes.
    Narrow6,
    /// IPv6 alone, Ethernet's packets.
    Only6,
}

/// The least that IPv6 asks of a link; our packets of 1,420 bytes do not fit it with what is around them.
const NARROW: u32 = 1280;

impl Ground {
    /// The addresses of the machine with this number, with their prefixes.
    pub(crate) fn addresses(self, number: u8) -> Vec<String> {
        let v4 = format!("203.0.113.{number}/24");
        let v6 = format!("2001:db8::{number:x}/64");
        match self {
            Self::Plain => vec![v4, v6],
            Self::Only4 | Self::Narrow4 => vec![v4],
            Self::Narrow6 | Self::Only6 => vec![v6],
        }
    }

    /// Makes a machine's link as narrow as the ground asks.
    pub(crate) fn narrow(self, net: &Net, machine: &str) {
        if matches!(self, Self::Narrow4 | Self::Narrow6) {
            let order = Order::Mtu {
                at: machine.to_owned(),
                link: "eth0".to_owned(),
                mtu: NARROW,
            };
            net.lab().order(order).unwrap();
        }
    }
}

/// Makes tests of stories: each is a function of a [`Ground`], and one test in each module that names it.
macro_rules! over {
    ($(#[$doc:meta])* $module:ident, $ground:ident: $($story:ident),+ $(,)?) => {
        $(#[$doc])*
        mod $module {
            use crate::ground::Ground;
            $(
                #[test]
                fn $story() {
                    super::$story(Ground::$ground);
                }
            )+
        }
    };
}
pub(crate) use over;
