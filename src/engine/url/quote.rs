//! Quoting: URLs, libpq's connection strings.

use std::net::Ipv6Addr;

/// Everything but what a URL never gives a meaning (RFC 3986, section 2.3) becomes `%XX`: right in every part of a URL,
/// for drivers that read `+` as a space as for those that do not.
pub(super) fn percent(text: &str) -> String {
    escaped(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// The same for a path in a query, where slashes mean nothing.
pub(super) fn percent_path(path: &str) -> String {
    escaped(path, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/'))
}

fn escaped(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if keep(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// IPv6 addresses stand in brackets.
pub(super) fn url_host(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

/// `key=value` of libpq's connection strings (libpq's manual, "Keyword/Value Connection Strings").
pub(super) fn keyword(key: &str, value: &str) -> String {
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '\\'));
    if plain {
        return format!("{key}={value}");
    }
    format!("{key}='{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_only_what_has_no_meaning_in_any_part_of_it() {
        assert_eq!(percent("aZ09-._~"), "aZ09-._~");
        assert_eq!(percent("p@ss:/?#[]%+& =\"'$ä"), "p%40ss%3A%2F%3F%23%5B%5D%25%2B%26%20%3D%22%27%24%C3%A4");
        assert_eq!(percent_path("/a b/c"), "/a%20b/c");
        assert_eq!(url_host("fd00::7"), "[fd00::7]");
        assert_eq!((url_host("10.0.0.7"), url_host("db")), ("10.0.0.7".to_owned(), "db".to_owned()));
    }

    #[test]
    fn libpq_gets_its_own_quotes() {
        assert_eq!(keyword("user", "app"), "user=app");
        assert_eq!(keyword("user", ""), "user=''");
        assert_eq!(keyword("user", r"o'neil \x y"), r"user='o\'neil \\x y'");
    }
}
