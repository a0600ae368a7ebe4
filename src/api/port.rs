//! A port with its protocol, as people write it: `80`, `53/udp`.

use std::str::FromStr;

use super::Protocol;

/// A port and its protocol, as `--port` and `services.d` take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// The port, never 0.
    pub port: u16,
    /// TCP unless said.
    pub protocol: Protocol,
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((number, "udp")) => (number, Protocol::Udp),
            Some((_, other)) => return Err(format!("{other} is neither tcp nor udp")),
        };
        match number.parse() {
            Ok(0) | Err(_) => Err("a port is 1 to 65535, with /udp behind it for UDP".to_owned()),
            Ok(port) => Ok(Self { port, protocol }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_say_their_protocol() {
        assert_eq!(
            "80".parse(),
            Ok(PortSpec {
                port: 80,
                protocol: Protocol::Tcp
            })
        );
        assert_eq!(
            "80/tcp".parse(),
            Ok(PortSpec {
                port: 80,
                protocol: Protocol::Tcp
            })
        );
        assert_eq!(
            "53/udp".parse(),
            Ok(PortSpec {
                port: 53,
                protocol: Protocol::Udp
            })
        );
        for text in ["", "0", "65536", "53/sctp", "/udp", "x"] {
            assert!(text.parse::<PortSpec>().is_err(), "{text:?}");
        }
    }
}
