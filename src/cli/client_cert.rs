//! `dbssl client-cert`: a certificate by which a client shows a database who it is. The key is made here and is in the
//! folder alone; whether the agent runs is of no account.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow};

use super::{ca, database, named, print, world};
use crate::{
    config::Settings,
    engine::{
        self,
        client_cert::{Issued, advice, organization},
    },
    host::{
        castore::{Audited, CaStore},
        clock,
        files::{self, FileContent},
        handout,
    },
    model::{ContainerName, Secret},
    pki::{Certificate, ClientRequest},
};

const NAMES: [&str; 4] = ["client.key", "client.pem", "client.crt", "coolify-ca.crt"];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    name: ContainerName,
    /// The database user that the certificate is for: its common name
    #[arg(long)]
    user: String,
    /// Folder for client.crt, client.key, client.pem (both) and coolify-ca.crt; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// How long it is valid, such as 12h or 365d; never longer than the CA. It is not renewed by itself
    #[arg(long, default_value = "90d", value_parser = lifetime)]
    lifetime: Duration,
    /// Replace files of these names
    #[arg(long)]
    force: bool,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    const ALLOWED: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(60)..=Duration::from_secs(3650 * 86_400);
    let duration = humantime::parse_duration(text).ok().filter(|duration| ALLOWED.contains(duration));
    duration.ok_or_else(|| "allowed: a duration such as \"12h\" or \"90d\", 1m to 3650d".to_owned())
}

pub async fn client_cert(
    settings: Settings,
    socket: &Path,
    arguments: &Arguments,
) -> anyhow::Result<ExitCode> {
    let name = &arguments.name;
    let world = world(settings, socket).await?;
    let inspect = named(&world.docker, &world.roots, name).await?;
    let (desired, engine) = database(&world.docker, &world.settings, &inspect).await?;
    let bundle = trust_bundle(&world.roots.bundle())?;

    // Before there is a certificate that nobody has.
    handout::prepare(&arguments.out, &NAMES, arguments.force)?;
    let (authority, now) = (world.authority(), clock::now());
    let request = ClientRequest {
        user: &arguments.user,
        organization: organization(engine),
        key_type: world.settings.certificates.key_type,
        lifetime: arguments.lifetime.try_into().context("--lifetime")?,
    };
    let leaf = authority.issue_client(&request, now)?;
    CaStore::open(world.roots.ca_store()).audit(Audited::ClientIssued, &leaf.certificate, now)?;
    let chain: String =
        std::iter::once(&leaf.certificate).chain(&leaf.chain).map(Certificate::to_pem).collect();
    let both = Secret::new([chain.as_bytes(), leaf.key.expose()].concat());
    let pieces = [
        (NAMES[0], FileContent::Secret(&leaf.key), 0o600),
        (NAMES[1], FileContent::Secret(&both), 0o600),
        (NAMES[2], FileContent::Public(chain.as_bytes()), 0o644),
        (NAMES[3], FileContent::Secret(&bundle), 0o644),
    ];
    handout::write(&arguments.out, &pieces, arguments.force)?;

    let folder = std::path::absolute(&arguments.out)?;
    let (subject, issuer) = (leaf.certificate.subject_oneline(), leaf.certificate.issuer_oneline());
    let subject_rfc2253 = leaf.certificate.subject_rfc2253();
    let (spec, command) = (engine::spec(engine), inspect.words());
    let issued = Issued {
        user: &arguments.user,
        host: name.as_str(),
        port: spec.port(&command, &inspect.environment()),
        folder: folder.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", folder.display()))?,
        client_auth: desired.client_auth,
        subject: subject.as_deref(),
        issuer: issuer.as_deref(),
        subject_rfc2253: subject_rfc2253.as_deref(),
    };
    print(&format!(
        "issued for {}, valid until {}: {}/client.crt, client.key, client.pem (both), coolify-ca.crt\n{}",
        arguments.user,
        leaf.certificate.not_after().date(),
        issued.folder,
        advice(engine, &issued)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What is handed out beside the certificate, for everybody to read.
fn trust_bundle(path: &Path) -> anyhow::Result<Secret> {
    let found = files::read(path)?.with_context(|| format!("{} is not there", path.display()))?;
    ca::without_a_key(path, found.content.expose())?;
    Ok(found.content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_in_the_trust_bundle_is_not_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coolify-ca.crt");
        let refused = || trust_bundle(&path).err().map(|why| why.to_string()).unwrap_or_default();
        assert!(refused().ends_with("coolify-ca.crt is not there"), "{}", refused());

        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(certificate);
        assert!(trust_bundle(&path).is_ok_and(|bundle| bundle.expose() == certificate.as_bytes()));
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
            write(&format!("{certificate}-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n"));
            assert!(refused().contains("coolify-ca.crt holds a private key"), "{label}: {}", refused());
            assert!(refused().contains("take the PRIVATE KEY block out"), "{}", refused());
        }
    }
}
