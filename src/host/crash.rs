//! Places where the live tests kill the agent. Nothing in a build without the `live` feature.

/// Dies as by SIGKILL when `DBSSL_CRASH_AT` names this point.
#[cfg(feature = "live")]
pub fn point(name: &str) {
    // A test's own hook, not a setting.
    #[allow(clippy::disallowed_methods)]
    let wanted = std::env::var("DBSSL_CRASH_AT");
    if wanted.is_ok_and(|wanted| wanted == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(not(feature = "live"))]
pub const fn point(_name: &str) {}
