//! Everybody but the agent: users, the daemon, the disk, the clock.

use std::{collections::BTreeMap, time::Duration};

use dbssl::{
    config::Settings,
    host::{
        castore::{CaStore, Rules},
        clock, crash,
        journal::PARKED,
    },
    model::KeyType,
    pki::Ca,
};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    history::Agent,
    image,
    machine::{Machine, Shared, Weather},
    promises::{Service, Wants},
    server::Quirk,
};

const MODES: [&str; 5] = ["allow", "prefer", "require", "verify-ca", "verify-full"];
const POLICIES: [&str; 4] = ["no", "always", "unless-stopped", "on-failure"];
const HOST: &str = "sim";

/// A CA of a user's own, with its key, takes the place of whatever `coolify-ca.crt` is.
pub fn drop_a_ca(machine: &mut Machine) {
    let ca = Ca::generate("custom", KeyType::P256, time::Duration::days(3650), machine.now()).unwrap();
    // What is added behind it goes over the end of a page, or does not.
    let words = "# ours\n".repeat(machine.rng.usize(0..500));
    let (pem, roots) = (words + &ca.certificate().to_pem(), machine.roots.clone());
    let new = roots.bundle().with_extension("mine");
    std::fs::create_dir_all(&roots.data).unwrap();
    std::fs::write(roots.custom_key(), ca.key_pem().expose()).unwrap();
    std::fs::write(&new, &pem).unwrap();
    std::fs::rename(&new, roots.bundle()).unwrap();
    machine.tell(|| "user: a custom CA".to_owned());
    machine.truth.known = false;
    machine.truth.dropped = Some(ca.certificate().clone());
    machine.truth.users = Some(pem.into_bytes());
}

/// The users' side of the host.
pub struct Users<'a> {
    pub shared: Shared,
    pub settings: Settings,
    pub services: BTreeMap<String, Service>,
    pub agent: &'a Agent,
    made: u32,
}

impl<'a> Users<'a> {
    pub fn new(shared: Shared, settings: Settings, agent: &'a Agent) -> Self {
        Self { shared, settings, services: BTreeMap::new(), agent, made: 0 }
    }

    fn tell(&self, step: &str) {
        self.shared.lock().tell(|| step.to_owned());
    }

    fn chance(&self, of: u16, all: u16) -> bool {
        self.shared.lock().chance(of, all)
    }

    fn pick<T: Clone>(&self, from: &[T]) -> T {
        let at = self.shared.lock().rng.usize(0..from.len());
        from[at].clone()
    }

    fn any_service(&self) -> Option<String> {
        let names: Vec<_> = self.services.keys().cloned().collect();
        (!names.is_empty()).then(|| self.pick(&names))
    }

    /// `docker run`, or Compose.
    pub async fn run_database(&mut self) {
        let quirk = if self.chance(1, 3) { self.pick(&Quirk::ALL) } else { Quirk::None };
        let enabled = self.made == 0 || self.chance(4, 5);
        self.run(quirk, enabled).await;
    }

    /// Its name, if it came to be.
    async fn run(&mut self, quirk: Quirk, enabled: bool) -> Option<String> {
        self.made += 1;
        let name = format!("db{}", self.made);
        let mut service = Service {
            volume: if self.chance(2, 3) { format!("{name}-data") } else { String::new() },
            image: "",
            quirk,
            enabled,
            mode: self.pick(&MODES),
            network: self.free_network(),
            policy: self.pick(&POLICIES),
            wants: Wants::Running,
        };
        let made = self.create(&name, &mut service).await;
        made.then(|| {
            self.services.insert(name.clone(), service);
            name
        })
    }

    /// Most are on one that their users made; on the host's there is room for one database alone.
    fn free_network(&self) -> &'static str {
        let network = self.pick(&["app", "app", "app", "default", "host"]);
        let taken = |network| self.services.values().any(|service| service.network == network);
        if network == "host" && taken(network) { "app" } else { network }
    }

    /// A database is made, and then stopped and started while the agent looks at it; its name.
    pub async fn run_and_restart_database(&mut self) -> Option<String> {
        let name = self.run(Quirk::None, true).await?;
        for _ in 0..3 {
            self.pause(1500).await;
            let id = {
                let machine = self.shared.lock();
                if Self::is_in_the_middle(&machine, &name) {
                    break;
                }
                machine.find(&name)?.id.clone()
            };
            self.tell(&format!("user: stop {name}"));
            let _ = self.shared.stop(&id).await;
            self.pause(100).await;
            if Self::is_in_the_middle(&self.shared.lock(), &name) {
                self.services.get_mut(&name)?.wants = Wants::Either;
                break;
            }
            self.tell(&format!("user: start {name}"));
            let _ = self.shared.start(&id);
        }
        Some(name)
    }

    pub async fn pause(&self, most: u64) {
        let pause = self.shared.lock().rng.u64(0..most);
        sleep(Duration::from_millis(pause)).await;
    }

    /// Creates and starts it, on the volume and from the image that it has then; whether it came to that.
    pub async fn create(&self, name: &str, service: &mut Service) -> bool {
        self.tell(&format!("user: run {name}: {service:?}"));
        let volume = &service.volume;
        let binds = if volume.is_empty() { json!(null) } else { json!([format!("{volume}:/data")]) };
        let mut labels = json!({ "com.docker.compose.project": "shop", "com.docker.compose.service": name });
        if service.enabled {
            labels["dbssl.enable"] = json!("true");
            labels["dbssl.mode"] = json!(service.mode);
        }
        let body = json!({
            "Image": image::name_of(service.quirk),
            "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["redis-server"], "Labels": labels, "User": "",
            "HostConfig": {
                "Binds": binds, "NetworkMode": service.network,
                "RestartPolicy": { "Name": service.policy, "MaximumRetryCount": 0 }, "AutoRemove": false,
            },
            "NetworkingConfig": {
                "EndpointsConfig": if service.network == "app" { json!({ "app": { "Aliases": [name] } }) } else { json!({}) },
            },
        });
        let id = {
            let mut machine = self.shared.lock();
            if !machine.daemon {
                return false;
            }
            let Ok(id) = machine.create(name, &body) else { return false };
            let made = &machine.containers[&id];
            (service.volume, service.image) = (made.data(), made.image.id);
            id
        };
        sleep(Duration::from_millis(5)).await;
        let _ = self.shared.start(&id);
        true
    }

    /// Whether the agent is in the middle of something with it.
    fn is_in_the_middle(machine: &Machine, name: &str) -> bool {
        machine.under_way() > 0
            || machine.containers.values().any(|other| other.name.starts_with(&format!("{name}.")))
    }

    /// Somebody does something to a database, by its name.
    pub async fn meddle(&mut self) {
        let Some(name) = self.any_service() else { return };
        let (id, middle) = {
            let machine = self.shared.lock();
            let Some(found) = machine.find(&name).filter(|_| machine.daemon) else { return };
            (found.id.clone(), Self::is_in_the_middle(&machine, &name))
        };
        let what = self.shared.lock().rng.u8(0..6);
        let service = self.services.get_mut(&name).unwrap();
        let wants = |wanted| service.wants.then(wanted, middle);
        match what {
            0 => {
                service.wants = wants(Wants::Stopped);
                self.tell(&format!("user: stop {name}"));
                let _ = self.shared.stop(&id).await;
                let machine = self.shared.lock();
                let replaced = machine.find(&name).is_none_or(|found| found.id != id);
                if replaced || Self::is_in_the_middle(&machine, &name) {
                    // The agent began at the same moment: it takes the end for its own doing.
                    self.services.get_mut(&name).unwrap().wants = Wants::Either;
                }
            }
            1 => {
                service.wants = wants(Wants::Running);
                self.tell(&format!("user: start {name}"));
                let _ = self.shared.start(&id);
            }
            2 => {
                service.wants = wants(Wants::Running);
                self.tell(&format!("user: restart {name}"));
                let _ = self.shared.restart(&id).await;
            }
            // In the middle of an operation that would leave a volume to nobody, or to two.
            _ if middle => {}
            3 => {
                self.tell(&format!("user: rm -f {name}"));
                let _ = self.shared.stop(&id).await;
                let mut machine = self.shared.lock();
                if machine.remove(&id).is_ok() {
                    if Self::is_in_the_middle(&machine, &name) {
                        self.services.get_mut(&name).unwrap().wants = Wants::Anything;
                    } else {
                        self.services.remove(&name);
                    }
                }
            }
            4 => {
                self.made += 1;
                let to = format!("db{}", self.made);
                self.tell(&format!("user: rename {name} {to}"));
                if self.shared.lock().rename(&id, &to).is_ok() {
                    let service = self.services.remove(&name).unwrap();
                    self.services.insert(to, service);
                }
            }
            _ => self.recreate(&name, &id).await,
        }
    }

    /// `docker container prune`, as many have it done every night: it is not meant for a database that runs.
    pub fn prune(&mut self) {
        self.tell("user: prune");
        let mut machine = self.shared.lock();
        if !machine.daemon {
            return;
        }
        for down in machine.containers.values().filter(|container| container.is_down()) {
            let parked = down.name.strip_suffix(PARKED);
            let name = parked.unwrap_or(&down.name);
            let Some(service) = self.services.get_mut(name) else { continue };
            match machine.works_on(name) {
                None if parked.is_some() => {}
                None => drop(self.services.remove(name)),
                // Docker itself would not bring back what is pruned as it restarts it.
                Some("restart") => service.wants = Wants::Anything,
                Some(_) if service.wants == Wants::Running => {}
                Some(_) => service.wants = Wants::Anything,
            }
        }
        machine.prune();
    }

    /// `docker start $(docker ps --all --quiet)`.
    pub async fn start_all(&mut self) {
        self.tell("user: start all");
        let all: Vec<_> = {
            let machine = self.shared.lock();
            // Nothing keeps one from being started that is parked on the host's network but us, and a moment later.
            let startable = machine
                .containers
                .values()
                .filter(|container| !container.on_host() || self.services.contains_key(&container.name));
            startable.map(|container| (container.id.clone(), container.name.clone())).collect()
        };
        for (id, name) in all {
            if !self.shared.lock().daemon {
                break;
            }
            let middle = Self::is_in_the_middle(&self.shared.lock(), &name);
            if let Some(service) = self.services.get_mut(&name) {
                service.wants = service.wants.then(Wants::Running, middle);
            }
            let _ = self.shared.start(&id);
            self.pause(20).await;
        }
    }

    /// `docker compose up --force-recreate`, perhaps with another mode.
    async fn recreate(&mut self, name: &str, id: &str) {
        let mut service = self.services[name].clone();
        service.wants = Wants::Running;
        if self.chance(1, 3) {
            service.mode = self.pick(&MODES);
        }
        self.tell(&format!("user: recreate {name}"));
        let _ = self.shared.stop(id).await;
        if self.shared.lock().remove(id).is_err() {
            service.wants = Wants::Either;
        } else if Self::is_in_the_middle(&self.shared.lock(), name) || !self.create(name, &mut service).await
        {
            // The agent has begun something meanwhile.
            service.wants = Wants::Anything;
            service.mode = self.services[name].mode;
        }
        self.services.insert(name.to_owned(), service);
    }

    /// `docker pull`: what runs, runs on.
    pub fn pull_an_image(&self) {
        let quirk = self.pick(&Quirk::ALL);
        self.tell(&format!("user: pull {}", image::name_of(quirk)));
        self.shared.lock().images.pull(image::name_of(quirk));
    }

    /// What ends, or is started, by nobody's word: Docker brings back what its policy says, whatever its user wanted.
    fn unsure_without_policy(&mut self) {
        for service in self.services.values_mut() {
            match (service.policy, service.wants) {
                ("no" | "on-failure", Wants::Running) | ("always", Wants::Stopped) => {
                    service.wants = Wants::Either;
                }
                _ => {}
            }
        }
    }

    /// A database's process dies.
    pub fn crash_a_server(&mut self) {
        let Some(name) = self.any_service() else { return };
        let found = {
            let machine = self.shared.lock();
            machine
                .find(&name)
                .filter(|found| found.is_running())
                .map(|found| (found.id.clone(), found.starts))
        };
        if let Some((id, starts)) = found {
            self.tell(&format!("{name} crashes"));
            self.unsure_without_policy();
            self.shared.ended(&id, starts, 139);
        }
    }

    /// Somebody's script gets hold of a certificate directory.
    pub fn damage_files(&mut self) {
        let Some(name) = self.any_service() else { return };
        let roots = self.shared.lock().roots.clone();
        let directory = roots.certificates(&name.parse().unwrap());
        let file = directory.join(self.pick(&["server.crt", "server.key", "coolify-ca.crt", "..data"]));
        if let Ok(real) = file.canonicalize() {
            self.tell(&format!("damage: {name} {}", file.file_name().unwrap().display()));
            // Should it be started before they are mended, only its policy starts it again.
            let service = self.services.get_mut(&name).unwrap();
            if matches!(service.policy, "no" | "on-failure") && service.wants != Wants::Anything {
                service.wants = Wants::Either;
            }
            let _ = if self.chance(1, 2) || real.is_dir() {
                std::fs::remove_file(&file)
            } else {
                std::fs::write(&real, "garbage\n")
            };
        }
    }

    /// `dbssl ca regenerate`, or a CA of a user's own with its key.
    pub fn another_ca(&self) {
        // Not a call of the agent's.
        let judge = crash::simulated::replace(None);
        let (rules, roots) = (Rules::new(&self.settings.certificates, HOST), &self.settings.roots);
        if self.chance(1, 2) {
            let done = CaStore::regenerate(roots, &rules, clock::now());
            self.tell(&format!("user: ca regenerate: {}", done.is_ok()));
            let truth = &mut self.shared.lock().truth;
            (truth.known, truth.dropped) = (false, None);
        } else {
            drop_a_ca(&mut self.shared.lock());
        }
        crash::simulated::replace(judge);
    }

    pub async fn restart_daemon(&mut self) {
        if self.shared.lock().daemon {
            self.unsure_without_policy();
            self.shared.daemon_dies();
            let down = self.shared.lock().rng.u64(100..30_000);
            sleep(Duration::from_millis(down)).await;
            self.shared.daemon_starts();
        }
    }

    /// Power fails; the agent and the daemon come back in any order.
    pub async fn reboot(&mut self) {
        self.tell("the machine reboots");
        self.shared.kill();
        self.restart_daemon().await;
    }

    /// Up to a year forwards, and never before the beginning.
    pub fn move_clock(&self) {
        let mut machine = self.shared.lock();
        let day = time::Duration::DAY;
        let ahead = i32::try_from(machine.skew.whole_days()).unwrap();
        machine.skew = if ahead > 0 && machine.rng.bool() {
            machine.skew - day * machine.rng.i32(1..=ahead)
        } else {
            machine.skew + day * machine.rng.i32(1..=365)
        };
        let skew = machine.skew;
        machine.tell(|| format!("the clock is {skew} ahead"));
    }

    pub fn change_weather(&self) {
        let mut machine = self.shared.lock();
        let mut some = |most: u16| if machine.rng.bool() { machine.rng.u16(0..=most) } else { 0 };
        let weather = Weather {
            fails: some(40),
            lost: some(40),
            deadly: some(10),
            slow: some(30),
            events: some(300),
            disk: some(30),
            drops: some(10),
        };
        machine.weather = weather;
        machine.tell(|| format!("{weather:?}"));
    }

    /// One thing that happens.
    pub async fn happen(&mut self) {
        let what = self.shared.lock().rng.u8(0..23);
        match what {
            0..=5 => self.meddle().await,
            6 => self.crash_a_server(),
            7..=8 => self.damage_files(),
            9..=10 => self.another_ca(),
            11 => self.restart_daemon().await,
            12 => self.reboot().await,
            13 => self.shared.kill(),
            14 => self.agent.stop().await,
            15 => self.move_clock(),
            16..=17 => self.change_weather(),
            18 => self.pull_an_image(),
            19 => self.start_all().await,
            20 => self.prune(),
            _ => self.run_database().await,
        }
    }
}
