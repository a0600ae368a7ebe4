//! Why a text cannot be a name, rule by rule (design §3).

use super::{ApiError, Code};

/// The longest name, in letters.
const LONGEST: usize = 63;

impl ApiError {
    /// A name that is no label, or reserved; `what` is `network`, `peer`, `service`, `instance` or `domain`.
    pub fn bad_name(what: &str, name: &str) -> Self {
        if what == "domain" {
            return Self::could_not(Code::BadName, format!("{name:?} cannot be a domain")).remedy(
                "a domain is parts of a to z, 0 to 9 and - inside, with dots between, as in mesh.example.com",
            );
        }
        let article = if what == "instance" { "an" } else { "a" };
        let (why, remedy) = broken_rule(name);
        Self::could_not(
            Code::BadName,
            format!("{name:?} cannot be {article} {what}'s name: {why}"),
        )
        .remedy(remedy)
    }
}

/// The first rule that `name` breaks, and what to do.
fn broken_rule(name: &str) -> (String, String) {
    let another = || "choose another".to_owned();
    let small = name.to_lowercase();
    let length = name.chars().count();
    if name.is_empty() {
        return ("it is empty".to_owned(), another());
    }
    if small != name {
        return (
            "a name has no capital letters".to_owned(),
            if is_plain(&small) {
                format!("try {small}")
            } else {
                another()
            },
        );
    }
    let why = if name.contains('.') {
        "a name has no dots, the domain is added by itself".to_owned()
    } else if length > LONGEST {
        format!("a name has at most {LONGEST} letters, this one has {length}")
    } else if !name.chars().all(is_letter) {
        "only a to z, 0 to 9 and - stand in a name".to_owned()
    } else if name.starts_with('-') || name.ends_with('-') {
        "a name begins and ends with a letter or a digit".to_owned()
    } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
        "a name has a letter in it, digits alone look like an address".to_owned()
    } else if name.starts_with("xn--") {
        "xn-- begins names of other alphabets, which are not taken".to_owned()
    } else {
        "Webmesh keeps this word for itself".to_owned()
    };
    (why, another())
}

fn is_letter(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'
}

/// Whether nothing but a word kept by Webmesh could be wrong with it.
fn is_plain(name: &str) -> bool {
    name.len() <= LONGEST
        && name.chars().all(is_letter)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_sentence() {
        let long = "a".repeat(70);
        let rules = [
            (
                "peer",
                "",
                "\"\" cannot be a peer's name: it is empty: choose another",
            ),
            (
                "peer",
                "Anna",
                "\"Anna\" cannot be a peer's name: a name has no capital letters: try anna",
            ),
            (
                "peer",
                "A.B",
                "\"A.B\" cannot be a peer's name: a name has no capital letters: choose another",
            ),
            (
                "peer",
                "a.b",
                "\"a.b\" cannot be a peer's name: a name has no dots, the domain is added by itself: choose another",
            ),
            (
                "service",
                "a_b",
                "\"a_b\" cannot be a service's name: only a to z, 0 to 9 and - stand in a name: choose another",
            ),
            (
                "service",
                "-a",
                "\"-a\" cannot be a service's name: a name begins and ends with a letter or a digit: choose another",
            ),
            (
                "network",
                "123",
                "\"123\" cannot be a network's name: a name has a letter in it, digits alone look like an address: \
                 choose another",
            ),
            (
                "peer",
                "svc",
                "\"svc\" cannot be a peer's name: Webmesh keeps this word for itself: choose another",
            ),
            (
                "instance",
                "Foo",
                "\"Foo\" cannot be an instance's name: a name has no capital letters: try foo",
            ),
        ];
        for (what, name, line) in rules {
            assert_eq!(ApiError::bad_name(what, name).line(), line);
        }
        let line = ApiError::bad_name("peer", &long).line();
        assert!(line.ends_with("a name has at most 63 letters, this one has 70: choose another"));
        let domain = ApiError::bad_name("domain", "a..b").line();
        assert!(
            domain.starts_with("\"a..b\" cannot be a domain: "),
            "{domain}"
        );
    }
}
