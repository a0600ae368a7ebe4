//! The one question that the main UDP socket asks of DHT nodes, and what their answer says of us (BEP 5, BEP 42).
//!
//! A node that answers a ping writes the address it saw into the field `ip`. That is all STUN ever did.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::addr::Underlay;

/// Names one question. As long as what most clients use: some nodes answer no other length.
pub(super) type Transaction = [u8; 4];

/// How deep lists and dictionaries may stand inside each other in an answer.
const DEPTH: u8 = 4;

/// A ping that asks not to be taken for a node of the DHT (BEP 43).
pub(super) fn ping(id: [u8; 20], transaction: Transaction) -> Vec<u8> {
    [
        &b"d1:ad2:id20:"[..],
        &id,
        b"e1:q4:ping2:roi1e1:t4:",
        &transaction,
        b"1:y1:qe",
    ]
    .concat()
}

/// What an answer says: to which question, and at which address the node saw us.
pub(super) fn observed(datagram: &[u8]) -> Option<(Transaction, Underlay)> {
    let mut rest = datagram.strip_prefix(b"d")?;
    let (mut transaction, mut address, mut is_answer) = (None, None, false);
    while rest.first()? != &b'e' {
        let (key, after) = text(rest)?;
        let after_value = skip(after, DEPTH)?;
        match key {
            b"t" => transaction = Transaction::try_from(text(after)?.0).ok(),
            b"ip" => address = compact(text(after)?.0),
            b"y" => is_answer = text(after)?.0 == b"r",
            _ => {}
        }
        rest = after_value;
    }
    transaction.zip(address).filter(|_| is_answer)
}

/// A byte string, and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(5).position(|byte| *byte == b':')?;
    let digits = bytes.get(..colon)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let len: usize = str::from_utf8(digits).ok()?.parse().ok()?;
    bytes.get(colon + 1..)?.split_at_checked(len)
}

/// What follows one value.
fn skip(bytes: &[u8], depth: u8) -> Option<&[u8]> {
    let (first, mut rest) = bytes.split_first()?;
    match first {
        b'i' => {
            let end = rest.iter().position(|byte| *byte == b'e')?;
            rest.get(end + 1..)
        }
        b'l' | b'd' => {
            while rest.first()? != &b'e' {
                rest = skip(rest, depth.checked_sub(1)?)?;
            }
            rest.get(1..)
        }
        _ => text(bytes).map(|(_, rest)| rest),
    }
}

/// Octets and port, both big-endian, as the DHT writes addresses.
fn compact(bytes: &[u8]) -> Option<Underlay> {
    let (octets, port) = bytes.split_last_chunk::<2>()?;
    let ip = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(*octets.first_chunk::<4>()?)),
        16 => IpAddr::V6(Ipv6Addr::from(*octets.first_chunk::<16>()?)),
        _ => return None,
    };
    let port = u16::from_be_bytes(*port);
    (port != 0 && !ip.is_unspecified()).then(|| Underlay::new(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ip: &[u8], transaction: &[u8]) -> Vec<u8> {
        let len = |bytes: &[u8]| format!("{}:", bytes.len()).into_bytes();
        [
            b"d2:ip",
            &len(ip)[..],
            ip,
            b"1:rd2:id20:mnopqrstuvwxyz123456e1:t",
            &len(transaction),
            transaction,
            b"1:y1:re",
        ]
        .concat()
    }

    #[test]
    fn an_answer_tells_the_address_that_the_node_saw() {
        let seen = Underlay::new("203.0.113.9:61234".parse().unwrap());
        let ip = [203, 0, 113, 9, 0xef, 0x32];
        assert_eq!(observed(&answer(&ip, b"abcd")), Some((*b"abcd", seen)));
        let six = Underlay::new("[2001:db8::1]:258".parse().unwrap());
        let mut ip6 = [0; 18];
        ip6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        ip6[15..].copy_from_slice(&[1, 1, 2]);
        assert_eq!(observed(&answer(&ip6, b"abcd")), Some((*b"abcd", six)));
    }

    #[test]
    fn what_is_no_whole_answer_tells_nothing() {
        let good = answer(&[203, 0, 113, 9, 0xef, 0x32], b"abcd");
        for len in 0..good.len() {
            assert_eq!(observed(&good[..len]), None, "cut at {len}");
        }
        assert_eq!(observed(&answer(&[1, 2, 3], b"abcd")), None);
        assert_eq!(observed(&answer(&[0; 6], b"abcd")), None);
        assert_eq!(observed(&answer(&[203, 0, 113, 9, 1, 1], b"abcde")), None);
        assert_eq!(observed(&ping([1; 20], *b"abcd")), None, "a question");
        assert_eq!(observed(b"d1:t99999999999999999999:e"), None);
    }

    #[test]
    fn no_depth_of_nesting_is_followed_for_ever() {
        let deep = [&b"d1:a"[..], &[b'l'; 2000], &[b'e'; 2000], b"e"].concat();
        assert_eq!(observed(&deep), None);
    }

    #[test]
    fn a_ping_is_a_dictionary_with_its_keys_in_order() {
        let bytes = ping([b'x'; 20], *b"abcd");
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "d1:ad2:id20:xxxxxxxxxxxxxxxxxxxxe1:q4:ping2:roi1e1:t4:abcd1:y1:qe"
        );
        assert_eq!(skip(text.as_bytes(), DEPTH), Some(&b""[..]));
    }
}
