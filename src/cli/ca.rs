//! `dbssl ca`: the CA as its operator sees it. What is changed is changed through the files that the agent watches, with
//! or without an agent running.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{print, print_as};
use crate::{
    config::Settings,
    decide::plan::minute,
    host::{
        bundle::TrustBundle,
        castore::{Authority, CaState, CaStore, KnownCa, Notice, Origin, Rules},
        certdir::CertDir,
        clock,
        csr::{self, Paper},
        files::{self, FileContent},
        lock,
    },
    pki::{self, Certificate, certificates_within, check_ca},
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show which CA is in force, and which are in coolify-ca.crt and why
    Show {
        /// The content of coolify-ca.crt
        #[arg(long, conflicts_with = "json")]
        pem: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the content of coolify-ca.crt to a new file
    Save { path: PathBuf },
    /// Have a new CA made, which replaces the one in force
    #[command(long_about = "Have a new CA made, which replaces the one in force, be it ours or yours.\n\n\
                      Every certificate is issued anew and taken up without a restart. Clients that know only the former CA \
                      are served until the overlap is over (certificates.ca-overlap, 7 days by default): until then they \
                      have to read coolify-ca.crt again.")]
    Regenerate {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Put a CA of your own in force
    #[command(
        long_about = "Put a CA of your own in force: the same as writing it to coolify-ca.crt, and its key to coolify-ca.key beside it, but checked before.\n\n\
                      Without its key it is trusted, and the CA in force goes on issuing."
    )]
    Import {
        /// One or more PEM certificates: the CA first, then what stands above it up to its root
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// Its private key: PKCS#8, SEC 1 or PKCS#1, not encrypted
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Put the last coolify-ca.crt that was of use in the place of the one that is there
    Restore,
    /// Show which CAs came, were in force and went
    History {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn ca(settings: &Settings, host_name: &str, verb: Verb) -> anyhow::Result<ExitCode> {
    let rules = Rules::new(&settings.certificates, host_name);
    match verb {
        Verb::Show { pem: true, .. } => io::stdout().write_all(&bundle(settings)?)?,
        Verb::Show { json, .. } => {
            let shown = Shown::of(settings, &rules)?;
            print_as(json, &if json { shown.json()? } else { shown.text() })?;
        }
        Verb::Save { path } => {
            let bundle = bundle(settings)?;
            without_a_key(&settings.roots.bundle(), &bundle)?;
            files::create(&path, FileContent::Public(&bundle), 0o644, None)
                .with_context(|| format!("{} is not written over", path.display()))?;
        }
        Verb::Regenerate { yes } => {
            if !CaStore::open(settings.roots.ca_store()).exists()? {
                bail!(no_ca(settings));
            }
            if !yes && !agreed()? {
                bail!("nothing was changed");
            }
            done(settings, &CaStore::regenerate(&settings.roots, &rules, clock::now())?)?;
        }
        Verb::Import { cert, key } => {
            let certificates = read(&cert)?;
            let key = key.as_deref().map(read).transpose()?;
            let (upload, now) = (certificates.content.expose(), clock::now());
            let authority =
                CaStore::import(&settings.roots, &rules, upload, key.as_ref().map(|key| &key.content), now)?;
            done(settings, &authority)?;
        }
        Verb::Restore => {
            let (authority, moved) = CaStore::restore(&settings.roots, &rules, clock::now())?;
            if let Some(moved) = moved {
                print(&format!("what was there is {} now\n", moved.display()))?;
            }
            print(&format!("{} holds the last bundle that was of use\n", settings.roots.bundle().display()))?;
            done(settings, &authority)?;
        }
        Verb::History { json } => print_as(json, &history(settings, json)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The content of `coolify-ca.crt`.
fn bundle(settings: &Settings) -> anyhow::Result<Vec<u8>> {
    let path = settings.roots.bundle();
    let held = TrustBundle::open(path.clone()).read()?;
    held.with_context(|| {
        format!("there is no {}: start the agent first (systemctl start dbssl)", path.display())
    })
}

/// Refuses a trust bundle with a private key in it: a copy is for everybody to read.
pub(super) fn without_a_key(path: &Path, bundle: &[u8]) -> anyhow::Result<()> {
    if pki::holds_private_key(bundle) {
        bail!(
            "{} holds a private key, and would be copied with it: take the PRIVATE KEY block out of that file, and consider the key known to others",
            path.display()
        );
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<files::Found> {
    files::read(path)?.with_context(|| format!("there is no file {}", path.display()))
}

fn in_force(settings: &Settings, rules: &Rules<'_>) -> anyhow::Result<Authority> {
    CaStore::current(&settings.roots, rules, clock::now())?.with_context(|| no_ca(settings))
}

pub(super) fn no_ca(settings: &Settings) -> String {
    format!(
        "no CA in {} yet: start the agent first (systemctl start dbssl), or name its folders with --state-dir and --data-dir",
        settings.roots.ca_store().display()
    )
}

fn agreed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("this replaces the CA of every database here; nobody can be asked, so say --yes");
    }
    write!(io::stderr(), "This replaces the CA of every database here. Go on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What a change came to, and what happens next.
fn done(settings: &Settings, authority: &Authority) -> anyhow::Result<()> {
    for notice in &authority.notices {
        if notice.is_warning() {
            writeln!(io::stderr(), "warning: {notice}")?;
        } else {
            print(&format!("{notice}\n"))?;
        }
    }
    let changed = |notice: &Notice| {
        matches!(notice, Notice::Generated { .. } | Notice::Imported { .. } | Notice::Returned { .. })
    };
    if authority.notices.iter().any(changed) {
        let held = lock::is_held(&settings.roots);
        print(if held.context("this is done, but whether an agent runs is not known")? {
            "the agent issues all certificates anew now; dbssl ca show tells when it is proved\n"
        } else {
            "no agent runs: the next one issues all certificates anew (systemctl start dbssl)\n"
        })?;
    }
    Ok(())
}

struct Shown {
    authority: Authority,
    known: Vec<KnownCa>,
    held: Vec<Certificate>,
    path: PathBuf,
    external: Vec<External>,
    now: OffsetDateTime,
}

/// A database whose certificate somebody else signed, or is to sign.
struct External {
    container: String,
    /// Who signed what lies in its directory, and until when it is valid.
    signed: Option<(String, OffsetDateTime)>,
    /// What has to be run where the CA's key is.
    command: Option<String>,
}

/// Why a certificate is in the bundle.
enum Role<'a> {
    Issuing,
    Former(&'a KnownCa),
    Yours,
    Unusable(String),
}

impl Shown {
    fn of(settings: &Settings, rules: &Rules<'_>) -> anyhow::Result<Self> {
        let authority = in_force(settings, rules)?;
        Ok(Self {
            external: external(settings, &authority),
            authority,
            known: CaStore::all(&settings.roots, rules.overlap)?,
            held: certificates_within(&bundle(settings)?),
            path: settings.roots.bundle(),
            now: clock::now(),
        })
    }

    fn issuing(&self) -> Option<&KnownCa> {
        self.known.iter().find(|known| known.state == CaState::Issuing)
    }

    fn role(&self, certificate: &Certificate) -> Role<'_> {
        let of = |state| {
            self.known.iter().find(|known| known.state == state && known.certificates.contains(certificate))
        };
        match (of(CaState::Issuing), of(CaState::Trusted), check_ca(certificate, self.now)) {
            (Some(_), ..) => Role::Issuing,
            (None, Some(known), _) => Role::Former(known),
            (None, None, Ok(_)) => Role::Yours,
            (None, None, Err(flaw)) => Role::Unusable(flaw.to_string()),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let issuing = self.authority.issuing.certificate();
        let _ = writeln!(text, "in force    {}", issuing.subject());
        if let Some(known) = self.issuing() {
            let _ = writeln!(
                text,
                "            {}{}",
                origin(known.origin),
                known.since.map_or_else(String::new, |since| format!(", since {}", minute(since)))
            );
            let proved = match known.proved {
                Some(proved) => {
                    format!("every database was seen serving its certificates at {}", minute(proved))
                }
                None => "not every database has been seen serving its certificates yet".to_owned(),
            };
            let _ = writeln!(text, "            {proved}");
        }
        let _ = writeln!(text, "valid until {}", minute(issuing.not_after()));
        let _ = writeln!(text, "SHA-256     {}", issuing.fingerprint_hex());
        let _ = writeln!(text, "\n{} holds", self.path.display());
        for certificate in &self.held {
            let why = match self.role(certificate) {
                Role::Issuing => "in force".to_owned(),
                Role::Former(known) => format!(
                    "former CA, in the bundle until {} at least, for clients that know only this one",
                    known.overlap_ends.map_or_else(String::new, minute)
                ),
                Role::Yours => "yours, without its key here: trusted, it does not issue".to_owned(),
                Role::Unusable(flaw) => format!("of no use as a CA: {flaw}"),
            };
            let _ = writeln!(
                text,
                "  {}\n    {why}\n    valid until {}, SHA-256 {}",
                certificate.subject(),
                minute(certificate.not_after()),
                certificate.fingerprint_hex()
            );
        }
        if !self.external.is_empty() {
            let _ = writeln!(text, "\nexternal: certificates that somebody else signs");
        }
        for external in &self.external {
            let _ = writeln!(text, "  {}", external.container);
            if let Some((signer, end)) = &external.signed {
                let _ = writeln!(text, "    signed by {signer}, valid until {}", minute(*end));
            }
            if let Some(command) = &external.command {
                let _ = writeln!(text, "    awaited: {command}");
            }
        }
        for notice in self.authority.notices.iter().filter(|notice| notice.is_warning()) {
            let _ = writeln!(text, "\nwarning: {notice}");
        }
        text
    }

    fn json(&self) -> anyhow::Result<String> {
        let bundle: Vec<_> = self
            .held
            .iter()
            .map(|certificate| {
                let (role, until, why) = match self.role(certificate) {
                    Role::Issuing => ("issuing", None, None),
                    Role::Former(known) => ("former", known.overlap_ends, None),
                    Role::Yours => ("trusted", None, None),
                    Role::Unusable(flaw) => ("unusable", None, Some(flaw)),
                };
                json!({
                    "subject": certificate.subject(),
                    "role": role,
                    "overlap_ends": until.and_then(stamp),
                    "why": why,
                    "valid_until": stamp(certificate.not_after()),
                    "sha256": certificate.fingerprint_hex(),
                })
            })
            .collect();
        let issuing = self.authority.issuing.certificate();
        let known = self.issuing();
        let shown = json!({
            "issuing": {
                "id": self.authority.issuing.id().as_str(),
                "subject": issuing.subject(),
                "origin": known.map(|known| known.origin),
                "since": known.and_then(|known| stamp(known.since?)),
                "proved": known.and_then(|known| stamp(known.proved?)),
                "valid_until": stamp(issuing.not_after()),
                "sha256": issuing.fingerprint_hex(),
            },
            "path": self.path,
            "bundle": bundle,
            "external": self.external.iter().map(External::json).collect::<Vec<_>>(),
            "warnings": self.authority.notices.iter().filter(|notice| notice.is_warning()).map(ToString::to_string).collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&shown)? + "\n")
    }
}

impl External {
    fn json(&self) -> serde_json::Value {
        let signed = self.signed.as_ref();
        json!({
            "container": self.container,
            "signed_by": signed.map(|(signer, _)| signer),
            "valid_until": signed.and_then(|(_, end)| stamp(*end)),
            "awaited": self.command,
        })
    }
}

fn external(settings: &Settings, authority: &Authority) -> Vec<External> {
    let roots = &settings.roots;
    let mut found = BTreeMap::new();
    for directory in CertDir::all(&roots.databases()) {
        let chains = directory.contents().into_iter().map(|file| certificates_within(file.expose()));
        let chain = chains.into_iter().find(|chain| authority.uploaded.signed(chain));
        let name = directory.path().file_name().map(|name| name.to_string_lossy().into_owned());
        if let (Some(name), Some([leaf, ..])) = (name, chain.as_deref()) {
            found.insert(name, (Some((leaf.issuer().to_owned(), leaf.not_after())), None));
        }
    }
    for name in csr::awaited(roots) {
        let command = Paper::of(roots, &name).map(|paper| paper.command());
        found.entry(name.to_string()).or_default().1 = command;
    }
    found.into_iter().map(|(container, (signed, command))| External { container, signed, command }).collect()
}

/// What became of CAs; leaves are left out.
fn history(settings: &Settings, json: bool) -> anyhow::Result<String> {
    let records = CaStore::history(&settings.roots)?;
    let records: Vec<_> = records
        .into_iter()
        .filter(|record| record["what"].as_str().is_some_and(|what| what.starts_with("ca-")))
        .collect();
    if json {
        return Ok(serde_json::to_string_pretty(&records)? + "\n");
    }
    let mut text = String::new();
    for record in &records {
        let part = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let time = OffsetDateTime::parse(&part("time"), &Rfc3339).map_or_else(|_| part("time"), minute);
        let _ = writeln!(
            text,
            "{time}  {:12}  {}  SHA-256 {}",
            part("what").trim_start_matches("ca-"),
            part("subject"),
            part("sha256")
        );
    }
    Ok(text)
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Generated => "made by dbssl",
        Origin::Imported => "yours",
    }
}

fn stamp(time: OffsetDateTime) -> Option<String> {
    time.format(&Rfc3339).ok()
}
