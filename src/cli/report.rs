//! One container of ours as the verbs show it: what was asked for, what is served, what would be done.

use serde::Serialize;
use serde_json::json;

use super::clients::Client;
use crate::{
    agent::{
        external,
        observe::{Look, Subject, observe},
        world::World,
    },
    decide::{
        labels,
        plan::{Plaintext, Plan, Serving, Strangers, Wait, plan},
    },
    host::{clock, docker::DockerError, setbacks},
    model::{ClientAuth, ContainerName, Engine, Mode, inspect::Inspect},
};

/// How a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It serves what it should, verified just now.
    Proved,
    /// Something is to be done, or awaited.
    Pending,
    /// TLS works, but the mode's demand to refuse plaintext is not met.
    Unenforced,
    /// Somebody else configured its TLS.
    Foreign,
    /// Nothing can be done with it as it is.
    Refused,
    /// Its labels are wrong.
    Mislabelled,
}

impl Standing {
    const fn word(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Pending => "pending",
            Self::Unenforced => "unenforced",
            Self::Foreign => "foreign",
            Self::Refused => "refused",
            Self::Mislabelled => "mislabelled",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub container: String,
    pub engine: Option<Engine>,
    pub mode: Option<Mode>,
    pub standing: Standing,
    /// What would be done, or why nothing is.
    pub plan: String,
    /// The served leaf's end, RFC 3339 date.
    pub valid_until: Option<String>,
    /// SHA-256 of the served leaf, in hexadecimal.
    pub fingerprint: Option<String>,
    pub names: Vec<String>,
    /// `refused`, `accepted`, or nothing where it was not looked at.
    pub plaintext: Option<&'static str>,
    pub client_auth: Option<ClientAuth>,
    /// Clients without a certificate of their own: likewise, and looked at only where they are to be refused.
    pub without_certificate: Option<&'static str>,
    /// How far it is with a certificate that somebody else signs; nothing where nobody is to.
    pub external: Option<String>,
    /// The same in words, with what is to be done.
    pub external_note: Option<String>,
    /// Why the last redeploy was rolled back, and when the next one may begin.
    pub setback: Option<String>,
}

impl Report {
    pub fn is_proved(&self) -> bool {
        self.standing == Standing::Proved
    }
}

/// One of which nothing is known but that a redeploy of it is under way.
pub fn under_way(name: &ContainerName) -> Report {
    blank(name, Standing::Pending, "a redeploy of it is under way".to_owned())
}

fn blank(name: &ContainerName, standing: Standing, plan: String) -> Report {
    Report {
        container: name.to_string(),
        engine: None,
        mode: None,
        standing,
        plan,
        valid_until: None,
        fingerprint: None,
        names: Vec::new(),
        plaintext: None,
        client_auth: None,
        without_certificate: None,
        external: None,
        external_note: None,
        setback: None,
    }
}

/// Looks at the container; `None` if it is none of ours.
pub async fn of(world: &World, inspect: Inspect) -> Result<Option<Report>, DockerError> {
    let (name, id) = (inspect.name().clone(), inspect.id().clone());
    let blank = |standing, plan| blank(&name, standing, plan);
    let mut report = match observe(world, inspect).await? {
        Look::NotOurs => return Ok(None),
        Look::Wrong(problems) => blank(Standing::Mislabelled, labels::in_one_line(&problems)),
        Look::Unsuitable(why) => blank(Standing::Refused, why),
        Look::Ours(subject) => {
            let mut report = of_subject(&subject, blank(Standing::Pending, String::new()));
            if let Some((standing, note)) = external::told(world, &name, &subject.observed.external) {
                (report.external, report.external_note) = (Some(standing.to_string()), Some(note));
            }
            report
        }
    };
    report.setback = setbacks::read(&world.roots.state, &name).map(|setback| {
        let at = |time: time::OffsetDateTime| time.replace_nanosecond(0).unwrap_or(time);
        format!("{} (at {}, next try {})", setback.why, at(setback.at), at(setback.retry_at(&id)))
    });
    Ok(Some(report))
}

fn of_subject(subject: &Subject, blank: Report) -> Report {
    let observed = &subject.observed;
    let plan = plan(observed, observed.desired.redeploy, clock::now());
    let standing = match &plan {
        Plan::Settled { .. } => Standing::Proved,
        Plan::NotEnforced(_) => Standing::Unenforced,
        Plan::Foreign(_) => Standing::Foreign,
        Plan::Refuse(_) => Standing::Refused,
        Plan::Act(_) | Plan::Wait { .. } => Standing::Pending,
    };
    let leaf = match &observed.serving {
        Serving::Tls { chain, .. } => chain.first(),
        _ => None,
    };
    Report {
        engine: Some(subject.spec.engine()),
        mode: Some(observed.desired.mode),
        standing,
        plan: match &plan {
            Plan::Wait { pending, why: Wait::Life(life) } if pending.is_empty() => life.to_string(),
            plan => plan.to_string(),
        },
        valid_until: leaf.map(|leaf| leaf.not_after().date().to_string()),
        fingerprint: leaf.map(crate::pki::Certificate::fingerprint_hex),
        names: leaf.map(|leaf| leaf.sans().iter().map(ToString::to_string).collect()).unwrap_or_default(),
        plaintext: match observed.plaintext {
            Plaintext::Accepted => Some("accepted"),
            Plaintext::Refused { .. } => Some("refused"),
            Plaintext::NotLooked | Plaintext::Unknown(_) => None,
        },
        client_auth: Some(observed.desired.client_auth),
        without_certificate: match observed.strangers {
            Strangers::Accepted => Some("accepted"),
            Strangers::Refused { .. } | Strangers::RefusedWithoutNeed => Some("refused"),
            Strangers::NotLooked | Strangers::Unknown(_) => None,
        },
        ..blank
    }
}

/// Columns for a terminal; what is not proved is explained below them.
pub fn table(reports: &[Report]) -> String {
    if reports.is_empty() {
        return "no container is labelled: set dbssl.enable=true on a database, or match it in the config\n"
            .to_owned();
    }
    let mut rows =
        vec![["CONTAINER", "ENGINE", "MODE", "STATE", "PLAINTEXT", "VALID UNTIL"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        [
            report.container.clone(),
            report.engine.map_or_else(dash, |engine| engine.to_string()),
            report.mode.map_or_else(dash, |mode| mode.to_string()),
            report.standing.word().to_owned(),
            report.plaintext.map_or_else(dash, str::to_owned),
            report.valid_until.clone().unwrap_or_else(dash),
        ]
    }));
    let mut text = columns(&rows);
    for report in reports.iter().filter(|report| !report.is_proved()) {
        text.push_str(&format!("\n{}: {}\n", report.container, report.plan));
        if let Some(setback) = &report.setback {
            text.push_str(&format!("{}: the last redeploy failed: {setback}\n", report.container));
        }
    }
    for report in reports {
        if let (Some(external), Some(note)) = (&report.external, &report.external_note) {
            text.push_str(&format!("\n{}: external, {external}: {note}\n", report.container));
        }
    }
    text
}

/// One line for each container: what would be done and why.
pub fn plans(reports: &[Report]) -> String {
    if reports.is_empty() {
        return table(reports);
    }
    reports.iter().map(|report| format!("{}: {}\n", report.container, report.plan)).collect()
}

/// All that is known of one container, a line each.
pub fn detail(report: &Report) -> String {
    let mut rows = vec![
        ["container".to_owned(), report.container.clone()],
        ["state".to_owned(), report.standing.word().to_owned()],
        ["plan".to_owned(), report.plan.clone()],
    ];
    let mut more = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push([key.to_owned(), value]);
        }
    };
    more("engine", report.engine.map(|engine| engine.to_string()));
    more("mode", report.mode.map(|mode| mode.to_string()));
    more("plaintext", report.plaintext.map(str::to_owned));
    let asked = report.client_auth.filter(|asked| *asked != ClientAuth::None);
    more("client certificate", asked.map(|asked| asked.to_string()));
    more("without certificate", report.without_certificate.map(str::to_owned));
    more("valid until", report.valid_until.clone());
    more("names", (!report.names.is_empty()).then(|| report.names.join(", ")));
    more("sha256", report.fingerprint.clone());
    let external = report.external.as_ref().zip(report.external_note.as_ref());
    more("external", external.map(|(external, note)| format!("{external}: {note}")));
    more("last setback", report.setback.clone());
    columns(&rows)
}

/// `{"containers": […]}`, a list for machines, and `"clients": […]` if there are any.
pub fn json(reports: &[Report], clients: &[Client]) -> Result<String, serde_json::Error> {
    let mut all = json!({ "containers": reports });
    if !clients.is_empty() {
        all["clients"] = json!(clients);
    }
    Ok(format!("{}\n", serde_json::to_string_pretty(&all)?))
}

fn dash() -> String {
    "-".to_owned()
}

pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> =
        (0..N).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
