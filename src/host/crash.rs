//! Where the tests make the agent die, or the disk refuse. Nothing in a build without the feature of a test.

use std::{io, path::Path};

/// The live tests: dies as by SIGKILL when `DBSSL_CRASH_AT` names this point. The simulation: may die here.
pub fn point(name: &str) {
    #[cfg(feature = "live")]
    killed(name);
    #[cfg(feature = "simulation")]
    let _ = simulated::ask(Path::new(name));
    let _ = name;
}

/// Before something is removed: the simulation may die here.
pub fn removal() {
    #[cfg(feature = "simulation")]
    let _ = simulated::ask(Path::new("removal"));
}

/// Before a file is made or written: the simulation may die here, or have no room.
pub fn disk(path: &Path) -> io::Result<()> {
    #[cfg(feature = "simulation")]
    simulated::ask(path)?;
    let _ = path;
    Ok(())
}

#[cfg(feature = "live")]
fn killed(point: &str) {
    // A test's own hook, not a setting.
    #[allow(clippy::disallowed_methods)]
    let wanted = std::env::var("DBSSL_CRASH_AT");
    if wanted.is_ok_and(|wanted| wanted == point) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

/// What the simulation sets for its thread.
#[cfg(feature = "simulation")]
pub mod simulated {
    use std::{cell::RefCell, io, path::Path, rc::Rc};

    pub type Judge = Rc<dyn Fn(&Path) -> io::Result<()>>;

    thread_local! {
        static JUDGE: RefCell<Option<Judge>> = const { RefCell::new(None) };
    }

    /// Has it asked at each point, and before each change of a file; it dies by unwinding. The one before it.
    pub fn replace(judge: Option<Judge>) -> Option<Judge> {
        JUDGE.replace(judge)
    }

    pub(super) fn ask(place: &Path) -> io::Result<()> {
        let judge = JUDGE.with_borrow(Clone::clone);
        judge.map_or(Ok(()), |judge| judge(place))
    }
}
