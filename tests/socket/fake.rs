//! The socket: a thread for each connection, HTTP/1.1 by hand.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Container,
    answers::{self, event},
};

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Well,
    /// Well, and after so long.
    Late(Duration),
    /// Not at all, until the caller leaves.
    Never,
    /// With bytes that are no HTTP.
    Garbage,
    /// With JSON of another shape than Docker's.
    OtherJson,
    /// By half of an answer, and the end of the connection.
    Half,
    Status500,
    /// With a body that does not end.
    Endless,
}

/// Goes with its variable.
pub struct Fake {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    containers: Vec<Container>,
    /// All of them, as `GET /containers/json` has them.
    list: Vec<u8>,
    manner: Mutex<(&'static str, Manner)>,
    /// Method and path of every call.
    calls: Mutex<Vec<String>>,
    /// Inspections that wait for their answer, now and at the most.
    inspecting: AtomicUsize,
    most_inspecting: AtomicUsize,
    /// Bytes of bodies without end that were taken.
    endless: AtomicUsize,
    listeners: Mutex<Vec<Sender<String>>>,
}

impl Fake {
    pub fn start(containers: Vec<Container>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let rows: Vec<_> = containers.iter().map(Container::listed).collect();
        let shared = Arc::new(Shared {
            list: json!(rows).to_string().into_bytes(),
            containers,
            manner: Mutex::new(("", Manner::Well)),
            calls: Mutex::default(),
            inspecting: AtomicUsize::new(0),
            most_inspecting: AtomicUsize::new(0),
            endless: AtomicUsize::new(0),
            listeners: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        // Threads that nobody waits for end with the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&serving));
                // A caller that leaves is no failure.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { folder, shared }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// From now on, calls whose path contains `path` are answered so.
    pub fn answers(&self, path: &'static str, manner: Manner) {
        *self.shared.manner.lock().unwrap() = (path, manner);
    }

    pub fn count(&self, of: impl Fn(&str) -> bool) -> usize {
        self.shared.calls.lock().unwrap().iter().filter(|call| of(call)).count()
    }

    /// How often the container was inspected, by name or by id.
    pub fn inspections(&self, container: &Container) -> usize {
        let paths =
            [container.name(), answers::id(container.number)].map(|by| format!("/containers/{by}/json"));
        self.count(|call| paths.iter().any(|path| call.ends_with(path)))
    }

    /// The most that ever waited at once; one counts for a moment longer than its caller waits.
    pub fn most_inspecting(&self) -> usize {
        self.shared.most_inspecting.load(Ordering::SeqCst)
    }

    pub fn endless_bytes(&self) -> usize {
        self.shared.endless.load(Ordering::SeqCst)
    }

    pub fn has_listener(&self) -> bool {
        !self.shared.listeners.lock().unwrap().is_empty()
    }

    /// An event of that container to everybody who listens.
    pub fn event(&self, number: usize, action: &str) {
        let line = event(number, action);
        self.shared.listeners.lock().unwrap().retain(|listener| listener.send(line.clone()).is_ok());
    }
}

impl Shared {
    fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        loop {
            let Some((method, path)) = request(&mut reader)? else { return Ok(()) };
            self.calls.lock().unwrap().push(format!("{method} {path}"));
            let inspects = path.ends_with("/json") && path.contains("/containers/c");
            let inspects = inspects || path.contains("/containers/0") && path.ends_with("/json");
            if inspects {
                let now = self.inspecting.fetch_add(1, Ordering::SeqCst) + 1;
                self.most_inspecting.fetch_max(now, Ordering::SeqCst);
            }
            let done = self.answer(&mut reader, &mut writer, &path);
            if inspects {
                self.inspecting.fetch_sub(1, Ordering::SeqCst);
            }
            if !done? {
                return Ok(());
            }
        }
    }

    /// Whether the connection goes on.
    fn answer(&self, reader: &mut impl Read, writer: &mut UnixStream, path: &str) -> io::Result<bool> {
        let (which, manner) = *self.manner.lock().unwrap();
        match if path.contains(which) { manner } else { Manner::Well } {
            Manner::Well => {}
            // Not waited for by the test: the answer is meant to be late.
            Manner::Late(late) => until_gone_or(reader, writer, Instant::now() + late)?,
            Manner::Never => {
                until_gone_or(reader, writer, Instant::now() + Duration::from_secs(300))?;
                return Ok(false);
            }
            Manner::Garbage => {
                writer.write_all(b"\x15\x03\x01\0\xff no HTTP at all \xff\xfe\r\n\r\n")?;
                return Ok(false);
            }
            Manner::OtherJson => {
                json_answer(writer, 200, &json!({ "x": [1, { "Id": 7, "Names": "no" }] }))?;
                return Ok(true);
            }
            Manner::Half => {
                writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n[{\"Id\":\"00")?;
                return Ok(false);
            }
            Manner::Status500 => {
                json_answer(writer, 500, &json!({ "message": "something broke\n\u{1b}[31minside" }))?;
                return Ok(true);
            }
            Manner::Endless => {
                writer.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
                loop {
                    writer.write_all(&chunk)?;
                    self.endless.fetch_add(0x10000, Ordering::SeqCst);
                }
            }
        }
        if path.contains("/events") {
            return self.stream(writer).map(|()| false);
        }
        self.well(writer, path).map(|()| true)
    }

    fn well(&self, writer: &mut UnixStream, path: &str) -> io::Result<()> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        // Behind the version of the API, if there is one.
        let parts: Vec<_> =
            path.split('/').skip_while(|part| part.is_empty() || part.starts_with("v1")).collect();
        match parts.as_slice() {
            ["version"] => json_answer(writer, 200, &answers::version()),
            ["_ping"] => json_answer(writer, 200, &json!("OK")),
            ["info"] => json_answer(writer, 200, &answers::info()),
            // The one filter that the agent uses unasked is for what it left itself, and there is none of that.
            ["containers", "json"] if query.contains("filters=") => json_answer(writer, 200, &json!([])),
            ["containers", "json"] => send(writer, 200, "application/json", &self.list),
            ["containers", who, "json"] => {
                let is_it = |one: &&Container| one.name() == *who || answers::id(one.number) == *who;
                match self.containers.iter().find(is_it) {
                    Some(found) => json_answer(writer, 200, &found.inspect()),
                    None => json_answer(writer, 404, &json!({ "message": "No such container" })),
                }
            }
            ["containers", _, "archive"] if query.contains("passwd") => {
                send(writer, 200, "application/x-tar", &answers::passwd())
            }
            ["images", ..] => json_answer(writer, 200, &answers::image()),
            _ => json_answer(writer, 404, &json!({ "message": "page not found" })),
        }
    }

    fn stream(&self, writer: &mut UnixStream) -> io::Result<()> {
        writer.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        let (sender, lines) = channel();
        self.listeners.lock().unwrap().push(sender);
        for line in lines {
            writer.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())?;
        }
        Ok(())
    }
}

/// Method and path of the next request; `None` at the end of the connection.
fn request(reader: &mut impl BufRead) -> io::Result<Option<(String, String)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(Some((method, path)))
}

/// Returns at that moment, or with an error once the caller has hung up.
fn until_gone_or(reader: &mut impl Read, stream: &UnixStream, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    let read = reader.read(&mut [0]);
    stream.set_read_timeout(None)?;
    match read {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
        _ => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

fn json_answer(writer: &mut UnixStream, status: u16, body: &Value) -> io::Result<()> {
    send(writer, status, "application/json", body.to_string().as_bytes())
}

fn send(writer: &mut UnixStream, status: u16, kind: &str, body: &[u8]) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    writer.write_all(&[head.as_bytes(), body].concat())
}
