//! The lines of a `pg_hba.conf` that fit connections with TLS, as copies that demand a certificate.
//!
//! Read as `hba.c` reads them (manual: "The pg_hba.conf File"): a backslash at the end of a line goes on with the next
//! one, `#` outside of quotes begins a comment, commas join words to a list.

use std::{fmt, net::IpAddr};

/// What is added to a line: any certificate of the server's CA will do, whoever its owner is.
const DEMAND: &str = " clientcert=verify-ca";

/// A line that cannot be copied with another demand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NotUnderstood {
    /// Counted from 1, in the part of the file that is not ours.
    line: usize,
    why: &'static str,
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of pg_hba.conf (not counting the block of dbssl) {}", self.line, self.why)
    }
}

/// The copies, in the order of the lines, without line ends.
pub(super) fn certified(text: &[u8]) -> Result<Vec<Vec<u8>>, NotUnderstood> {
    let mut copies = Vec::new();
    let mut lines = text.split(|byte| *byte == b'\n').enumerate();
    while let Some((at, first)) = lines.next() {
        let mut line = without_end(first).to_vec();
        while line.ends_with(b"\\") {
            line.pop();
            let Some((_, next)) = lines.next() else { break };
            line.extend_from_slice(without_end(next));
        }
        let refused = |why| NotUnderstood { line: at + 1, why };
        if line.contains(&b'\0') || line.contains(&b'\r') {
            return Err(refused("holds a control character"));
        }
        copies.extend(copy(&line).map_err(refused)?);
    }
    Ok(copies)
}

fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn copy(line: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let (fields, end) = fields(line)?;
    let Some(kind) = fields.first() else { return Ok(None) };
    match kind.text.as_slice() {
        b"local" | b"hostnossl" | b"hostgssenc" => return Ok(None),
        b"host" | b"hostssl" | b"hostnogssenc" => {}
        b"include" | b"include_if_exists" | b"include_dir" => {
            return Err("includes other files, whose lines would have to demand certificates, too");
        }
        _ => return Err("begins with a word that is not known"),
    }
    // Behind the address there may be a mask.
    let address = fields.get(3).map(|field| String::from_utf8_lossy(&field.text).into_owned());
    let has_mask = address.is_some_and(|address| address.parse::<IpAddr>().is_ok());
    let method = if has_mask { 5 } else { 4 };
    let Some(name) = fields.get(method) else { return Err("has no method") };
    let options = &fields[method + 1..];
    let demanded =
        options.iter().filter(|option| option.text.starts_with(b"clientcert=")).collect::<Vec<_>>();
    if demanded.iter().any(|option| {
        !matches!(
            option.text.as_slice(),
            b"clientcert=verify-ca" | b"clientcert=verify-full" | b"clientcert=1"
        )
    }) {
        return Err("says itself that clients need no certificate");
    }
    // The method `cert` demands one by itself, and PostgreSQL takes no weaker demand beside it.
    let demand = if demanded.is_empty() && name.text != b"cert" { DEMAND } else { "" };
    let rest = line[kind.end..end].trim_ascii();
    Ok(Some([b"hostssl ", rest, demand.as_bytes()].concat()))
}

struct Field {
    /// Without quotes.
    text: Vec<u8>,
    /// Where it ends in the line.
    end: usize,
}

/// The fields of a line, and where its comment begins.
fn fields(line: &[u8]) -> Result<(Vec<Field>, usize), &'static str> {
    let mut fields: Vec<Field> = Vec::new();
    let (mut at, mut joined) = (0, false);
    loop {
        while line.get(at).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',') {
            at += 1;
        }
        match line.get(at) {
            None | Some(b'#') => return Ok((fields, at)),
            Some(_) => {}
        }
        let (mut text, mut quoted) = (Vec::new(), false);
        while let Some(byte) = line.get(at) {
            match byte {
                b'"' => quoted = !quoted,
                _ if quoted => text.push(*byte),
                b',' | b'#' => break,
                _ if byte.is_ascii_whitespace() => break,
                _ => text.push(*byte),
            }
            at += 1;
        }
        if quoted {
            return Err("has a quote without an end");
        }
        match fields.last_mut().filter(|_| joined) {
            Some(list) => {
                list.text.extend([&b","[..], &text].concat());
                list.end = at;
            }
            None => fields.push(Field { text, end: at }),
        }
        joined = line.get(at) == Some(&b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<String> {
        let copies = certified(line.as_bytes()).unwrap();
        assert!(copies.len() < 2);
        copies.into_iter().next().map(|copy| String::from_utf8(copy).unwrap())
    }

    #[test]
    fn a_copy_says_what_the_line_says_and_demands_a_certificate() {
        for (line, rest) in [
            ("host all all all scram-sha-256", "all all all scram-sha-256 clientcert=verify-ca"),
            ("  hostssl\tall  all ::1/128 trust  # me", "all  all ::1/128 trust clientcert=verify-ca"),
            ("hostnogssenc all all samenet md5", "all all samenet md5 clientcert=verify-ca"),
            ("host a, b ,c 10.0.0.0 255.0.0.0 md5", "a, b ,c 10.0.0.0 255.0.0.0 md5 clientcert=verify-ca"),
            (
                "host \"a # b\" all db.example.com md5",
                "\"a # b\" all db.example.com md5 clientcert=verify-ca",
            ),
            ("host @dbs +staff all reject", "@dbs +staff all reject clientcert=verify-ca"),
            (
                "host all all all ldap ldapserver=\"x y\"",
                "all all all ldap ldapserver=\"x y\" clientcert=verify-ca",
            ),
            ("hostssl all all all cert map=m", "all all all cert map=m"),
            ("host all all 10.0.0.0 255.0.0.0 cert", "all all 10.0.0.0 255.0.0.0 cert"),
            ("hostssl all all all md5 clientcert=verify-full", "all all all md5 clientcert=verify-full"),
            ("hostssl all cert all md5", "all cert all md5 clientcert=verify-ca"),
            (
                "host replication all all \\\nscram-sha-256",
                "replication all all scram-sha-256 clientcert=verify-ca",
            ),
            ("host all all all \\\r\nmd5\r", "all all all md5 clientcert=verify-ca"),
        ] {
            assert_eq!(one(line), Some(format!("hostssl {rest}")), "{line}");
        }
        for line in [
            "",
            "  ",
            "# host all all all md5",
            "local all all trust",
            "hostnossl all all all md5",
            "# a \\\nhost x",
        ] {
            assert_eq!(one(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_copied_is_named() {
        for line in [
            "include other.conf",
            "include_dir d",
            "Host all all all md5",
            "hostssl all all all",
            "host all all 10.0.0.0 255.0.0.0",
            "host all \"all all md5",
            "hostssl all all all md5 clientcert=no-verify",
            "host all all all md5\0",
            "host all\rhost all all all md5",
        ] {
            let file = format!("# a\n\n{line}\n");
            let why = certified(file.as_bytes()).unwrap_err().to_string();
            assert!(why.starts_with("line 3 of pg_hba.conf"), "{line}: {why}");
        }
    }
}
