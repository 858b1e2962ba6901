//! Certificates that others made.

use std::{
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

fn paths(folder: &Path, name: &str) -> Pair {
    Pair { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
}

fn openssl(arguments: &[&[&str]]) {
    let output = Command::new("openssl").args(arguments.concat()).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}
