//! `dbssl ca` as its operator runs it: the real program, with folders of its own and no Docker anywhere.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may fail")]

#[allow(dead_code, reason = "the live tests use the rest")]
#[path = "live/openssl.rs"]
mod openssl;
#[path = "live/waiting.rs"]
mod waiting;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dbssl::{
    model::{KeyType, San, Sans, Secret},
    pki::{Ca, Certificate, LeafRequest, read_pem},
};
use openssl::{Pair, root};
use serde_json::Value;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// What a verb left behind.
#[derive(Debug)]
struct Cli {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Cli {
    /// Refused, for a reason that holds these texts, and with nothing on standard output.
    #[track_caller]
    fn is_refused(&self, texts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (2, ""), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?}: {self:?}");
        }
    }
}

/// A host without Docker.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        // Also where the machine has a config of its own.
        fs::write(host.path("dbssl.toml"), "").unwrap();
        host
    }

    /// One whose agent has been started once, and has found no Docker.
    fn with_a_ca() -> Self {
        let host = Self::new();
        let mut agent = host.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        waiting::wait("there is a CA", 60, || match host.ca(&["show"]) {
            Cli { code: 0, .. } => Ok(()),
            other => Err(format!("{other:?}, the agent {:?}", agent.try_wait())),
        });
        agent.kill().unwrap();
        agent.wait().unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bundle(&self) -> PathBuf {
        self.path("data/coolify-ca.crt")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbssl"));
        command.env_clear().env("DOCKER_HOST", "unix:///nonexistent/docker.sock").stdin(Stdio::null());
        command.arg("--config").arg(self.path("dbssl.toml"));
        command.arg("--data-dir").arg(self.path("data")).arg("--state-dir").arg(self.path("state"));
        command.args(arguments);
        command
    }

    /// `dbssl ca …`, with nothing on standard input.
    fn ca(&self, arguments: &[&str]) -> Cli {
        let output = self.command(&[&["ca"], arguments].concat()).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        for text in [&stdout, &stderr] {
            assert!(!text.contains("PRIVATE KEY-----"), "{arguments:?} shows a key");
        }
        Cli { code: output.status.code().unwrap(), stdout, stderr }
    }

    fn import(&self, certificate: &Path, key: Option<&Path>) -> Cli {
        let mut arguments = vec!["import", "--cert", certificate.to_str().unwrap()];
        if let Some(key) = key {
            arguments.extend(["--key", key.to_str().unwrap()]);
        }
        self.ca(&arguments)
    }

    fn json(&self, verb: &str) -> Value {
        let shown = self.ca(&[verb, "--json"]);
        assert_eq!((shown.code, shown.stderr.as_str()), (0, ""), "{shown:?}");
        serde_json::from_str(&shown.stdout).unwrap()
    }

    /// The subject of the CA in force.
    fn issuing(&self) -> String {
        self.json("show")["issuing"]["subject"].as_str().unwrap().to_owned()
    }

    /// All that makes up the CAs, by name; the audit record and locks aside.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for folder in ["data", "state/ca"] {
            for entry in fs::read_dir(self.path(folder)).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_file() && !path.ends_with(".lock") {
                    files.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    /// `dbssl ca regenerate` on a terminal where somebody types this.
    fn regenerate_on_a_terminal(&self, typed: &str) -> Cli {
        let command = self.command(&["ca", "regenerate"]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, which gives a program a terminal (Debian: bsdutils)");
        script.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = script.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        Cli { code: output.status.code().unwrap(), stdout, stderr: String::new() }
    }
}

#[test]
fn before_there_is_a_ca_nothing_is_told_and_nothing_made() {
    let host = Host::new();
    let out = host.path("out");
    host.ca(&["show"]).is_refused(&["no CA in", "state/ca", "systemctl start dbssl"]);
    host.ca(&["show", "--json"]).is_refused(&["no CA in"]);
    host.ca(&["show", "--pem"]).is_refused(&["there is no", "coolify-ca.crt", "systemctl start dbssl"]);
    host.ca(&["save", out.to_str().unwrap()]).is_refused(&["there is no", "coolify-ca.crt"]);
    host.ca(&["regenerate", "--yes"]).is_refused(&["no CA in"]);
    assert_eq!(host.json("history"), serde_json::json!([]));
    assert!(!out.exists() && !host.path("state").exists() && !host.path("data").exists());
    for arguments in [&[][..], &["no-such-verb"], &["show", "--pem", "--json"], &["save"], &["import"]] {
        let cli = host.ca(arguments);
        assert!(cli.code == 2 && cli.stdout.is_empty() && !cli.stderr.is_empty(), "{arguments:?}: {cli:?}");
    }
}

#[test]
fn show_and_save_tell_what_there_is() {
    let host = Host::with_a_ca();
    let bundle = fs::read(host.bundle()).unwrap();
    let [certificate] = read_pem(&bundle).unwrap().try_into().unwrap();

    let shown = host.json("show");
    assert_eq!(shown["path"], host.bundle().to_str().unwrap());
    assert_eq!(shown["warnings"], serde_json::json!([]));
    let issuing = &shown["issuing"];
    assert_eq!((&issuing["origin"], &issuing["proved"]), (&Value::from("generated"), &Value::Null));
    assert_eq!(issuing["subject"], certificate.subject());
    assert_eq!(issuing["sha256"], certificate.fingerprint_hex());
    let end = OffsetDateTime::parse(issuing["valid_until"].as_str().unwrap(), &Rfc3339).unwrap();
    assert_eq!(end, certificate.not_after());
    assert_eq!(shown["bundle"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&shown["bundle"][0]["role"], &shown["bundle"][0]["sha256"]),
        (&Value::from("issuing"), &issuing["sha256"])
    );

    let text = host.ca(&["show"]);
    assert_eq!((text.code, text.stderr.as_str()), (0, ""), "{text:?}");
    assert!(
        text.stdout.contains(certificate.subject()) && text.stdout.contains(&certificate.fingerprint_hex())
    );
    assert_eq!(host.ca(&["show", "--pem"]).stdout.as_bytes(), bundle);

    let out = host.path("out.crt");
    let save = || host.ca(&["save", out.to_str().unwrap()]);
    assert_eq!(save().code, 0);
    assert_eq!(fs::read(&out).unwrap(), bundle);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o644);
    // Not over anything, be it the same or somebody's only copy of something else.
    save().is_refused(&["out.crt is not written over"]);
    fs::write(&out, "mine").unwrap();
    save().is_refused(&["out.crt is not written over"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
    let nowhere = host.path("no/folder/out.crt");
    host.ca(&["save", nowhere.to_str().unwrap()]).is_refused(&["No such file or directory"]);
    // Somebody has put a key into it as well.
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    fs::write(host.bundle(), [&bundle, key.as_bytes()].concat()).unwrap();
    fs::remove_file(&out).unwrap();
    let refused = save();
    assert_eq!((refused.code, out.exists()), (2, false), "{refused:?}");
    assert!(refused.stderr.contains("holds a private key"), "{refused:?}");
}

#[test]
fn a_new_ca_is_made_only_for_somebody_who_said_so() {
    let host = Host::with_a_ca();
    let (first, before) = (host.issuing(), host.files());
    host.ca(&["regenerate"]).is_refused(&["replaces the CA of every database", "--yes"]);
    for answer in ["n\n", "\n", "yess\n"] {
        let asked = host.regenerate_on_a_terminal(answer);
        assert_eq!(asked.code, 2, "{answer:?}: {asked:?}");
        assert!(asked.stdout.contains("[y/N]") && asked.stdout.contains("nothing was changed"), "{asked:?}");
    }
    assert_eq!(host.files(), before);

    let done = host.ca(&["regenerate", "--yes"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    assert!(
        done.stdout.contains(&format!("{first} stays trusted")) && done.stdout.contains("no agent runs"),
        "{done:?}"
    );
    let second = host.issuing();
    assert_ne!(second, first);
    let shown = host.json("show");
    let role = |subject: &str| {
        let held =
            shown["bundle"].as_array().unwrap().iter().find(|held| held["subject"] == subject).unwrap();
        (held["role"].clone(), held["overlap_ends"].is_string())
    };
    assert_eq!(role(&first), (Value::from("former"), true));
    assert_eq!(role(&second), (Value::from("issuing"), false));

    let done = host.regenerate_on_a_terminal("y\n");
    assert_eq!(done.code, 0, "{done:?}");
    let third = host.issuing();
    assert!(third != first && third != second);
    let history = host.json("history");
    let made: Vec<_> =
        history.as_array().unwrap().iter().map(|record| (&record["what"], &record["subject"])).collect();
    let generated = Value::from("ca-generated");
    assert_eq!(
        made,
        [first, second, third]
            .each_ref()
            .map(|subject| Value::from(subject.as_str()))
            .iter()
            .map(|subject| (&generated, subject))
            .collect::<Vec<_>>()
    );
    let text = host.ca(&["history"]);
    assert_eq!((text.code, text.stdout.lines().count()), (0, 3), "{text:?}");
}

/// Whoever has lost the key has no other way but a backup.
#[test]
fn a_new_ca_is_made_where_the_one_in_force_is_of_no_use() {
    let host = Host::with_a_ca();
    let first = host.issuing();
    let keys: Vec<_> = host
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.extension().is_some_and(|end| end == "key"))
        .collect();
    assert_eq!(keys.len(), 1);
    fs::remove_file(&keys[0]).unwrap();
    host.ca(&["show"]).is_refused(&["its key", "is missing", "dbssl ca regenerate"]);
    let done = host.ca(&["regenerate", "--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains(&format!("clients that know only {first}")), "{done:?}");
    assert_ne!(host.issuing(), first);
    // Nobody asks for another CA where there is none.
    Host::new().ca(&["regenerate", "--yes"]).is_refused(&["no CA in", "systemctl start dbssl"]);
}

#[test]
fn a_ca_is_imported_with_its_key_or_without() {
    let host = Host::with_a_ca();
    let own = host.issuing();
    let company = root(host.0.path(), "company", "/DC=corp/DC=example/OU=a/OU=b/CN=Company Root");
    // Without: it is trusted, and ours goes on.
    let trusted = host.import(&company.certificate, None);
    assert_eq!(trusted.code, 0, "{trusted:?}");
    assert!(trusted.stderr.contains("warning:") && trusted.stderr.contains("without its key"), "{trusted:?}");
    assert_eq!(host.issuing(), own);
    let upload = fs::read(&company.certificate).unwrap();
    let bundle = fs::read(host.bundle()).unwrap();
    assert!(bundle.starts_with(&upload) && bundle.len() > upload.len());
    assert_eq!(host.json("show")["bundle"][0]["role"], "trusted");

    let imported = host.import(&company.certificate, Some(&company.key));
    assert_eq!(imported.code, 0, "{imported:?}");
    assert!(
        imported.stdout.contains("custom CA in force") && imported.stdout.contains("no agent runs"),
        "{imported:?}"
    );
    let shown = host.json("show");
    assert_eq!(shown["issuing"]["origin"], "imported");
    assert!(shown["issuing"]["subject"].as_str().unwrap().contains("Company Root"), "{shown:#}");
    assert!(fs::read(host.bundle()).unwrap().starts_with(&upload));
    let key = host.path("data/coolify-ca.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    // Once more is nothing to do.
    let before = host.files();
    let again = host.import(&company.certificate, Some(&company.key));
    assert_eq!(again.code, 0, "{again:?}");
    assert!(!again.stdout.contains("in force"), "{again:?}");
    assert_eq!(host.files(), before);
    let history = host.json("history");
    let last = history.as_array().unwrap().last().unwrap();
    assert_eq!((&last["what"], &last["sha256"]), (&Value::from("ca-imported"), &shown["issuing"]["sha256"]));

    // Keys are in the store and beside the upload, for root alone, and nowhere else.
    for (path, content) in host.files() {
        let secret = String::from_utf8_lossy(&content).contains("PRIVATE KEY");
        assert_eq!(
            secret,
            path.extension().is_some_and(|extension| extension == "key"),
            "{}",
            path.display()
        );
        if secret {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }
}

#[test]
fn what_cannot_be_a_ca_is_refused_and_nothing_changes() {
    let host = Host::with_a_ca();
    let before = host.files();
    let folder = host.0.path();
    let (company, other) = (root(folder, "company", "/CN=company"), root(folder, "other", "/CN=other"));
    let (expired, leaf) = (expired(folder), leaf(folder));
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let pem = fs::read(&company.certificate).unwrap();
    let secret = fs::read(&company.key).unwrap();
    let half = write("half", &pem[..pem.len() / 2]);
    let empty = write("empty", b"");
    let with_key = write("with-key", &[&pem[..], &secret].concat());
    let no_key = write("no-key", b"not a key\n");
    let absent = folder.join("absent");
    for (certificate, key, said) in [
        (
            &company.certificate,
            Some(&other.key),
            &["the key is refused", "belongs to another certificate"][..],
        ),
        (&company.certificate, Some(&no_key), &["the key is refused", "no PEM private key"]),
        (&company.certificate, Some(&absent), &["there is no file", "absent"]),
        (&absent, None, &["there is no file", "absent"]),
        (&expired.certificate, None, &["the certificate file is refused", "expired"]),
        (&expired.certificate, Some(&expired.key), &["expired"]),
        (&leaf.certificate, None, &["the certificate file is refused", "it holds no root"]),
        (&leaf.certificate, Some(&leaf.key), &["not a CA"]),
        (&half, None, &["the certificate file is refused", "cut off"]),
        (&empty, None, &["the certificate file is refused", "empty"]),
        (&company.key, None, &["the certificate file is refused", "private key"]),
        (&with_key, None, &["the certificate file is refused", "private key"]),
    ] {
        host.import(certificate, key.map(PathBuf::as_path)).is_refused(said);
        assert_eq!(host.files(), before, "{}, {key:?}", certificate.display());
    }
}

#[test]
fn the_last_bundle_of_use_comes_back() {
    let host = Host::with_a_ca();
    let (issuing, bundle) = (host.issuing(), fs::read(host.bundle()).unwrap());
    let restores = |what: &str| {
        // What is empty or cut off may be somebody's upload on its way, for a second.
        let restored = waiting::wait("the file has come to rest", 20, || match host.ca(&["restore"]) {
            Cli { code: 2, stderr, .. } if stderr.contains("may be just being written") => Err(stderr),
            done => Ok(done),
        });
        assert_eq!((restored.code, restored.stderr.as_str()), (0, ""), "{what}: {restored:?}");
        assert!(restored.stdout.contains("holds the last bundle that was of use"), "{what}: {restored:?}");
        assert_eq!(fs::read(host.bundle()).unwrap(), bundle, "{what}");
        assert_eq!(host.issuing(), issuing, "{what}");
        restored.stdout
    };
    restores("nothing is wrong");
    for garbage in [&b"garbage"[..], b"", b"-----BEGIN CERTIFICATE-----\nMII", &[0; 4096]] {
        fs::write(host.bundle(), garbage).unwrap();
        assert_ne!(host.ca(&["show"]).stdout, "", "shown all the same");
        restores("garbage");
    }
    fs::remove_file(host.bundle()).unwrap();
    host.ca(&["show", "--pem"]).is_refused(&["there is no"]);
    restores("gone");
    // What is no file is not written through.
    let elsewhere = host.path("elsewhere");
    fs::write(&elsewhere, "of somebody else").unwrap();
    fs::remove_file(host.bundle()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, host.bundle()).unwrap();
    assert!(restores("a link").contains("what was there is"));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "of somebody else");
    assert!(fs::symlink_metadata(host.bundle()).unwrap().is_file());
}

/// A root whose time is over.
fn expired(folder: &Path) -> Pair {
    let ca =
        Ca::generate("host", KeyType::P256, Duration::days(20), today(folder) - Duration::days(30)).unwrap();
    pair(folder, "expired", ca.certificate(), ca.key_pem())
}

/// A server's certificate.
fn leaf(folder: &Path) -> Pair {
    let now = today(folder);
    let ca = Ca::generate("host", KeyType::P256, Duration::days(20), now).unwrap();
    let sans = Sans::from([San::Dns("db".to_owned())]);
    let lifetime = Duration::days(10);
    let request = LeafRequest { common_name: "db", sans: &sans, key_type: KeyType::P256, lifetime };
    let leaf = ca.issue(&request, now).unwrap();
    pair(folder, "leaf", &leaf.certificate, &leaf.key)
}

fn pair(folder: &Path, name: &str, certificate: &Certificate, key: &Secret) -> Pair {
    let pair =
        Pair { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
    fs::write(&pair.certificate, certificate.to_pem()).unwrap();
    fs::write(&pair.key, key.expose()).unwrap();
    pair
}

/// As the folder's file system knows it.
fn today(folder: &Path) -> OffsetDateTime {
    fs::metadata(folder).unwrap().modified().unwrap().into()
}
