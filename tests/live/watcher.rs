//! Holds what a database serves against the trust bundle, at every change of the file.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use dbssl::{
    engine::{PlainHello, Preamble},
    host::{
        clock,
        probe::{self, Served, Target},
    },
    pki::certificates_within,
};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustls_pki_types::CertificateDer;

use super::{container::Container, kind::Kind};

pub struct Watcher {
    signals: Sender<Signal>,
    /// What a user put there: until the agent has seen that, the file is the user's alone.
    users: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: JoinHandle<Watched>,
    _events: RecommendedWatcher,
}

/// What it saw.
#[derive(Debug, Default)]
pub struct Watched {
    /// How many contents of the file were held against what was served.
    pub held: usize,
    pub wrong: Vec<String>,
}

enum Signal {
    Changed,
    End,
}

impl Watcher {
    pub fn begin(kind: &Kind, db: &Container<'_>, bundle: &Path) -> Self {
        let (signals, received) = channel();
        let tell = signals.clone();
        let heard = move |event: notify::Result<notify::Event>| {
            // Reading is no change: it would hear itself.
            if event.map_or(true, |event| !event.kind.is_access()) {
                // Nobody listens at the end.
                let _ = tell.send(Signal::Changed);
            }
        };
        let mut events = notify::recommended_watcher(heard).expect("a watch");
        events.watch(bundle.parent().expect("a folder"), RecursiveMode::NonRecursive).expect("a watch");
        let users = Arc::new(Mutex::new(Vec::new()));
        let (target, bundle, of_users) = (target(kind, db), bundle.to_owned(), Arc::clone(&users));
        let thread = thread::spawn(move || watch(&target, &bundle, &of_users, &received));
        Self { signals, users, thread, _events: events }
    }

    /// A user is about to write this.
    pub fn expect(&self, content: Vec<u8>) {
        self.users.lock().expect("whole").push(content);
    }

    pub fn end(self) -> Watched {
        self.signals.send(Signal::End).expect("it listens");
        self.thread.join().expect("it ends")
    }
}

fn target(kind: &Kind, db: &Container<'_>) -> Target {
    let address = db.address().expect("an address").parse().expect("an address");
    Target {
        addresses: vec![SocketAddr::new(address, kind.tls_port)],
        published: Vec::new(),
        preamble: match kind.engine {
            "postgres" => Preamble::PostgresSslRequest,
            "mysql" | "mariadb" => Preamble::MysqlGreeting,
            "redis" => Preamble::Direct(PlainHello::RedisPing),
            "mongodb" => Preamble::Direct(PlainHello::MongodbHello),
            other => panic!("no such engine: {other}"),
        },
        name: None,
        identity: None,
    }
}

fn watch(
    target: &Target,
    bundle: &PathBuf,
    users: &Mutex<Vec<Vec<u8>>>,
    received: &Receiver<Signal>,
) -> Watched {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut seen = Watched::default();
    let mut last = None;
    while let Ok(Signal::Changed) = received.recv() {
        let Ok(before) = fs::read(bundle) else { continue };
        // Of one that is written now there is another event.
        if last.as_ref() == Some(&before) || before.is_empty() {
            continue;
        }
        let served = runtime.block_on(probe::handshake(target, Duration::from_secs(10)));
        if fs::read(bundle).ok().as_ref() != Some(&before) {
            continue;
        }
        if !users.lock().expect("whole").contains(&before) {
            seen.held += 1;
            if let Err(why) = verifies(&served, &before) {
                seen.wrong.push(format!("{why}\n{}", String::from_utf8_lossy(&before)));
            }
        }
        last = Some(before);
    }
    seen
}

fn verifies(served: &Served, bundle: &[u8]) -> Result<(), String> {
    let Served::Tls { chain, .. } = served else { return Err(format!("{served:?}")) };
    let roots: Vec<_> = certificates_within(bundle)
        .into_iter()
        .map(|root| CertificateDer::from(root.der().to_vec()))
        .collect();
    probe::accepts(chain, &roots, None, clock::now())
}
