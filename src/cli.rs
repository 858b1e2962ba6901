//! The verbs. Each is a function from arguments to an exit code; what they print is for people, or JSON.

mod report;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use self::report::Report;
use crate::{
    agent::{
        observe::{Look, observe},
        reconcile::{Memory, reconcile},
        run::run,
        settle,
        world::World,
    },
    config::{self, Format, LoadError, Settings},
    host::{
        castore::CaStore,
        clock,
        docker::Docker,
        lock::{Lock, LockError},
        requests,
        systemd::{self, Notifier},
    },
    logging,
    model::{ContainerName, inspect::Inspect},
};

/// Where the config is unless `--config` says otherwise; may be absent there.
const CONFIG: &str = "/etc/dbssl/dbssl.toml";

/// How often `apply` looks whether the agent is done.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Gives labelled database containers TLS that their clients can verify.
#[derive(Debug, Parser)]
#[command(name = "dbssl", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, and all is well; 1 something is not; 2 it cannot be told, or the arguments are wrong."
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
    /// Show every labelled container and what it serves
    #[command(after_help = "Exit codes: 0 every one is proved; 1 some are not; 2 it cannot be told.")]
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
    /// Do now what is pending for a container, also with dbssl.redeploy=manual
    Apply { name: ContainerName },
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
            let _ = writeln!(io::stderr(), "dbssl: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn execute(arguments: Arguments, environment: &Environment) -> anyhow::Result<ExitCode> {
    let settings = settings(&arguments.common)?;
    if matches!(arguments.verb, Verb::CheckConfig) {
        writeln!(io::stdout(), "the config is right")?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::init(&settings.log, &environment.logging)?;
    let socket = socket(&settings, environment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.verb {
            Verb::Run => daemon(settings, &socket, environment).await,
            Verb::Status { json } => status(settings, &socket, json).await,
            Verb::Plan { json, name } => plan(settings, &socket, json, name).await,
            Verb::Verify { name } => verify(settings, &socket, &name).await,
            Verb::Apply { name } => apply(settings, &socket, &name).await,
            Verb::CheckConfig => Ok(ExitCode::SUCCESS),
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
    let mut reports = Vec::new();
    for inspect in labelled(&world).await? {
        if let Some(report) = report::of(&world, inspect).await? {
            reports.push(report);
        }
    }
    print(&if json { report::json(&reports)? } else { report::table(&reports) })?;
    Ok(if reports.iter().all(Report::is_proved) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn plan(
    settings: Settings,
    socket: &Path,
    json: bool,
    name: Option<ContainerName>,
) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    let inspects = match name {
        Some(name) => vec![named(&world, &name).await?],
        None => labelled(&world).await?,
    };
    let mut reports = Vec::new();
    for inspect in inspects {
        reports.extend(report::of(&world, inspect).await?);
    }
    print(&if json { report::json(&reports)? } else { report::plans(&reports) })?;
    Ok(ExitCode::SUCCESS)
}

async fn verify(settings: Settings, socket: &Path, name: &ContainerName) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    let inspect = named(&world, name).await?;
    let report = report::of(&world, inspect).await?;
    let report =
        report.ok_or_else(|| anyhow!("container {name} is not labelled: set dbssl.enable=true on it"))?;
    print(&report::detail(&report))?;
    Ok(if report.is_proved() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Through the running agent if there is one, else here and now.
async fn apply(settings: Settings, socket: &Path, name: &ContainerName) -> anyhow::Result<ExitCode> {
    let world = world(settings, socket).await?;
    let inspect = named(&world, name).await?;
    if !matches!(observe(&world, inspect).await?, Look::Ours(_)) {
        bail!("container {name} is not a database that dbssl can work on: see dbssl plan {name}");
    }
    match Lock::exclusive(&world.roots) {
        Ok(_lock) => {
            settle::recover(&world).await?;
            reconcile(&world, name, Memory::default(), true).await;
        }
        Err(LockError::Held(_)) => {
            requests::place(&world.roots, name)?;
            while requests::is_pending(&world.roots, name) {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
        Err(error) => return Err(error.into()),
    }
    let report = report::of(&world, named(&world, name).await?).await?;
    let report = report.ok_or_else(|| anyhow!("container {name} is not labelled any more"))?;
    print(&report::detail(&report))?;
    Ok(if report.is_proved() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The world as it is; nothing is made, not even a CA.
async fn world(settings: Settings, socket: &Path) -> anyhow::Result<World> {
    let authority = CaStore::current(&settings.roots, clock::now())?.ok_or_else(|| {
        anyhow!(
            "no CA in {} yet: start the agent (dbssl run) first, or name its folders with --state-dir and --data-dir",
            settings.roots.ca_store().display()
        )
    })?;
    let docker = Docker::connect(socket).await?;
    let engine = docker.info().await?;
    Ok(World::new(docker, engine, settings, authority))
}

async fn labelled(world: &World) -> anyhow::Result<Vec<Inspect>> {
    let mut listed = world.docker.list(&world.settings.docker.only).await?;
    listed.retain(|listed| listed.labels.keys().any(|label| label.starts_with("dbssl.")));
    listed.sort_by(|left, right| left.name.cmp(&right.name));
    let mut found = Vec::new();
    for listed in listed {
        found.extend(world.docker.inspect(listed.id.as_str()).await?);
    }
    Ok(found)
}

async fn named(world: &World, name: &ContainerName) -> anyhow::Result<Inspect> {
    let found = world.docker.inspect(name.as_str()).await?;
    found.ok_or_else(|| anyhow!("there is no container {name}; docker ps --all lists them"))
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
