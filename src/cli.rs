//! The verbs. Each is a function from arguments to an exit code; what they print is for people, or JSON.

mod ca;
mod client_cert;
mod clients;
mod export;
mod report;
mod url;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use self::{clients::Client, report::Report};
use crate::{
    agent::{
        candidate,
        observe::{Look, detect, observe},
        reconcile::{Memory, reconcile},
        run::run,
        settle,
        world::World,
    },
    config::{self, Format, LoadError, Settings},
    decide::{
        labels::{self, Reading},
        matching,
    },
    host::{
        castore::{CaStore, Notice, Rules},
        clock,
        docker::Docker,
        journal::{self, PARKED},
        lock::{self, Lock, LockError},
        requests,
        systemd::{self, Notifier},
    },
    logging,
    model::{
        ContainerName, Desired, Engine, Roots,
        inspect::{Inspect, State},
    },
    shown,
};

/// Where the config is unless `--config` says otherwise; may be absent there.
const CONFIG: &str = "/etc/dbssl/dbssl.toml";

/// How often `apply` looks whether the agent is done.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// A pause of that length says that something is only starting.
const SOON: Duration = Duration::from_secs(5);

/// Gives labelled database containers TLS that their clients can verify.
#[derive(Debug, Parser)]
#[command(name = "dbssl", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, and all is well; 1 something is not; 2 it could not be found out, or the arguments are wrong."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Common {
    /// Config file; every key is optional [default: /etc/dbssl/dbssl.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of coolify-ca.crt, in place of the config's
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Folder of the CA store, the certificate directories and the journal, in place of the config's
    #[arg(long, global = true, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// How log lines look, in place of the config's
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent until it is told to stop
    Run,
    /// Show every container that is labelled or matched in the config, and what it serves
    #[command(
        after_help = "Exit codes: 0 every one is proved; 1 some are not, your CA ends soon, or no agent runs; 2 it could not be found out."
    )]
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what would be done and why; change nothing
    Plan {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Only this container
        name: Option<ContainerName>,
    },
    /// Probe a container now, as a client of its mode would
    #[command(after_help = "Exit codes: 0 it is proved; 1 it is not; 2 it cannot be told.")]
    Verify { name: ContainerName },
    /// Do now what is pending for a container, also what dbssl.redeploy holds back
    Apply { name: ContainerName },
    /// Print what a client connects with: a URL, a DSN or a command, for its place and its driver
    #[command(
        after_help = "The string is on standard output, what else is to be known on standard error.\nExit codes: 0 it is printed; 2 there is no such way or no such driver, or it cannot be told."
    )]
    Url(url::Arguments),
    /// Issue a certificate for a client of a database, to show who it is
    #[command(
        name = "client-cert",
        after_help = "Needs to read the CA's key, so to run as root; the files belong to whoever runs it.\nExit codes: 0 it is issued; 2 it is not."
    )]
    ClientCert(client_cert::Arguments),
    /// Print the Compose file that gives a container its wiring, so that it need not be recreated
    #[command(
        long_about = "Print the Compose file that gives a container its wiring, so that it need not be recreated.\n\n\
                      Put it over your own: dbssl export NAME > compose.tls.yaml, then \
                      docker compose -f compose.yaml -f compose.tls.yaml up -d. The certificate is issued if there is \
                      none yet; the container may be one that has never been started (docker compose create).",
        after_help = "Exit codes: 0 it is complete; 1 something has to be done by hand; 2 it cannot be told."
    )]
    Export { name: ContainerName },
    /// Show, save, replace or restore the CA
    #[command(subcommand)]
    Ca(ca::Verb),
    /// Check the config file
    CheckConfig,
}

/// The process's environment as far as it matters, read once by `main`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub docker_host: Option<OsString>,
    pub logging: logging::Environment,
    pub systemd: systemd::Environment,
}

/// Runs the program: arguments in, exit code out.
pub fn main(arguments: impl Iterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failure; clap prints them to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match execute(arguments, environment) {
        Ok(code) => code,
        Err(error) => {
            let denied = |cause: &(dyn std::error::Error + 'static)| {
                cause
                    .downcast_ref::<io::Error>()
                    .is_some_and(|why| why.kind() == io::ErrorKind::PermissionDenied)
            };
            let hint = if error.chain().any(denied) && !rustix::process::geteuid().is_root() {
                "; run it as root"
            } else {
                ""
            };
            let _ = writeln!(io::stderr(), "dbssl: {}{hint}", shown::for_a_terminal(&format!("{error:#}")));
            ExitCode::from(2)
        }
    }
}

fn execute(arguments: Arguments, environment: &Environment) -> anyhow::Result<ExitCode> {
    let settings = settings(&arguments.common)?;
    if matches!(arguments.verb, Verb::CheckConfig) {
        let path = arguments.common.config.as_deref().unwrap_or(Path::new(CONFIG));
        print(&if path.exists() {
            format!("{} is right; [[match]] entries: {}\n", path.display(), settings.matches.len())
        } else {
            format!("there is no {}: every key has its default\n", path.display())
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::init(&settings.log, &environment.logging)?;
    if let Verb::Ca(verb) = arguments.verb {
        return ca::ca(&settings, &host_name(), verb);
    }
    let socket = socket(&settings, environment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.verb {
            Verb::Run => daemon(settings, &socket, environment).await,
            Verb::Status { json } => status(settings, &socket, json).await,
            Verb::Plan { json, name } => plan(settings, &socket, json, name).await,
            Verb::Verify { name } => verify(settings, &socket, &name).await,
            Verb::Apply { name } => apply(settings, &socket, &name).await,
            Verb::Url(arguments) => url::url(&settings, &socket, &arguments).await,
            Verb::ClientCert(arguments) => client_cert::client_cert(settings, &socket, &arguments).await,
            Verb::Export { name } => export::export(settings, &socket, &name).await,
            Verb::Ca(_) | Verb::CheckConfig => Ok(ExitCode::SUCCESS),
        }
    })
}

fn settings(common: &Common) -> anyhow::Result<Settings> {
    let path = common.config.as_deref().unwrap_or(Path::new(CONFIG));
    let mut settings = match config::load(path) {
        Ok(settings) => settings,
        Err(error) if common.config.is_none() && error.is_absent() => Settings::default(),
        Err(error @ LoadError::Invalid { .. }) => bail!("{error}"),
        Err(error) => return Err(error.into()),
    };
    if common.data_dir.is_some() || common.state_dir.is_some() {
        let data = common.data_dir.as_ref().unwrap_or(&settings.roots.data);
        let state = common.state_dir.as_ref().unwrap_or(&settings.roots.state);
        settings.roots = config::roots(data, state).context("--data-dir and --state-dir")?;
    }
    match common.log_format {
        Some(LogFormat::Text) => settings.log.format = Format::Text,
        Some(LogFormat::Json) => settings.log.format = Format::Json,
        None => {}
    }
    Ok(settings)
}

/// `DOCKER_HOST` wins over the config. Only a socket of this host will do: certificates are put on its disk.
fn socket(settings: &Settings, environment: &Environment) -> anyhow::Result<PathBuf> {
    let (place, text) = match &environment.docker_host {
        Some(host) if !host.is_empty() => ("DOCKER_HOST", host.to_string_lossy().into_owned()),
        _ => ("docker.socket in the config", settings.docker.socket.clone()),
    };
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => bail!(
            "{place} is {text:?}, allowed: unix:// and an absolute path (dbssl works on its own host's Docker only)"
        ),
    }
}

async fn daemon(settings: Settings, socket: &Path, environment: &Environment) -> anyhow::Result<ExitCode> {
    let _lock = Lock::exclusive(&settings.roots)?;
    let notifier = Notifier::new(&environment.systemd, std::process::id())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run(settings, socket, &host_name(), &notifier, stop).await?;
    Ok(ExitCode::SUCCESS)
}

async fn status(settings: Settings, socket: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    let reports = reports(&world, candidates(&world).await?).await?;
    let clients = clients::all(&world).await?;
    let text = if json {
        report::json(&reports, &clients)?
    } else {
        report::table(&reports) + &clients::table(&clients)
    };
    print_as(json, &text)?;
    // Beside the tables; dbssl ca show --json has them too.
    let authority = world.authority();
    for notice in authority.notices.iter().filter(|notice| notice.is_warning()) {
        writeln!(io::stderr(), "CA: {}", shown::in_one_line(&notice.to_string()))?;
    }
    let ends = authority.notices.iter().any(|notice| matches!(notice, Notice::EndsSoon { .. }));
    // Whatever is right today, nobody sees to it that it stays so.
    let tended = lock::is_held(&world.roots)?;
    if !tended {
        let state = world.roots.state.display();
        writeln!(
            io::stderr(),
            "agent: none runs with {state}, so that no certificate is renewed: systemctl start dbssl"
        )?;
    }
    let all_well =
        tended && !ends && reports.iter().all(Report::is_proved) && clients.iter().all(Client::is_well);
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn plan(
    settings: Settings,
    socket: &Path,
    json: bool,
    name: Option<ContainerName>,
) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    let inspects = match name {
        Some(name) => vec![named(&world.docker, &world.roots, &name).await?],
        None => candidates(&world).await?,
    };
    let reports = reports(&world, inspects).await?;
    print_as(json, &if json { report::json(&reports, &[])? } else { report::plans(&reports) })?;
    Ok(ExitCode::SUCCESS)
}

async fn verify(settings: Settings, socket: &Path, name: &ContainerName) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    let inspect = named(&world.docker, &world.roots, name).await?;
    let report = report::of(&world, inspect).await?;
    let report = report.ok_or_else(|| {
        anyhow!("container {name} is not labelled: set dbssl.enable=true on it, or match it in the config")
    })?;
    print(&report::detail(&report))?;
    Ok(if report.is_proved() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Through the running agent if there is one, else here and now.
async fn apply(settings: Settings, socket: &Path, name: &ContainerName) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    // What an agent that died left half done may have no name, and is brought to its end first.
    let left_half_done = journal::is_under_way(&world.roots.journal(), name);
    let observed = async {
        observe(&world, named(&world.docker, &world.roots, name).await?).await.map_err(anyhow::Error::from)
    };
    if !left_half_done && !matches!(observed.await?, Look::Ours(_)) {
        bail!("container {name} is not a database that dbssl can work on: see dbssl plan {name}");
    }
    let mut asked = false;
    loop {
        match Lock::exclusive(&world.roots) {
            Ok(_lock) => {
                // From here on a closed terminal must not end us between a stop and a start.
                let _deferred =
                    [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
                requests::done(&world.roots, name);
                settle::recover(&world).await;
                let end = Instant::now() + world.settings.docker.ready_timeout;
                let (mut memory, mut again) = reconcile(&world, name, Memory::default(), true).await;
                // What the recovery has just started may not be ready yet.
                while let Some(pause) = again.filter(|pause| *pause <= SOON)
                    && left_half_done
                    && Instant::now() < end
                {
                    tokio::time::sleep(pause).await;
                    (memory, again) = reconcile(&world, name, memory, true).await;
                }
                break;
            }
            Err(LockError::Held(_)) if !asked => {
                requests::place(&world.roots, name)?;
                asked = true;
            }
            Err(LockError::Held(_)) if !requests::is_pending(&world.roots, name) => break,
            Err(LockError::Held(_)) => tokio::time::sleep(ASK_AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
    let report = report::of(&world, named(&world.docker, &world.roots, name).await?).await?;
    let report = report
        .ok_or_else(|| anyhow!("container {name} is neither labelled nor matched in the config any more"))?;
    print(&report::detail(&report))?;
    Ok(if report.is_proved() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The world as it is; nothing is made, not even a CA.
async fn world(settings: Settings, socket: &Path) -> anyhow::Result<World> {
    let rules = Rules::new(&settings.certificates, "");
    let authority = CaStore::current(&settings.roots, &rules, clock::now())?
        .ok_or_else(|| anyhow!(ca::no_ca(&settings)))?;
    let docker = Docker::connect(socket).await?;
    let engine = docker.info().await?;
    Ok(World::new(docker, engine, settings, authority))
}

/// All that may be ours, by name.
async fn candidates(world: &World) -> anyhow::Result<Vec<Inspect>> {
    let mut listed = world.docker.list(&world.settings.docker.only).await?;
    listed.retain(|listed| candidate::listed(world, listed));
    listed.sort_by(|left, right| left.name.cmp(&right.name));
    let mut found = Vec::new();
    for listed in listed {
        found.extend(world.docker.inspect(listed.id.as_str()).await?);
    }
    Ok(found)
}

/// One for each of them that is ours. One that is parked by a redeploy is shown by the name that it, or its successor,
/// will have; one that goes away while it is looked at is not shown.
async fn reports(world: &World, inspects: Vec<Inspect>) -> anyhow::Result<Vec<Report>> {
    let names: Vec<_> = inspects.iter().map(|inspect| inspect.name().clone()).collect();
    let mut reports = Vec::new();
    for inspect in inspects {
        let id = inspect.id().clone();
        let parked = inspect.name().as_str().strip_suffix(PARKED).and_then(|name| name.parse().ok());
        if let Some(name) = parked.filter(|name| journal::is_under_way(&world.roots.journal(), name)) {
            reports.extend((!names.contains(&name)).then(|| report::under_way(&name)));
            continue;
        }
        match report::of(world, inspect).await {
            Ok(report) => reports.extend(report),
            Err(error) => {
                let now = world.docker.inspect(id.as_str()).await?;
                if now.is_some_and(|now| !matches!(now.state(), State::Dead | State::Other)) {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(reports)
}

async fn named(docker: &Docker, roots: &Roots, name: &ContainerName) -> anyhow::Result<Inspect> {
    let found = docker.inspect(name.as_str()).await?;
    found.ok_or_else(|| {
        if journal::is_under_way(&roots.journal(), name) {
            anyhow!(
                "a redeploy of {name} is under way, and no container has its name at this moment: ask again"
            )
        } else {
            anyhow!("there is no container {name}; docker ps --all lists them")
        }
    })
}

/// What is asked for a container that is ours, and which database it is.
async fn database(
    docker: &Docker,
    settings: &Settings,
    inspect: &Inspect,
) -> anyhow::Result<(Desired, Engine)> {
    let name = inspect.name();
    let desired = match matching::read(&settings.matches, inspect) {
        Reading::Enabled(desired) => desired,
        Reading::NotOurs | Reading::Disabled => {
            bail!("container {name} is not labelled: set dbssl.enable=true on it, or match it in the config")
        }
        Reading::Wrong(problems) => {
            bail!("container {name} is mislabelled: {}", labels::in_one_line(&problems))
        }
    };
    let image = docker.image(inspect.image_id()).await?;
    let engine = desired
        .engine
        .or_else(|| detect(inspect, image.as_ref()))
        .ok_or_else(|| anyhow!("cannot tell which database {name} is: set the label dbssl.engine on it"))?;
    Ok((desired, engine))
}

/// For people. What others wrote (the names of a container's files, its server's answers) is part of it.
fn print(text: &str) -> io::Result<()> {
    print_exactly(&shown::for_a_terminal(text))
}

/// For a program if it is JSON, else for people.
fn print_as(json: bool, text: &str) -> io::Result<()> {
    if json { print_exactly(text) } else { print(text) }
}

/// For a program: JSON, a Compose file.
fn print_exactly(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
