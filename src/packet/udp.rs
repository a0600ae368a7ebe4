//! UDP datagrams (RFC 768): the body of one, and whole packets made by us.

use std::net::IpAddr;

use super::{
    checksum::pseudo,
    ip::{Fragment, Header, Ports, UDP},
    write,
};

/// The body of a whole UDP packet; None for anything else and where the UDP length does not fit.
pub fn body<'a>(header: &Header, packet: &'a [u8]) -> Option<&'a [u8]> {
    if header.protocol != UDP || header.fragment != Fragment::Whole {
        return None;
    }
    let datagram = header.payload(packet);
    let head = datagram.first_chunk::<8>()?;
    let len = usize::from(u16::from_be_bytes([head[4], head[5]]));
    datagram.get(8..len)
}

/// Writes a whole packet with `body` into `out`. False when it would be too long or the families differ.
#[must_use]
pub fn build(out: &mut Vec<u8>, addresses: (IpAddr, IpAddr), ports: Ports, body: &[u8]) -> bool {
    let len = 8 + body.len();
    let Ok(len16) = u16::try_from(len) else {
        return false;
    };
    if write::header(out, addresses, UDP, len).is_none() {
        return false;
    }
    let at = out.len();
    out.extend_from_slice(&ports.source.to_be_bytes());
    out.extend_from_slice(&ports.destination.to_be_bytes());
    out.extend_from_slice(&len16.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(body);
    let checksum = pseudo(addresses.0, addresses.1, UDP, len)
        .bytes(&out[at..])
        .finish();
    // RFC 768: a computed checksum of zero is sent as all ones.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    out[at + 6..at + 8].copy_from_slice(&checksum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back_in_both_families() {
        for pair in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let addresses = (pair.0.parse().unwrap(), pair.1.parse().unwrap());
            let ports = Ports {
                source: 53,
                destination: 4000,
            };
            let mut out = Vec::new();
            assert!(build(&mut out, addresses, ports, b"hello"));
            let header = Header::parse(&out).unwrap();
            assert_eq!((header.source, header.destination), addresses);
            assert_eq!(header.ports(&out), Some(ports));
            assert_eq!(body(&header, &out), Some(&b"hello"[..]));
            let sum = pseudo(addresses.0, addresses.1, UDP, 13).bytes(header.payload(&out));
            assert_eq!(
                sum.finish(),
                0,
                "the checksum of a good datagram sums to zero"
            );
        }
    }

    #[test]
    fn a_udp_length_beyond_the_packet_gives_no_body() {
        let mut out = Vec::new();
        let addresses = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert!(build(
            &mut out,
            addresses,
            Ports {
                source: 1,
                destination: 2
            },
            b"hello"
        ));
        out[24..26].copy_from_slice(&14u16.to_be_bytes());
        assert_eq!(body(&Header::parse(&out).unwrap(), &out), None);
    }
}
