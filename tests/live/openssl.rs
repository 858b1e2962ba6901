//! Certificates that others made.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A root CA of ten days; once made it is there.
pub fn root(folder: &Path, name: &str, subject: &str) -> Pair {
    let pair = paths(folder, name);
    if !pair.certificate.exists() {
        let (key, certificate) = (pair.key.to_string_lossy(), pair.certificate.to_string_lossy());
        openssl(&[
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "10",
            ],
            &["-subj", subject, "-keyout", &key, "-out", &certificate][..],
            &["-addext", "basicConstraints=critical,CA:TRUE"],
            &["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        ]);
    }
    pair
}

/// A server's certificate that signs for itself.
pub fn leaf(folder: &Path, name: &str) -> Pair {
    let pair = paths(folder, name);
    let (key, certificate) = (pair.key.to_string_lossy(), pair.certificate.to_string_lossy());
    openssl(&[
        &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "10"],
        &["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate][..],
        &["-addext", &format!("subjectAltName=DNS:{name}")],
    ]);
    pair
}

/// The same as a database's user (uid 999) takes it: in a folder of that name that everybody may enter, the key for
/// that user alone.
pub fn leaf_of_999(parent: &Path, folder: &str, name: &str) -> (PathBuf, Pair) {
    let folder = parent.join(folder);
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder for everybody");
    let pair = leaf(&folder, name);
    for (file, mode) in [(&pair.key, 0o600), (&pair.certificate, 0o644)] {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("a mode");
        chown(file, Some(999), Some(999)).expect("an owner");
    }
    (folder, pair)
}

/// A folder as `dbssl client-cert` leaves it, with a client's certificate by this CA.
pub fn client(parent: &Path, folder: &str, ca: &Pair, user: &str) -> PathBuf {
    let folder = parent.join(folder);
    fs::create_dir(&folder).expect("a folder");
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (key, request, certificate, extensions) =
        (at("client.key"), at("request"), at("client.crt"), at("extensions"));
    fs::write(&extensions, "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n")
        .expect("a file");
    openssl(&[
        &["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"],
        &[&format!("/CN={user}"), "-keyout", &key, "-out", &request][..],
    ]);
    let (by, by_key) = (ca.certificate.to_string_lossy(), ca.key.to_string_lossy());
    openssl(&[
        &["x509", "-req", "-days", "10", "-in", &request, "-CA", &by, "-CAkey", &by_key, "-CAcreateserial"],
        &["-extfile", &extensions, "-out", &certificate][..],
    ]);
    let both = [fs::read(&certificate), fs::read(&key)].map(|file| file.expect("a file")).concat();
    fs::write(folder.join("client.pem"), both).expect("a file");
    folder
}

/// The day on which a certificate ends, as `2030-12-31`.
pub fn last_day(certificate: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"]).arg(certificate);
    let output = command.output().expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let day = text.trim().strip_prefix("notAfter=").and_then(|end| end.split(' ').next());
    day.unwrap_or_else(|| panic!("{output:?}")).to_owned()
}

/// A handshake of OpenSSL's own client, which trusts `ca` alone and asks for this name; what it said. `starttls`: the
/// protocol in front of TLS, if there is one.
pub fn verify(address: &str, starttls: Option<&str>, name: &str, ca: &Path) -> Result<String, String> {
    let mut client = Command::new("openssl");
    client.args([
        "s_client",
        "-brief",
        "-verify_return_error",
        "-connect",
        address,
        "-verify_hostname",
        name,
    ]);
    client.arg("-CAfile").arg(ca).stdin(std::process::Stdio::null());
    client.args(starttls.map(|protocol| ["-starttls", protocol]).iter().flatten());
    let output = client.output().expect("openssl is installed");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() && said.contains("Verification: OK") { Ok(said) } else { Err(said) }
}

fn paths(folder: &Path, name: &str) -> Pair {
    Pair { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
}

fn openssl(arguments: &[&[&str]]) {
    let output = Command::new("openssl").args(arguments.concat()).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

/// SHA-256 of the DER of a PEM certificate, in hexadecimal digits.
pub fn fingerprint(pem: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("openssl runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), pem.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("openssl ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.rsplit('=').next().unwrap_or_default().trim().replace(':', "").to_ascii_lowercase()
}
