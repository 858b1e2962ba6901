//! The service manager's notify protocol (sd_notify(3), systemd.service(5)).
//!
//! Without a service manager every call does nothing, so nobody has to ask whether there is one.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    time::Duration,
};

/// What the service manager put into the environment, read once by whoever starts the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub notify_socket: Option<OsString>,
    pub watchdog_usec: Option<OsString>,
    pub watchdog_pid: Option<OsString>,
}

/// Tells the service manager how the agent is.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("NOTIFY_SOCKET is {0:?}, allowed: an absolute path, or @ and an abstract name")]
    Address(OsString),
    #[error("WATCHDOG_USEC is {0:?}, allowed: microseconds, more than 0")]
    Watchdog(OsString),
    #[error("cannot open a socket for the service manager")]
    Open(#[source] io::Error),
    #[error("cannot tell the service manager {message:?}")]
    Send { message: String, source: io::Error },
}

impl Notifier {
    /// Does nothing if the environment names no socket. `pid` is this process: a watchdog that is
    /// meant for another one is ignored.
    pub fn new(environment: &Environment, pid: u32) -> Result<Self, Error> {
        let manager = match environment.notify_socket.as_deref() {
            None => None,
            Some(name) if name.is_empty() => None,
            Some(name) => {
                let address = address(name).ok_or_else(|| Error::Address(name.to_owned()))?;
                let socket = UnixDatagram::unbound().map_err(Error::Open)?;
                // A service manager that does not read must not stop the agent.
                socket.set_nonblocking(true).map_err(Error::Open)?;
                Some((socket, address))
            }
        };
        let ours = environment.watchdog_pid.as_deref().is_none_or(|text| text == pid.to_string().as_str());
        let watchdog = match environment.watchdog_usec.as_deref().filter(|_| ours) {
            None => None,
            Some(text) => {
                let usec = text.to_str().and_then(|text| text.parse().ok()).filter(|&usec: &u64| usec > 0);
                Some(Duration::from_micros(usec.ok_or_else(|| Error::Watchdog(text.to_owned()))?))
            }
        };
        Ok(Self { manager, watchdog })
    }

    /// How often [`Self::watchdog`] is due: half of the time after which the service manager would
    /// kill the agent. `None`: it does not watch.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// The start is over: journals are recovered. Docker need not have answered.
    pub fn ready(&self) -> Result<(), Error> {
        self.send("READY=1")
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) -> Result<(), Error> {
        // A line end would begin another assignment.
        let line: String = line.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(&format!("STATUS={line}"))
    }

    /// The loop turns: say it at least every [`Self::watchdog_interval`].
    pub fn watchdog(&self) -> Result<(), Error> {
        self.send("WATCHDOG=1")
    }

    pub fn stopping(&self) -> Result<(), Error> {
        self.send("STOPPING=1")
    }

    /// Starting or stopping takes longer: wait this much from now on. To be repeated before it is over.
    pub fn extend_timeout(&self, by: Duration) -> Result<(), Error> {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()))
    }

    fn send(&self, message: &str) -> Result<(), Error> {
        let Some((socket, address)) = &self.manager else { return Ok(()) };
        socket
            .send_to_addr(message.as_bytes(), address)
            .map(drop)
            .map_err(|source| Error::Send { message: message.to_owned(), source })
    }
}

fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(Path::new(name)).ok(),
        _ => None,
    }
}
