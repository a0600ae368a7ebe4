//! The token of an invite: all a joiner needs, in one line of text (protocol §9).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::InviteSecret;
use crate::{
    addr::Underlay,
    hash::{Use, short},
    ids::JoinId,
};

/// How many hints a token may hold; at most one of them is IPv6.
pub const HINTS_MAX: usize = 3;
/// Bytes of the issuer's name in a token; longer ones are cut there.
pub const NAME_MAX: usize = 20;

const PREFIX: &str = "wm1-";
/// Letters of the longest token.
const TEXT_MAX: usize = 184;
const CHECK: usize = 4;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Unix s by the issuer's clock.
    pub expires: u32,
    /// The secret.
    pub secret: InviteSecret,
    /// The issuer's tunnel key, x25519 form.
    pub issuer: [u8; 32],
    /// The issuer's name, at most [`NAME_MAX`] bytes.
    pub name: String,
    /// Where the issuer may be, best first.
    pub hints: Vec<Underlay>,
}

/// Why a text is no token that this build can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// It does not begin as tokens do.
    #[error("this is no token: copy the whole line that begins with wm1-")]
    NotAToken,
    /// It begins as a token and then is not whole.
    #[error(
        "this token is cut or mistyped (its check does not match): copy the whole line that begins with wm1-"
    )]
    CutOrMistyped,
    /// It is of a form that came later.
    #[error("this token was made by a newer webmesh: install that version here, then join again")]
    UnknownVersion,
}

/// The ID of an invite for people: the first `len` letters of its join id in base32, 13 at most.
pub fn people_id(join_id: JoinId, len: usize) -> String {
    encode(&join_id.0).chars().take(len).collect()
}

/// Its text. More hints than [`HINTS_MAX`], IPv6 hints after the first and what the name has above [`NAME_MAX`] bytes
/// are left out.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&self.expires.to_le_bytes());
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&self.issuer);
        let name = &self.name.as_bytes()[..self.name.floor_char_boundary(NAME_MAX)];
        bytes.push(count(name.len()));
        bytes.extend_from_slice(name);
        let hints = self.written_hints();
        bytes.push(count(hints.len()));
        for hint in hints {
            match hint.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&hint.socket().port().to_le_bytes());
        }
        let check: [u8; CHECK] = short(Use::Token, &[&bytes]);
        bytes.extend_from_slice(&check);
        write!(f, "{PREFIX}{}", encode(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenRefused;

    fn from_str(text: &str) -> Result<Self, TokenRefused> {
        let text = as_written(text);
        let Some(letters) = text.strip_prefix(PREFIX) else {
            return Err(if is_of_other_version(&text) {
                TokenRefused::UnknownVersion
            } else {
                TokenRefused::NotAToken
            });
        };
        if text.len() > TEXT_MAX {
            return Err(TokenRefused::CutOrMistyped);
        }
        let bytes = decode(letters).ok_or(TokenRefused::CutOrMistyped)?;
        let (content, check) = bytes
            .split_last_chunk::<CHECK>()
            .ok_or(TokenRefused::CutOrMistyped)?;
        if short::<CHECK>(Use::Token, &[content]) != *check {
            return Err(TokenRefused::CutOrMistyped);
        }
        match content.split_first() {
            Some((0, content)) => parse_content(content).ok_or(TokenRefused::CutOrMistyped),
            Some(_) => Err(TokenRefused::UnknownVersion),
            None => Err(TokenRefused::CutOrMistyped),
        }
    }
}

impl Token {
    fn written_hints(&self) -> Vec<Underlay> {
        let mut v6 = 0;
        let wanted = |hint: &&Underlay| {
            v6 += usize::from(hint.ip().is_ipv6());
            hint.ip().is_ipv4() || v6 == 1
        };
        self.hints
            .iter()
            .filter(wanted)
            .take(HINTS_MAX)
            .copied()
            .collect()
    }
}

/// What was copied, as it was written: without quotes, without the lines a mail program broke it into, and without the
/// command it was copied with.
fn as_written(text: &str) -> String {
    let is_quote = |letter: char| matches!(letter, '\'' | '"' | '`');
    let text = text.to_ascii_lowercase();
    let bare = |text: &str| {
        text.trim_matches(|letter: char| letter.is_whitespace() || is_quote(letter))
            .to_owned()
    };
    let mut text = bare(&text);
    for word in ["$", "#", "sudo", "webmesh", "join"] {
        if let Some(rest) = text.strip_prefix(word)
            && rest.starts_with(char::is_whitespace)
        {
            text = bare(rest);
        }
    }
    text.split_whitespace().collect()
}

fn count(len: usize) -> u8 {
    u8::try_from(len).expect("names and hints of a token are few")
}

fn encode(bytes: &[u8]) -> String {
    data_encoding::BASE32_NOPAD
        .encode(bytes)
        .to_ascii_lowercase()
}

fn decode(letters: &str) -> Option<Vec<u8>> {
    data_encoding::BASE32_NOPAD
        .decode(letters.to_ascii_uppercase().as_bytes())
        .ok()
}

/// Whether it reads `wm`, digits, hyphen.
fn is_of_other_version(text: &str) -> bool {
    let head = text
        .strip_prefix("wm")
        .and_then(|rest| rest.split_once('-'));
    head.is_some_and(|(version, _)| {
        !version.is_empty() && version.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// What stands between the flags and the check.
fn parse_content(bytes: &[u8]) -> Option<Token> {
    let (expires, bytes) = bytes.split_first_chunk()?;
    let (secret, bytes) = bytes.split_first_chunk()?;
    let (issuer, bytes) = bytes.split_first_chunk()?;
    let (len, bytes) = bytes.split_first()?;
    let (name, bytes) = bytes.split_at_checked(usize::from(*len))?;
    let (hint_count, mut bytes) = bytes.split_first()?;
    let mut hints = Vec::new();
    for _ in 0..*hint_count {
        let (hint, rest) = parse_hint(bytes)?;
        hints.push(hint);
        bytes = rest;
    }
    let token = Token {
        expires: u32::from_le_bytes(*expires),
        secret: InviteSecret(*secret),
        issuer: *issuer,
        name: str::from_utf8(name).ok()?.to_owned(),
        hints,
    };
    let within = name.len() <= NAME_MAX && bytes.is_empty() && token.written_hints() == token.hints;
    within.then_some(token)
}

fn parse_hint(bytes: &[u8]) -> Option<(Underlay, &[u8])> {
    let (ip, bytes) = match bytes.split_first()? {
        (4, bytes) => {
            let (octets, bytes) = bytes.split_first_chunk::<4>()?;
            (IpAddr::V4(Ipv4Addr::from(*octets)), bytes)
        }
        (6, bytes) => {
            let (octets, bytes) = bytes.split_first_chunk::<16>()?;
            (IpAddr::V6(Ipv6Addr::from(*octets)), bytes)
        }
        _ => return None,
    };
    let (port, bytes) = bytes.split_first_chunk()?;
    (ip == ip.to_canonical()).then(|| {
        (
            Underlay::new(SocketAddr::new(ip, u16::from_le_bytes(*port))),
            bytes,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            expires: 7,
            secret: InviteSecret([1; 16]),
            issuer: [2; 32],
            name: "vps".into(),
            hints: vec![],
        }
    }

    fn sealed(content: &[u8]) -> Result<Token, TokenRefused> {
        let check: [u8; CHECK] = short(Use::Token, &[content]);
        format!("{PREFIX}{}", encode(&[content, &check].concat())).parse()
    }

    fn content() -> Vec<u8> {
        let text = token().to_string();
        let mut bytes = decode(text.strip_prefix(PREFIX).unwrap()).unwrap();
        bytes.truncate(bytes.len() - CHECK);
        bytes
    }

    #[test]
    fn flags_of_a_newer_token_say_so() {
        let mut newer = content();
        assert_eq!(sealed(&newer), Ok(token()));
        newer[0] = 1;
        assert_eq!(sealed(&newer), Err(TokenRefused::UnknownVersion));
    }

    #[test]
    fn what_no_webmesh_writes_is_refused_although_its_check_is_right() {
        let (v4, v6) = ([4; 7], [[6].as_slice(), &[0x20; 18]].concat());
        let mapped = [&[6][..], &[0; 10], &[0xff; 2], &[1; 6]].concat();
        let hints = |count: u8, hints: &[&[u8]]| {
            let mut bytes = content();
            bytes.pop();
            bytes.push(count);
            bytes.extend(hints.concat());
            sealed(&bytes)
        };
        assert!(hints(3, &[&v4, &v6, &v4]).is_ok());
        let refused = Err(TokenRefused::CutOrMistyped);
        assert_eq!(hints(4, &[&v4, &v4, &v4, &v4]), refused, "four hints");
        assert_eq!(hints(2, &[&v6, &v6]), refused, "two of IPv6");
        assert_eq!(hints(1, &[&mapped]), refused, "a mapped one");
        assert_eq!(hints(1, &[&[5; 7]]), refused, "of no family");
        assert_eq!(hints(2, &[&v4]), refused, "one too few");
        assert_eq!(hints(0, &[&v4]), refused, "one too many");
    }

    #[test]
    fn a_token_is_found_in_what_was_copied_with_it() {
        let text = token().to_string();
        let (head, tail) = text.split_at(40);
        for copied in [
            format!("\"{text}\""),
            format!("'{text}'\n"),
            format!("`{text}`"),
            format!("{head}\n  {tail}\r\n"),
            format!("sudo webmesh join {text}"),
            format!("$ sudo webmesh join '{text}'"),
            format!("webmesh join {head} {tail}"),
        ] {
            assert_eq!(copied.parse(), Ok(token()), "{copied:?}");
        }
        assert_eq!(
            format!("please join {text}").parse::<Token>(),
            Err(TokenRefused::NotAToken)
        );
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let long = Token {
            name: "ä".repeat(15),
            ..token()
        };
        let read: Token = long.to_string().parse().unwrap();
        assert_eq!(read.name, "ä".repeat(10));
        let odd = Token {
            name: format!("x{}", "ä".repeat(15)),
            ..token()
        };
        let read: Token = odd.to_string().parse().unwrap();
        assert_eq!(read.name, format!("x{}", "ä".repeat(9)));
    }

    #[test]
    fn an_invites_id_for_people_grows_by_letters() {
        let join_id = InviteSecret([1; 16]).join_id();
        let (short, long) = (people_id(join_id, 4), people_id(join_id, 99));
        assert_eq!((short.len(), long.len()), (4, 13));
        assert!(long.starts_with(&short));
    }

    #[test]
    fn a_token_is_debugged_without_its_secret() {
        let debugged = format!("{:?}", token());
        assert!(
            debugged.contains("InviteSecret(…)") && !debugged.contains("[1, 1"),
            "{debugged}"
        );
    }
}
