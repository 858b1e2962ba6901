//! The `dbssl` binary: arguments and environment in, exit code out. Everything else is in the library.

use std::process::ExitCode;

use dbssl::{cli, host::systemd, logging};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &environment())
}

/// The only place that reads the process's environment.
fn environment() -> cli::Environment {
    let read = |name: &str| std::env::var_os(name);
    cli::Environment {
        docker_host: read("DOCKER_HOST"),
        logging: logging::Environment {
            rust_log: read("RUST_LOG"),
            no_color: read("NO_COLOR"),
            journal_stream: read("JOURNAL_STREAM"),
        },
        systemd: systemd::Environment {
            notify_socket: read("NOTIFY_SOCKET"),
            watchdog_usec: read("WATCHDOG_USEC"),
            watchdog_pid: read("WATCHDOG_PID"),
        },
    }
}
