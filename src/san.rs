//! Text to a subject alternative name, or why it cannot be one.
//!
//! The rules are those that every tested client agrees on (RFC 5280, section 4.2.1.6; RFC 1123,
//! section 2.1; underscores because container names have them), so that a name in a certificate is
//! a name that verifies.

use std::net::IpAddr;

use crate::model::San;

/// Reads a DNS name, lowercased, or an address. A leading `*.` is a wildcard for one label.
///
/// What looks like an address is one, and never a DNS name: clients compare addresses with
/// iPAddress entries only.
pub fn parse(text: &str) -> Result<San, BadSan> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return address_of_a_server(address).map(San::Ip);
    }
    if text.is_empty() {
        return Err(BadSan::Empty);
    }
    if text.contains('*') && !text.starts_with("*.") {
        return Err(BadSan::Wildcard);
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    if let Some(odd) = name.chars().find(|&character| !allowed(character)) {
        return Err(match odd {
            '*' => BadSan::Wildcard,
            ':' | '[' => BadSan::Port,
            _ if odd.is_whitespace() => BadSan::Whitespace,
            _ if !odd.is_ascii() => BadSan::NotAscii,
            _ => BadSan::Character(odd),
        });
    }
    if name.ends_with('.') && name.len() > 1 {
        return Err(BadSan::TrailingDot);
    }
    // 253 is what RFC 1035's 255 octets leave of a name in text.
    if text.len() > 253 {
        return Err(BadSan::TooLong(text.len()));
    }
    let mut last = "";
    for label in name.split('.') {
        if label.is_empty() {
            return Err(BadSan::EmptyLabel);
        }
        if label.len() > 63 {
            return Err(BadSan::LongLabel(label.len()));
        }
        if label.starts_with('-') {
            return Err(BadSan::LeadingHyphen);
        }
        if label.ends_with('-') {
            return Err(BadSan::TrailingHyphen);
        }
        last = label;
    }
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadSan::Numeric);
    }
    if name.len() != text.len() && !name.contains('.') {
        return Err(BadSan::WideWildcard);
    }
    Ok(San::Dns(text.to_ascii_lowercase()))
}

fn allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

fn address_of_a_server(address: IpAddr) -> Result<IpAddr, BadSan> {
    let v4 = address.to_canonical();
    if v4.is_unspecified() || v4.is_multicast() { Err(BadSan::NoServer) } else { Ok(v4) }
}

/// Why a text is no name for a certificate: a fragment that follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BadSan {
    #[error("is empty")]
    Empty,
    #[error("has {0} characters, a DNS name at most 253")]
    TooLong(usize),
    #[error("has an empty part between its dots")]
    EmptyLabel,
    #[error("ends with a dot: write it without")]
    TrailingDot,
    #[error("has a part of {0} characters, at most 63 are allowed between dots")]
    LongLabel(usize),
    #[error("has a part that starts with '-', which clients refuse")]
    LeadingHyphen,
    #[error("has a part that ends with '-', which clients refuse")]
    TrailingHyphen,
    #[error("ends with a number, so clients take it for an IP address, and it is none")]
    Numeric,
    #[error("has a space in it")]
    Whitespace,
    #[error("has {0:?} in it; letters, digits, '-', '_' and '.' are allowed")]
    Character(char),
    #[error("has letters outside ASCII: write it in its xn-- form")]
    NotAscii,
    #[error("is no DNS name and no address: write it without brackets, port and scope")]
    Port,
    #[error("has a '*' that is not its whole first part")]
    Wildcard,
    #[error("is a wildcard for a whole top-level domain, which clients refuse")]
    WideWildcard,
    #[error("is not the address of one server")]
    NoServer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_and_addresses_are_told_apart() {
        for (text, shown) in [
            ("db", "db"),
            ("DB.Example.COM", "db.example.com"),
            ("my_db", "my_db"),
            ("_db", "_db"),
            ("0db", "0db"),
            ("123.db", "123.db"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("*.example.com", "*.example.com"),
        ] {
            assert_eq!(parse(text), Ok(San::Dns(shown.to_owned())), "{text}");
        }
        for (text, shown) in [
            ("10.0.0.5", "10.0.0.5"),
            ("::1", "::1"),
            ("FD00::00:5", "fd00::5"),
            // A client that connects to the mapped form is given the IPv4 address by the kernel.
            ("::ffff:10.0.0.5", "10.0.0.5"),
        ] {
            assert_eq!(parse(text), Ok(San::Ip(shown.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let long = format!("{}.example", ["a".repeat(60).as_str(); 5].join("."));
        for (text, why) in [
            ("", BadSan::Empty),
            (long.as_str(), BadSan::TooLong(312)),
            ("a..b", BadSan::EmptyLabel),
            (".a", BadSan::EmptyLabel),
            (".", BadSan::EmptyLabel),
            ("a.", BadSan::TrailingDot),
            (&"a".repeat(64), BadSan::LongLabel(64)),
            ("-db", BadSan::LeadingHyphen),
            ("db-", BadSan::TrailingHyphen),
            ("db-.example", BadSan::TrailingHyphen),
            ("db.123", BadSan::Numeric),
            ("123", BadSan::Numeric),
            ("256.1.1.1", BadSan::Numeric),
            ("127.1", BadSan::Numeric),
            ("a b", BadSan::Whitespace),
            ("a/b", BadSan::Character('/')),
            ("a\0b", BadSan::Character('\0')),
            ("bücher.example", BadSan::NotAscii),
            ("db:5432", BadSan::Port),
            ("[::1]", BadSan::Port),
            ("fe80::1%eth0", BadSan::Port),
            ("*", BadSan::Wildcard),
            ("db.*.com", BadSan::Wildcard),
            ("*.*.com", BadSan::Wildcard),
            ("*.com", BadSan::WideWildcard),
            ("*.", BadSan::EmptyLabel),
            ("0.0.0.0", BadSan::NoServer),
            ("::", BadSan::NoServer),
            ("224.0.0.1", BadSan::NoServer),
        ] {
            assert_eq!(parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn the_longest_name_is_still_one() {
        let name = [&"a".repeat(63), "b".repeat(63).as_str(), &"c".repeat(63), &"d".repeat(61)].join(".");
        assert_eq!(name.len(), 253);
        assert!(parse(&name).is_ok());
        assert_eq!(parse(&format!("{name}d")), Err(BadSan::TooLong(254)));
    }
}
