//! Where log lines go and how they look. Standard output belongs to the verbs, so lines go to
//! standard error.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, IsTerminal},
};

use tracing::{Event, Level as Severity, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt,
    filter::{FilterExt, filter_fn},
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
};

use crate::{
    config::{Format, Log},
    shown::in_one_line,
};

/// Crates whose lines below INFO are never shown, whatever `RUST_LOG` says: bollard and the HTTP client
/// below it log whole requests and answers, and with them the environments of containers.
const CAPPED: [&str; 3] = ["bollard", "hyper", "hyper_util"];

/// What the environment says about logs, read once by whoever starts the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `RUST_LOG`: wins over the level of the config.
    pub rust_log: Option<OsString>,
    /// `NO_COLOR`: no colours, if it is set and not empty (no-color.org).
    pub no_color: Option<OsString>,
    /// `JOURNAL_STREAM`: the device and inode of the journal's socket (systemd.exec(5)).
    pub journal_stream: Option<OsString>,
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// For people: a time, a level, and colours if the terminal takes them.
    Text { colours: bool },
    /// The journal knows the time by itself, and reads the priority from the start of a line
    /// (sd-daemon(3)).
    Journal,
    /// One object a line.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("RUST_LOG is {0:?}, allowed: a level such as info, or directives such as dbssl=debug")]
    Filter(OsString, #[source] Option<tracing_subscriber::filter::ParseError>),
    #[error("logs are set up already")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// Sets up the logs of this process, once.
pub fn init(log: &Log, environment: &Environment) -> Result<(), Error> {
    let look = look(log.format, environment);
    let filter = filter(log, environment.rust_log.as_deref())?;
    tracing::subscriber::set_global_default(subscriber(look, filter, io::stderr)).map_err(Error::Twice)
}

fn look(format: Format, environment: &Environment) -> Look {
    let stderr = io::stderr();
    match format {
        Format::Json => Look::Json,
        Format::Text if is_journal(environment.journal_stream.as_deref()) => Look::Journal,
        Format::Text => Look::Text {
            colours: stderr.is_terminal() && environment.no_color.as_deref().is_none_or(OsStr::is_empty),
        },
    }
}

/// Whether standard error is the journal: the variable alone is inherited by what redirects it.
fn is_journal(stream: Option<&OsStr>) -> bool {
    let named = stream.and_then(OsStr::to_str).and_then(|text| text.split_once(':'));
    let (Some((device, inode)), Ok(stat)) = (named, rustix::fs::fstat(io::stderr())) else { return false };
    device == stat.st_dev.to_string() && inode == stat.st_ino.to_string()
}

fn filter(log: &Log, rust_log: Option<&OsStr>) -> Result<EnvFilter, Error> {
    match rust_log.filter(|text| !text.is_empty()) {
        None => Ok(EnvFilter::new(log.level.word())),
        Some(text) => {
            let directives = text.to_str().ok_or_else(|| Error::Filter(text.to_owned(), None))?;
            let filter = EnvFilter::builder().parse(directives);
            filter.map_err(|source| Error::Filter(text.to_owned(), Some(source)))
        }
    }
}

fn subscriber<W>(look: Look, filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let fields = format::debug_fn(write_field).delimited(" ");
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match look {
        Look::Text { colours } => layer.fmt_fields(fields).with_ansi(colours).with_target(false).boxed(),
        Look::Journal => {
            let line = format().without_time().with_level(false).with_target(false);
            layer.fmt_fields(fields).with_ansi(false).event_format(Prioritised(line)).boxed()
        }
        Look::Json => layer.json().flatten_event(true).boxed(),
    };
    // A filter beside RUST_LOG's and not a directive of it: there the more specific one would win.
    tracing_subscriber::registry().with(layer.with_filter(filter.and(filter_fn(may_be_shown))))
}

/// A field as one piece of a line. What others say (Docker's errors, which repeat what a container is called, has in it
/// or answers) must not end the line, forge another, or move a terminal's cursor.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        if writer.has_ansi_escapes() {
            write!(writer, "\u{1b}[3m{}\u{1b}[0m=", field.name())?;
        } else {
            write!(writer, "{}=", field.name())?;
        }
    }
    writer.write_str(&in_one_line(&format!("{value:?}")))
}

fn may_be_shown(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let capped = CAPPED
        .iter()
        .any(|name| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")));
    !capped || *metadata.level() <= Severity::INFO
}

/// Puts the priority of syslog(3) in front of each line.
struct Prioritised<F>(F);

impl<F, S, N> FormatEvent<S, N> for Prioritised<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Severity::ERROR => 3,
            Severity::WARN => 4,
            Severity::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(ctx, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Level;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(look: Look, level: Level, rust_log: Option<&str>, say: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { level, format: Format::Text };
        let filter = filter(&log, rust_log.map(OsStr::new)).unwrap();
        tracing::subscriber::with_default(subscriber(look, filter, move || writer.clone()), say);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    fn say_everything() {
        tracing::trace!(target: "bollard::docker", "environment");
        tracing::debug!(target: "hyper_util::client", "environment");
        tracing::debug!(target: "hyper", "environment");
        let _span = tracing::debug_span!(target: "bollard", "span", secret = "environment").entered();
        tracing::info!(target: "bollard::docker", "bollard at info");
        tracing::trace!(target: "bollardian", "another crate");
        tracing::debug!(target: "dbssl::agent", "ours at debug");
        tracing::warn!(target: "dbssl::agent", container = "db", "ours at warn");
    }

    #[test]
    fn environments_are_never_logged_whatever_is_asked_for() {
        for rust_log in [
            "trace",
            "bollard=trace",
            "bollard::docker=trace,hyper=trace,hyper_util=debug,warn",
            "bollard[span]=trace",
            "[span]=trace",
            "trace,bollard[span{secret=environment}]=trace",
        ] {
            let lines = lines(Look::Text { colours: false }, Level::Trace, Some(rust_log), say_everything);
            assert!(!lines.contains("environment"), "{rust_log}: {lines}");
        }
        let lines = lines(Look::Text { colours: false }, Level::Info, Some("trace"), say_everything);
        for shown in ["bollard at info", "another crate", "ours at debug", "ours at warn"] {
            assert!(lines.contains(shown), "{lines}");
        }
    }

    #[test]
    fn rust_log_wins_over_the_config_and_empty_is_not_set() {
        let text = Look::Text { colours: false };
        assert!(!lines(text, Level::Info, None, say_everything).contains("ours at debug"));
        assert!(lines(text, Level::Debug, None, say_everything).contains("ours at debug"));
        assert!(lines(text, Level::Debug, Some(""), say_everything).contains("ours at debug"));
        assert!(!lines(text, Level::Debug, Some("warn"), say_everything).contains("ours at debug"));
        assert!(lines(text, Level::Error, Some("dbssl=debug"), say_everything).contains("ours at debug"));
        let log = Log::default();
        let error = filter(&log, Some(OsStr::new("dbssl=loud"))).unwrap_err();
        assert!(error.to_string().starts_with("RUST_LOG is \"dbssl=loud\", allowed: "), "{error}");
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let say = || {
            tracing::error!("e");
            tracing::warn!(container = "db", "w");
            tracing::info!("i");
            tracing::debug!("d");
        };
        assert_eq!(
            lines(Look::Journal, Level::Debug, None, say),
            "<3>e\n<4>w container=\"db\"\n<6>i\n<7>d\n"
        );
    }

    #[test]
    fn nothing_that_is_logged_forges_a_line_or_moves_the_cursor() {
        let hostile = "no such file\n<3>dbssl: all is lost\r\u{1b}[2J\u{9b}1m\u{202e}";
        for look in [Look::Journal, Look::Text { colours: false }] {
            let lines = lines(look, Level::Info, None, || {
                let _span = tracing::info_span!("database", container = %hostile).entered();
                tracing::warn!(error = %hostile, why = hostile, "message: {hostile}");
            });
            assert_eq!(lines.lines().count(), 1, "{lines}");
            assert!(!lines.trim_end().contains(|letter: char| letter.is_control() || letter == '\u{202e}'));
            assert_eq!(lines.matches("all is lost").count(), 4, "{lines}");
            assert!(lines.contains(r"error=no such file\n<3>dbssl: all is lost\r\u{1b}[2J"), "{lines}");
        }
    }

    #[test]
    fn json_is_one_object_a_line() {
        let lines = lines(Look::Json, Level::Info, None, || tracing::warn!(container = "db", "two\nlines"));
        assert_eq!(lines.lines().count(), 1, "{lines}");
        let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(
            (&line["level"], &line["container"], &line["message"]),
            (&"WARN".into(), &"db".into(), &"two\nlines".into())
        );
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let say = || tracing::info!("i");
        assert!(lines(Look::Text { colours: true }, Level::Info, None, say).contains('\u{1b}'));
        assert!(!lines(Look::Text { colours: false }, Level::Info, None, say).contains('\u{1b}'));
        // Under the test runner standard error may be a terminal; with NO_COLOR it does not matter.
        let environment = Environment { no_color: Some("1".into()), ..Environment::default() };
        assert_eq!(look(Format::Text, &environment), Look::Text { colours: false });
        assert_eq!(look(Format::Json, &environment), Look::Json);
    }

    #[test]
    fn the_journal_is_recognised_by_its_socket_and_not_by_the_variable() {
        let stat = rustix::fs::fstat(io::stderr()).unwrap();
        let stream = |device: u64, inode: u64| OsString::from(format!("{device}:{inode}"));
        assert!(is_journal(Some(&stream(stat.st_dev, stat.st_ino))));
        assert!(!is_journal(Some(&stream(stat.st_dev, stat.st_ino + 1))));
        assert!(!is_journal(Some(OsStr::new("nonsense"))));
        assert!(!is_journal(None));
    }
}
