//! Names of certificates in the forms that servers compare with what their operators typed.

use super::der;

const SET: u8 = 0x31;
const OID: u8 = 0x06;

/// The attributes that OpenSSL knows by a short name and that occur in names of people's CAs, by their encoded OIDs.
const SHORT: [(&[u8], &str); 12] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "street"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

/// Kinds of text of which each byte is a character or, in UTF-8, a part of one: UTF8String, PrintableString, T61String,
/// IA5String. Of the others OpenSSL leaves bytes out.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// As `X509_NAME_oneline` writes it: `/O=a/CN=b`, bytes outside of printable ASCII as `\xHH`. `None` for what it writes
/// in a way that is not known here: sets of several attributes are joined differently from version to version.
pub(super) fn oneline(name: &[u8]) -> Option<String> {
    let mut text = String::new();
    let sets = attributes(name)?;
    if sets.iter().any(|set| set.len() != 1) {
        return None;
    }
    for (short, value) in sets.into_iter().flatten() {
        text.push_str(&format!("/{short}="));
        for byte in value {
            match byte {
                b' '..=b'~' => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\x{byte:02X}")),
            }
        }
    }
    Some(text)
}

/// By RFC 2253, and with every byte outside of ASCII escaped, as OpenSSL does by `XN_FLAG_RFC2253`: `CN=b,O=a`.
pub(super) fn rfc2253(name: &[u8]) -> Option<String> {
    let set = |attributes: Vec<(&str, Vec<u8>)>| {
        let pairs = attributes.iter().rev().map(|(short, value)| format!("{short}={}", escaped(value)));
        pairs.collect::<Vec<_>>().join("+")
    };
    let sets: Vec<String> = attributes(name)?.into_iter().rev().map(set).collect();
    Some(sets.join(","))
}

fn escaped(value: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in value.iter().enumerate() {
        let at_an_end = at == 0 || at + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b' ' if at_an_end => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
    text
}

/// Short names and values, set by set, in the encoded order.
type Sets = Vec<Vec<(&'static str, Vec<u8>)>>;

fn attributes(name: &[u8]) -> Option<Sets> {
    let mut sets = Vec::new();
    let (whole, _) = der::element(name).filter(|(whole, _)| whole.tag == der::SEQUENCE)?;
    let mut rest = whole.content;
    while !rest.is_empty() {
        let (set, more) = der::element(rest).filter(|(set, _)| set.tag == SET)?;
        rest = more;
        let (mut attributes, mut inner) = (Vec::new(), set.content);
        while !inner.is_empty() {
            let (pair, more) = der::element(inner)?;
            inner = more;
            let ([oid, value], _) = der::elements::<2>(pair.content)?;
            let short = SHORT.iter().find(|(known, _)| oid.tag == OID && *known == oid.content)?.1;
            if !TEXTS.contains(&value.tag) {
                return None;
            }
            attributes.push((short, value.content.to_vec()));
        }
        sets.push(attributes);
    }
    Some(sets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::tests::OpenSsl;

    /// What OpenSSL itself prints of the same name.
    #[test]
    fn names_are_written_as_openssl_writes_them() {
        let ssl = OpenSsl::new();
        for (at, subject) in [
            "/CN=app",
            "/DC=corp/DC=example/O=A, B \"C\" <d>;/OU=a/OU=b/CN=Root é",
            "/C=DE/ST=x/L=y/O=z/CN= padded #/emailAddress=a@example.com",
            "/O=a+OU=b/CN=#1/UID=u",
        ]
        .iter()
        .enumerate()
        {
            let file = format!("n{at}");
            let made = std::process::Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-utf8",
                ])
                .args(["-multivalue-rdn", "-subj", subject, "-keyout", "/dev/null", "-out"])
                .arg(ssl.path(&file))
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let certificate =
                crate::pki::read_pem(&std::fs::read(ssl.path(&file)).unwrap()).unwrap().remove(0);
            let printed = |option: &str| {
                let text = ssl.run(&format!("x509 -in {file} -noout -subject -nameopt {option}"));
                text.trim_end_matches('\n').strip_prefix("subject=").unwrap().to_owned()
            };
            let oneline = (!subject.contains('+')).then(|| printed("compat"));
            assert_eq!(certificate.subject_oneline(), oneline, "{subject}");
            assert_eq!(certificate.subject_rfc2253(), Some(printed("RFC2253")), "{subject}");
        }
    }

    #[test]
    fn what_is_no_name_or_holds_what_is_not_known_has_no_text() {
        for name in [&[][..], &[0x30], &[0x31, 0], &[0x30, 2, 0x31, 1], &[0x30, 4, 0x31, 2, 0x30, 0]] {
            assert_eq!((oneline(name), rfc2253(name)), (None, None), "{name:?}");
        }
        assert_eq!(oneline(&[0x30, 0]).as_deref(), Some(""));
        let bmp = [0x30, 13, 0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x1e, 2, 0, b'a'];
        assert_eq!(oneline(&bmp), None);
    }
}
