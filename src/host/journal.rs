//! The journal: one file for each operation that is under way, gone when it is over.
//!
//! The first line is the [`Operation`], each further line a [`Phase`] that was about to begin. Lines are
//! appended and synced before the call that they announce, so after a crash the file tells how far things
//! may have come. A last line torn by a crash announces a call that was never made, and is ignored.
//!
//! Whoever works on an operation has its file locked (`flock`), which ends with him: what is locked is not unfinished.
//!
//! The record holds the container's raw inspect, passwords included: the folder is 0700, files 0600.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tracing::error;

use crate::model::{ContainerId, ContainerName};

/// What an operation does to its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Restart,
    Recreate,
}

/// All that is needed to bring an operation to its end, or back to its beginning, without asking anybody.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// 16 hexadecimal digits; the successor carries it as a label.
    pub id: String,
    pub kind: Kind,
    pub name: ContainerName,
    pub old: ContainerId,
    #[serde(with = "time::serde::timestamp")]
    pub begun: OffsetDateTime,
    /// Where the data is, in the container: nobody else may run on it.
    pub data_directory: String,
    /// Who had the data mounted before, running or not (a side-car that takes backups): its owner's affair, whenever
    /// it is started.
    #[serde(default)]
    pub sharers: Vec<ContainerId>,
    /// The successor, once Docker has made it. After a crash only its label tells it.
    #[serde(skip)]
    pub made: Option<ContainerId>,
    /// The old container as it was, in Docker's own JSON.
    pub inspect: Value,
}

impl Operation {
    /// The old container's name while its successor is being tried.
    pub fn parked_name(&self) -> String {
        format!("{}{PARKED}", self.name)
    }

    /// What it is called in the journal.
    pub fn file_name(&self) -> String {
        format!("{}.jsonl", self.id)
    }

    /// The network that there is not, which keeps the parked container from being started.
    pub fn brake(&self) -> String {
        format!("{BRAKE_PREFIX}{}", self.id)
    }

    pub fn restart_policy(&self) -> &Value {
        &self.inspect["HostConfig"]["RestartPolicy"]
    }
}

/// How a parked container's name ends.
pub const PARKED: &str = ".dbssl-parked";
/// Networks of this prefix are brakes and nothing else.
pub const BRAKE_PREFIX: &str = "dbssl-parked-";

macro_rules! phases {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// What was about to begin.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Phase {
            $($(#[$doc])* #[serde(rename = $word)] $name,)+
        }

        impl Phase {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}
phases! {
    /// Recorded; nothing has been touched.
    Begun = "begun",
    /// The old container's restart policy is set to `no`.
    PolicyOff = "policy-off",
    /// The old container, still running, gets its parked name.
    Park = "park",
    Stop = "stop",
    /// The old container is made impossible to start.
    Brake = "brake",
    /// The successor is made.
    Create = "create",
    /// The successor gets its further networks and what lived in the old container alone.
    Furnish = "furnish",
    Start = "start",
    Prove = "prove",
    /// Proved: from here on the successor stays.
    Commit = "commit",
    RemoveOld = "remove-old",
    /// Given up: from here on the old container comes back.
    RollBack = "roll-back",
}

/// An operation's open file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    announced: BTreeSet<Phase>,
}

#[derive(Debug, thiserror::Error)]
#[error("journal: cannot {what} {path}: {error}")]
pub struct JournalError {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl Journal {
    /// Records that an operation begins. On disk when this returns.
    pub fn begin(folder: &Path, operation: &Operation) -> Result<Self, JournalError> {
        make_folder(folder)?;
        let path = folder.join(operation.file_name());
        let fail = |what| failure(what, &path);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail("create"))?;
        if !lock(&file).map_err(fail("lock"))? {
            return Err(fail("lock")(io::ErrorKind::ResourceBusy.into()));
        }
        let mut journal = Self { path: path.clone(), file, announced: BTreeSet::new() };
        let line = serde_json::to_string(operation).map_err(|error| fail("write")(error.into()))?;
        journal.append(&line).and_then(|()| sync_folder(folder)).inspect_err(|_| {
            // Nothing has been touched yet: leave nothing behind.
            let _ = fs::remove_file(&path);
        })?;
        super::crash::point(Phase::Begun.word());
        Ok(journal)
    }

    /// Announces a phase. On disk when this returns.
    pub fn phase(&mut self, phase: Phase) -> Result<(), JournalError> {
        self.append(phase.word())?;
        self.announced.insert(phase);
        super::crash::point(phase.word());
        Ok(())
    }

    /// Whether the phase was ever announced, in this run of the agent or an earlier one.
    pub fn has_announced(&self, phase: Phase) -> bool {
        self.announced.contains(&phase)
    }

    /// The operation is over.
    pub fn end(self) -> Result<(), JournalError> {
        // Locked until it is gone, so that nobody takes it up.
        let Self { path, file: _file, announced: _ } = self;
        super::crash::removal();
        fs::remove_file(&path).map_err(failure("remove", &path))?;
        path.parent().map_or(Ok(()), sync_folder)
    }

    fn append(&mut self, line: &str) -> Result<(), JournalError> {
        let line = format!("{line}\n");
        super::crash::disk(&self.path)
            .and_then(|()| self.file.write_all(line.as_bytes()))
            .map_err(failure("write", &self.path))?;
        self.file.sync_data().map_err(failure("sync", &self.path))
    }
}

/// An operation that did not come to its end.
pub struct Unfinished {
    pub operation: Operation,
    /// The last phase that was announced.
    pub phase: Phase,
    pub journal: Journal,
}

/// Whether there is any operation, under way or left.
pub fn has_any(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| is_record(&entry.path()))
}

fn is_record(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

/// All operations that nobody works on. What was never whole was never acted upon, and is removed; what cannot be
/// understood is put aside for a human. One bad file hides no other.
pub fn unfinished(folder: &Path) -> Result<Vec<Unfinished>, JournalError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failure("read", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failure("read", folder))?.path();
        if !is_record(&path) {
            continue;
        }
        match take_up(&path) {
            Ok(unfinished) => found.extend(unfinished),
            Err(error) => error!(%error, "an operation in the journal cannot be taken up"),
        }
    }
    Ok(found)
}

/// Whether an operation on the container of that name is under way, or was left by an agent that died. Only looks.
pub fn is_under_way(folder: &Path, name: &ContainerName) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .any(|text| understand(&text).is_some_and(|(operation, _)| operation.name == *name))
}

fn take_up(path: &Path) -> Result<Option<Unfinished>, JournalError> {
    let file = match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failure("open", path))?,
    };
    if !lock(&file).map_err(failure("lock", path))? {
        return Ok(None);
    }
    let text = fs::read_to_string(path).map_err(failure("read", path))?;
    if !text.contains('\n') {
        fs::remove_file(path).map_err(failure("remove", path))?;
        return Ok(None);
    }
    let Some((operation, announced)) = understand(&text) else {
        let aside = path.with_extension("broken");
        fs::rename(path, &aside).map_err(failure("put aside", path))?;
        error!(file = %aside.display(), "an operation in the journal cannot be understood: look whether a container *.dbssl-parked is left, then remove the file");
        return Ok(None);
    };
    let phase = announced.last().copied().unwrap_or(Phase::Begun);
    let mut journal = Journal { path: path.to_owned(), file, announced: announced.into_iter().collect() };
    if !text.ends_with('\n') {
        // Close the torn line, so that the next one stands alone.
        journal.append("")?;
    }
    Ok(Some(Unfinished { operation, phase, journal }))
}

/// The record, and the phases in the order in which they were announced.
fn understand(text: &str) -> Option<(Operation, Vec<Phase>)> {
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let operation = serde_json::from_str(lines.next()?).ok()?;
    let phases = lines.filter_map(|line| Phase::ALL.iter().copied().find(|phase| phase.word() == line));
    Some((operation, phases.collect()))
}

/// Has the file for as long as it is open; `false` if somebody else has it, or has ended with it.
fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.metadata()?.nlink() > 0),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn make_folder(folder: &Path) -> Result<(), JournalError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failure("create", folder))?;
    folder.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> Result<(), JournalError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failure("sync", folder))
}

fn failure(what: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |error| JournalError { what, path: path.clone(), error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn operation() -> Operation {
        Operation {
            id: "00ff00ff00ff00ff".into(),
            kind: Kind::Recreate,
            name: "db".parse().unwrap(),
            old: "a".repeat(64).parse().unwrap(),
            begun: OffsetDateTime::UNIX_EPOCH,
            data_directory: "/data".into(),
            sharers: vec!["b".repeat(64).parse().unwrap()],
            made: None,
            inspect: json!({ "HostConfig": { "RestartPolicy": { "Name": "always" } } }),
        }
    }

    #[test]
    fn an_unfinished_operation_is_found_with_its_last_phase() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("journal");
        assert!(unfinished(&folder).unwrap().is_empty());
        drop(Journal::begin(&folder, &operation()).unwrap());
        let found = unfinished(&folder).unwrap().remove(0);
        assert_eq!(found.phase, Phase::Begun);
        let mut journal = found.journal;
        journal.phase(Phase::PolicyOff).unwrap();
        journal.phase(Phase::Stop).unwrap();
        drop(journal);
        assert!(is_under_way(&folder, &"db".parse().unwrap()));
        assert!(!is_under_way(&folder, &"other".parse().unwrap()));
        let found = unfinished(&folder).unwrap().remove(0);
        assert!(found.operation == operation());
        assert_eq!(found.phase, Phase::Stop);
        found.journal.end().unwrap();
        assert!(unfinished(&folder).unwrap().is_empty());
        assert!(!is_under_way(&folder, &"db".parse().unwrap()));
    }

    /// An update of dbssl may come in the middle of an operation.
    #[test]
    fn a_record_of_before_sharers_were_recorded_is_understood() {
        let mut old = serde_json::to_value(operation()).unwrap();
        old.as_object_mut().unwrap().remove("sharers");
        let (found, phases) = understand(&format!("{old}\nstop\n")).unwrap();
        assert!(found == Operation { sharers: Vec::new(), ..operation() });
        assert_eq!(phases, [Phase::Stop]);
    }

    #[test]
    fn a_torn_line_announces_nothing_and_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), &operation()).unwrap();
        journal.phase(Phase::Stop).unwrap();
        journal.file.write_all(b"par").unwrap();
        drop(journal);
        let mut found = unfinished(folder.path()).unwrap().remove(0);
        assert_eq!(found.phase, Phase::Stop);
        found.journal.phase(Phase::RollBack).unwrap();
        drop(found);
        assert_eq!(unfinished(folder.path()).unwrap()[0].phase, Phase::RollBack);
    }

    #[test]
    fn a_record_that_was_never_whole_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.jsonl");
        fs::write(&path, "{\"id\":\"00").unwrap();
        assert!(unfinished(folder.path()).unwrap().is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn a_record_of_another_version_is_put_aside_and_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        Journal::begin(folder.path(), &operation()).unwrap();
        fs::write(folder.path().join("1.jsonl"), "{\"version\":9}\nstop\n").unwrap();
        assert_eq!(unfinished(folder.path()).unwrap().len(), 1);
        assert!(folder.path().join("1.broken").exists());
    }

    #[test]
    fn what_somebody_works_on_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_any(folder.path()));
        let journal = Journal::begin(folder.path(), &operation()).unwrap();
        assert!(has_any(folder.path()));
        assert!(unfinished(folder.path()).unwrap().is_empty());
        drop(journal);
        let left = unfinished(folder.path()).unwrap();
        assert_eq!(left.len(), 1);
        assert!(unfinished(folder.path()).unwrap().is_empty(), "the one who found it has it");
    }

    /// Another may look at the very moment at which one ends.
    #[test]
    fn what_has_just_ended_is_not_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::begin(folder.path(), &operation()).unwrap();
        let late = OpenOptions::new().append(true).open(&journal.path).unwrap();
        assert!(!lock(&late).unwrap());
        journal.end().unwrap();
        assert!(!lock(&late).unwrap());
    }

    #[test]
    fn records_are_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("journal");
        let _journal = Journal::begin(&folder, &operation()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("00ff00ff00ff00ff.jsonl")), 0o600);
    }
}
