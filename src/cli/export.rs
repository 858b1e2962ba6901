//! `dbssl export`: what makes the wiring of a container its user's own.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};

use super::{named, print_exactly, world};
use crate::{
    agent::{
        act::prepare,
        observe::{Look, Subject, observe},
    },
    config::Settings,
    decide::{
        compose::{Fragment, by_hand, passwords},
        gates::Refusal,
        labels,
        names::COMPOSE_SERVICE,
        plan::Wiring,
    },
    engine::Enforcement,
    model::ContainerName,
};

/// Prints the fragment, and has the certificate directory ready before anybody can use it. Standard output is the file
/// and nothing else.
pub async fn export(settings: Settings, socket: &Path, name: &ContainerName) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    let subject = match observe(&world, named(&world.docker, &world.roots, name).await?).await? {
        Look::NotOurs => {
            bail!("container {name} is not labelled: set dbssl.enable=true on it, or match it in the config")
        }
        Look::Wrong(problems) => {
            bail!("the labels of container {name} are wrong: {}", labels::in_one_line(&problems))
        }
        Look::Unsuitable(why) => bail!("container {name}: {why}"),
        Look::Ours(subject) => subject,
    };
    let found = find(&subject);
    let labels = subject.inspect.labels();
    let fragment = Fragment {
        container: name.as_str(),
        service: subject.inspect.label(COMPOSE_SERVICE),
        mode: subject.observed.desired.mode,
        by_rules: subject.spec.enforcement() == Enforcement::Rules,
        source: &subject.certificates,
        target: subject.spec.certificate_directory(&subject.inside.command),
        selinux: world.engine.selinux,
        command: &subject.missing.command,
        healthcheck: found.healthcheck.as_deref(),
        labels: &labels,
        shortfall: subject.shortfall.as_deref(),
    };
    if let Some(why) = found.impossible {
        return Err(anyhow!(why).context(format!("container {name}")));
    }
    if prepare(&world, &subject).context("cannot make the certificate directory")? {
        say(&format!("issued a certificate: {}", subject.certificates.display()));
    }
    if let Some(why) = found.by_hand {
        print_exactly(&by_hand(&fragment, &why))?;
        say(&format!("container {name} has to be wired by hand: {why}"));
        return Ok(ExitCode::from(1));
    }
    for place in passwords(&fragment) {
        say(&format!("warning: {place} looks like a password, and it stands in this file"));
    }
    for refusal in &found.warnings {
        say(&format!("warning: when Compose recreates it: {refusal}"));
    }
    print_exactly(&fragment.to_string())?;
    let shortfalls = [
        ("plaintext is", &subject.shortfall),
        ("clients without a certificate are", &subject.open_to_strangers),
    ];
    let mut complete = true;
    for (who, why) in shortfalls {
        if let Some(why) = why {
            say(&format!("{who} not refused: {why}"));
            complete = false;
        }
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What stands in the way, and what differs from the user's own file.
#[derive(Default)]
struct Found {
    healthcheck: Option<Vec<String>>,
    by_hand: Option<String>,
    impossible: Option<String>,
    /// What forbids a recreation to us is for its user to decide.
    warnings: Vec<Refusal>,
}

fn find(subject: &Subject) -> Found {
    // Of a container that was recreated, the user's own file may still say another.
    let test = subject.inspect.healthcheck();
    let adapted = || subject.spec.is_adapted(&test, &subject.inside.command).then(|| test.clone());
    let healthcheck = subject.missing.healthcheck.clone().or_else(adapted);
    let mut found = Found { healthcheck, ..Found::default() };
    match &subject.observed.wiring {
        Wiring::Present | Wiring::Missing => {}
        Wiring::Foreign(flags) => {
            found.impossible = Some(format!("somebody else configured its TLS ({})", flags.join(" ")));
        }
        Wiring::Refused(refusals) => {
            for refusal in refusals {
                match refusal {
                    Refusal::Command { why } => found.by_hand = Some(why.clone()),
                    Refusal::Orchestrated { .. }
                    | Refusal::TargetTaken { .. }
                    | Refusal::NoNetwork
                    | Refusal::Rootless => found.impossible = Some(refusal.to_string()),
                    Refusal::AutoRemove
                    | Refusal::ImageGone { .. }
                    | Refusal::DataNotMounted { .. }
                    | Refusal::OwnLayer { .. }
                    | Refusal::BorrowsFrom { .. }
                    | Refusal::SourceMoved { .. }
                    | Refusal::Dependents { .. } => found.warnings.push(refusal.clone()),
                }
            }
        }
    }
    found
}

fn say(text: &str) {
    // Nobody to read it is no reason to fail.
    let _ = writeln!(io::stderr(), "dbssl: {text}");
}
