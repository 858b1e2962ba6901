//! One history from its beginning to its end: the host is made, a storm goes over it, and then all has to come right.

use std::{
    io::Write,
    panic,
    path::Path,
    rc::Rc,
    sync::{Arc, Once},
    time::Duration,
};

use dbssl::{
    agent::{run, world::World},
    config::{self, Settings},
    host::{
        clock, crash,
        docker::{Docker, EngineInfo},
        probe::Probe,
        systemd::Notifier,
    },
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, yield_now},
    time::sleep,
};

use crate::{
    docker::FakeDocker,
    machine::{Machine, Shared, Weather},
    probe::FakeProbe,
    promises,
    server::Quirk,
    storm::{Users, drop_a_ca},
};

/// What came of it.
pub struct History {
    pub steps: Vec<String>,
    pub broken: Vec<String>,
}

/// The agent as its service manager sees it: whenever it dies, it is started again.
pub struct Agent {
    stop: Arc<Notify>,
    stopped: Arc<Notify>,
    manager: JoinHandle<()>,
}

/// How long the host is given to come right: longer than the longest setback holds back.
const PATIENCE: (u32, Duration) = (150, Duration::from_secs(20 * 60));

pub fn go_through(seed: u64, telling: bool) -> History {
    watch_for_panics();
    let folder = folder();
    ahead_of_time(live_through(seed, telling, folder.path()))
}

/// On a clock that runs ahead while nothing happens.
fn ahead_of_time<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let done = runtime.block_on(work);
    clock::simulated::set(None);
    crash::simulated::replace(None);
    done
}

/// A host on which nothing happens but what `work` does.
pub fn in_peace(work: impl AsyncFnOnce(&Docker)) {
    let folder = folder();
    ahead_of_time(async {
        let shared = Shared::new(Machine::new(0, settings(folder.path()).roots, false));
        set_clock(&shared);
        let life = shared.lock().life;
        work(&Docker::new(FakeDocker { machine: shared, life })).await;
    });
}

/// A host on which nothing happens by chance but what `work` does, and an agent that works on it: what is not as it should
/// be in the end.
pub fn staged(work: impl AsyncFnOnce(&Shared, &mut Users<'_>)) -> History {
    let folder = folder();
    ahead_of_time(async {
        let settings = settings(folder.path());
        let shared = Shared::new(Machine::new(0, settings.roots.clone(), true));
        let _log = log_into(&shared);
        set_clock(&shared);
        let agent = Agent::begin(&shared, &settings);
        let mut users = Users::new(shared.clone(), settings, &agent);
        work(&shared, &mut users).await;
        let services = std::mem::take(&mut users.services);
        let mut broken = promises::unsettled(&shared.lock(), &services);
        agent.end().await;
        let mut machine = shared.lock();
        broken.append(&mut machine.broken);
        History { steps: machine.steps.take().unwrap_or_default(), broken }
    })
}

async fn live_through(seed: u64, telling: bool, folder: &Path) -> History {
    let settings = settings(folder);
    let shared = Shared::new(Machine::new(seed, settings.roots.clone(), telling));
    let _log = telling.then(|| log_into(&shared));
    set_clock(&shared);
    set_disk(&shared);
    let agent = Agent::begin(&shared, &settings);
    let mut users = Users::new(shared.clone(), settings, &agent);
    storm(&mut users).await;
    calm(&shared);
    let services = users.services.clone();
    let mut wrong = Vec::new();
    // Longer than the slow list leaves anything unseen.
    sleep(Duration::from_secs(65 * 60)).await;
    for _ in 0..PATIENCE.0 {
        wrong = promises::unsettled(&shared.lock(), &services);
        if wrong.is_empty() {
            break;
        }
        sleep(PATIENCE.1).await;
    }
    for why in wrong {
        shared.lock().breaks(|| format!("never came right: {why}"));
    }
    // A second pass has nothing to do.
    sleep(PATIENCE.1).await;
    shared.lock().tell(|| "second pass".to_owned());
    shared.lock().effects.clear();
    agent.stop().await;
    sleep(Duration::from_secs(5 * 60)).await;
    let again = std::mem::take(&mut shared.lock().effects);
    // What cannot be done is tried again when its time has come, which may be now.
    let tried = services.values().any(|service| service.enabled && service.quirk == Quirk::NoTls);
    if !again.is_empty() && !tried {
        shared.lock().breaks(|| format!("a second pass did {again:?}"));
    }
    let mut wrong = promises::unsettled(&shared.lock(), &services);
    if tried && !wrong.is_empty() {
        // In the middle of that.
        sleep(Duration::from_secs(5 * 60)).await;
        wrong = promises::unsettled(&shared.lock(), &services);
    }
    for why in wrong {
        shared.lock().breaks(|| format!("after a second pass: {why}"));
    }
    // It takes as long as much of what came before.
    let once_more = shared.lock().chance(1, 16);
    if once_more {
        in_time(&mut users).await;
    }
    agent.end().await;
    for why in take_panics() {
        shared.lock().breaks(|| why);
    }
    let mut machine = shared.lock();
    History { steps: machine.steps.take().unwrap_or_default(), broken: std::mem::take(&mut machine.broken) }
}

/// What a user does in peace is seen as it happens, long before the next slow list.
async fn in_time(users: &mut Users<'_>) {
    let Some(name) = users.run_and_restart_database().await else { return };
    sleep(Duration::from_secs(3 * 60)).await;
    let mut machine = users.shared.lock();
    for why in promises::unsettled_one(&machine, &name, &users.services[&name]) {
        machine.breaks(|| format!("not seen in time: {why}"));
    }
}

async fn storm(users: &mut Users<'_>) {
    users.run_database().await;
    // Some begin in peace.
    let early = users.shared.lock().rng.bool();
    if early {
        users.change_weather();
    } else {
        sleep(Duration::from_secs(30)).await;
    }
    // What two or three things together bring about is found by many short histories sooner than by a few long ones.
    let many = {
        let rng = &mut users.shared.lock().rng;
        rng.u32(1..12).min(rng.u32(1..12))
    };
    for _ in 0..many {
        users.happen().await;
        // Mostly in the middle of what the last one caused.
        let long = users.shared.lock().rng.u8(0..8) == 0;
        users.pause(if long { 7_200_000 } else { 4000 }).await;
    }
}

fn calm(shared: &Shared) {
    shared.lock().weather = Weather::default();
    if !shared.lock().daemon {
        shared.daemon_starts();
    }
    shared.lock().tell(|| "calm".to_owned());
}

impl Agent {
    fn begin(shared: &Shared, settings: &Settings) -> Self {
        let (stop, stopped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let manager = manage(shared.clone(), settings.clone(), Arc::clone(&stop), Arc::clone(&stopped));
        Self { stop, stopped, manager: tokio::spawn(manager) }
    }

    /// `systemctl restart`: done when it has stopped.
    pub async fn stop(&self) {
        self.stop.notify_one();
        self.stopped.notified().await;
    }

    async fn end(self) {
        self.manager.abort();
        let _ = self.manager.await;
    }
}

async fn manage(shared: Shared, settings: Settings, stop: Arc<Notify>, stopped: Arc<Notify>) {
    loop {
        let life = {
            let mut machine = shared.lock();
            machine.tell(|| "the agent starts".to_owned());
            machine.dead = false;
            machine.life
        };
        let asked = Arc::new(Notify::new());
        let agent = {
            let (shared, settings, asked) = (shared.clone(), settings.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                let Ok((authority, stamps)) = run::authority(&settings, "sim") else { return };
                let engine = EngineInfo { host_name: "sim".to_owned(), ..EngineInfo::default() };
                let docker = Docker::new(FakeDocker { machine: shared.clone(), life });
                let mut world = World::new(docker, engine, settings, authority);
                world.probe = Probe::new(FakeProbe { machine: shared, life });
                let notifier = Notifier::default();
                let _ = run::serve(Arc::new(world), stamps, "sim", None, &notifier, asked.notified()).await;
            })
        };
        let abort = agent.abort_handle();
        tokio::pin!(agent);
        tokio::select! {
            biased;
            () = shared.died() => {}
            _ = &mut agent => {}
            () = stop.notified() => {
                asked.notify_one();
                tokio::select! {
                    biased;
                    () = shared.died() => {}
                    _ = &mut agent => {}
                }
                stopped.notify_one();
            }
        }
        abort.abort();
        // What it had spawned goes as well.
        for _ in 0..10 {
            yield_now().await;
        }
        let pause = shared.lock().rng.u64(50..5000);
        sleep(Duration::from_millis(pause)).await;
    }
}

fn settings(folder: &Path) -> Settings {
    let text = format!(
        "data-dir = \"{}\"\nstate-dir = \"{}\"\n[docker]\nsettle = \"1s\"\nready-timeout = \"60s\"\nresync = \"1h\"\n",
        folder.join("ssl").display(),
        folder.join("state").display(),
    );
    config::parse(&text).unwrap()
}

/// In memory where that can be had: nothing of it has to last.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let within = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("dbssl-history-").tempdir_in(within).unwrap()
}

fn set_clock(shared: &Shared) {
    let shared = shared.clone();
    clock::simulated::set(Some(Rc::new(move || shared.lock().now())));
}

/// Before every change of a file: a user may have changed another, the agent may die, or the disk refuse.
fn set_disk(shared: &Shared) {
    struct Dead;
    let shared = shared.clone();
    // A point is a name alone, a file has its whole path.
    let judge = move |place: &Path| {
        let mut machine = shared.lock();
        let (deadly, disk) = (machine.weather.deadly, machine.weather.disk);
        if !machine.dead {
            promises::hold(&mut machine);
            // Whatever is changed elsewhere, it is not the trust bundle; and that is never removed.
            if place.starts_with(&machine.roots.data) {
                machine.truth.known = false;
            }
            // What is to be tried is both at once.
            let of_the_ca =
                place.starts_with(&machine.roots.data) || place.starts_with(machine.roots.ca_store());
            let drops = machine.weather.drops * if of_the_ca { 10 } else { 1 };
            if machine.chance(drops, 1000) {
                // The next one would hide what became of this one.
                machine.weather.drops = 0;
                drop_a_ca(&mut machine);
            }
            if !machine.chance(deadly, 1000) {
                return if place.is_absolute() && machine.chance(disk, 1000) {
                    Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
                } else {
                    Ok(())
                };
            }
            machine.tell(|| format!("  at {}", place.file_name().unwrap_or_default().display()));
            drop(machine);
            shared.kill();
        }
        panic::resume_unwind(Box::new(Dead));
    };
    crash::simulated::replace(Some(Rc::new(judge)));
}

thread_local! {
    static PANICS: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A panic in a task is caught by the runtime: it is to be known all the same.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
    take_panics();
}

fn take_panics() -> Vec<String> {
    PANICS.with_borrow_mut(std::mem::take)
}

fn log_into(shared: &Shared) -> tracing::subscriber::DefaultGuard {
    struct Into(Shared);
    impl Write for Into {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let line = String::from_utf8_lossy(bytes).trim_end().to_owned();
            self.0.lock().tell(|| format!("    {line}"));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let shared = shared.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || Into(shared.clone()))
        .finish();
    tracing::subscriber::set_default(subscriber)
}
