//! `dbssl url`: what a client is to connect with. The string alone is on standard output, everything else that is to
//! be known on standard error, so that `$(dbssl url NAME)` is the string.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::anyhow;

use super::{database, named};
use crate::{
    config::Settings,
    decide::{
        names::certificate_names,
        place::{self, Place, Question, endpoint},
    },
    engine::{
        self, Demand, Wired,
        url::{self, Driver, Target, account::account},
    },
    host::docker::Docker,
    model::{ContainerName, Mode},
};

/// Where the trust bundle is in an application's container.
const CA_IN_CONTAINERS: &str = "/etc/ssl/certs/coolify-ca.crt";
/// Where a client on another machine has put it.
const CA_ELSEWHERE: &str = "./coolify-ca.crt";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    name: ContainerName,
    /// What the client insists on: allow, prefer, require, verify-ca, verify-full [default: the container's own mode]
    #[arg(long)]
    mode: Option<Mode>,
    /// Where the client is: container (on the same network), host (on this server), public (on another machine)
    #[arg(long, default_value_t, value_name = "PLACE")]
    from: Place,
    /// Which client: libpq, jdbc, node, python, go, cli [default: libpq for PostgreSQL, else cli]
    #[arg(long)]
    driver: Option<Driver>,
    /// Print the password, if the container's environment or command holds it
    #[arg(long)]
    show_password: bool,
}

/// Needs neither the agent nor a CA: what is printed follows from the container and the config.
pub async fn url(settings: &Settings, socket: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.name;
    let docker = Docker::connect(socket).await?;
    let inspect = named(&docker, &settings.roots, name).await?;
    let (desired, engine) = database(&docker, settings, &inspect).await?;
    let (spec, command) = (engine::spec(engine), inspect.words());

    let driver = arguments.driver.unwrap_or(Driver::usual(engine));
    let mode = arguments.mode.unwrap_or(desired.mode);
    let environment = inspect.environment();
    // Those that its certificate carries once the agent has seen it as it is now.
    let names = certificate_names(&inspect, &desired.names, &settings.host_names).sans;
    let effective = url::effective(engine, driver, mode);
    let found = endpoint(
        arguments.from,
        &Question {
            inspect: &inspect,
            tls_port: spec.port(&command, &environment),
            plaintext_port: spec.plaintext_port(&command, &environment),
            names: &names,
            public_names: &place::public_names(&settings.host_names, &desired.names),
            takes_address: url::takes_address(engine, driver),
            checks_name: effective == Some(Mode::VerifyFull),
            refuses_underscores: driver == Driver::Jdbc,
        },
    );
    let bundle = settings.roots.bundle();
    let bundle = bundle.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", bundle.display()))?;
    let ca = match arguments.from {
        Place::Container => CA_IN_CONTAINERS,
        Place::Host => bundle,
        Place::Public => CA_ELSEWHERE,
    };
    let account = account(engine, &environment, &command);
    // Whether there is such a client is told first: it is what the arguments say.
    let target = |host, address, port| {
        let show_password = arguments.show_password;
        url::text(engine, &Target { driver, mode, host, address, port, ca, account: &account, show_password })
    };
    target("", None, 0)?;
    let found = found.map_err(|why| anyhow!("no way to {name} from {}: {why}", arguments.from))?;
    let mut text = target(&found.host, found.address, found.port)?;

    text.notes.extend(found.note.map(str::to_owned));
    if effective.is_some_and(|mode| mode >= Mode::VerifyCa) {
        text.notes.extend(how_the_ca_gets_there(arguments.from, bundle));
    }
    let demand = Demand { mode: desired.mode, client_auth: desired.client_auth };
    if demand.requires_certificates() {
        text.notes.push(format!("it demands a certificate of its clients: see dbssl client-cert {name}"));
    }
    // For another mode, perhaps: its health check may not allow what was asked for.
    match spec.wired(&command, demand) {
        _ if spec.is_wired(&command) => {}
        Wired::Ours | Wired::Absent => {
            text.notes.push(format!("it has no TLS by dbssl yet: see dbssl status, or dbssl apply {name}"));
        }
        Wired::Foreign(_) | Wired::Conflict(_) => {
            text.notes.push(format!("its TLS is not dbssl's: see dbssl plan {name}"));
        }
    }
    writeln!(io::stdout(), "{}", text.line)?;
    for note in &text.notes {
        writeln!(io::stderr(), "# {note}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn how_the_ca_gets_there(place: Place, bundle: &str) -> Option<String> {
    match place {
        Place::Container => {
            Some(format!("mount the CA into the application's container: {bundle}:{CA_IN_CONTAINERS}:ro"))
        }
        Place::Host => None,
        Place::Public => {
            Some(format!("copy the CA from this server first: scp SERVER:{bundle} {CA_ELSEWHERE}"))
        }
    }
}
