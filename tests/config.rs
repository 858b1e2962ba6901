//! The config file as its reader meets it: the shipped sample, and what is said of a wrong one.

use std::{fs, path::Path, time::Duration};

use dbssl::{
    config::{self, BadRoots, Format, Level, LoadError, Settings},
    model::KeyType,
};

const SAMPLE: &str = include_str!("../config/dbssl.toml");

fn problems(text: &str) -> Vec<String> {
    let problems = config::parse(text).err().unwrap_or_default();
    assert!(!problems.is_empty(), "{text:?} was taken");
    problems.iter().map(ToString::to_string).collect()
}

fn problem(text: &str) -> String {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

#[test]
fn the_shipped_sample_is_the_defaults() {
    assert_eq!(config::parse(SAMPLE), Ok(Settings::default()));
    assert_eq!(config::parse(""), Ok(Settings::default()));
}

#[test]
fn the_shipped_sample_has_every_key_with_a_line_about_it() {
    let mut table = String::new();
    let mut found = Vec::new();
    let mut explained = false;
    for line in SAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_end_matches(']'));
        } else if line.starts_with('#') {
            explained = true;
        } else if let Some((key, _)) = line.split_once(" = ") {
            assert!(explained, "no line about {key}");
            found.push(format!("{table}{key}"));
        } else {
            explained = false;
        }
    }
    assert_eq!(found, config::keys());
}

#[test]
fn every_key_counts() {
    let settings = config::parse(
        r#"
        data-dir = "/srv/ssl"
        state-dir = "/srv/state"
        host-names = ["DB.example.com", "10.0.0.5"]
        [certificates]
        key-type = "rsa3072"
        leaf-lifetime = "1day 12h"
        ca-lifetime = "2d"
        [docker]
        socket = "unix:///run/user/docker.sock"
        settle = "0s"
        ready-timeout = "1s"
        stop-grace = "90s"
        resync = "5m"
        parallel = 64
        probe-timeout = "1s"
        [log]
        level = "trace"
        format = "json"
        "#,
    )
    .unwrap();
    let default = Settings::default();
    assert_eq!(settings.roots.data, Path::new("/srv/ssl"));
    assert_eq!(settings.roots.state, Path::new("/srv/state"));
    let names: Vec<_> = settings.host_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["db.example.com", "10.0.0.5"]);
    assert_eq!(settings.certificates.key_type, KeyType::Rsa3072);
    assert_eq!(settings.certificates.leaf_lifetime, Duration::from_secs(36 * 3600));
    assert_eq!(settings.certificates.ca_lifetime, Duration::from_secs(48 * 3600));
    assert_eq!(settings.docker.socket, "unix:///run/user/docker.sock");
    assert_eq!(settings.docker.settle, Duration::ZERO);
    assert_eq!(settings.docker.ready_timeout, Duration::from_secs(1));
    assert_eq!(settings.docker.stop_grace, Duration::from_secs(90));
    assert_eq!(settings.docker.resync, Duration::from_secs(300));
    assert_eq!(settings.docker.parallel.get(), 64);
    assert_eq!(settings.docker.probe_timeout, Duration::from_secs(1));
    assert_eq!((settings.log.level, settings.log.format), (Level::Trace, Format::Json));
    assert_ne!((settings.docker, settings.log), (default.docker, default.log));
}

#[test]
fn a_part_of_a_file_leaves_the_rest_at_its_default() {
    let settings = config::parse("[log]\nlevel = \"debug\"\n").unwrap();
    let mut expected = Settings::default();
    expected.log.level = Level::Debug;
    assert_eq!(settings, expected);
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_one() {
    for (text, said) in [
        ("\n\ndata_dir = \"/x\"", "line 3: unknown key \"data_dir\": did you mean data-dir?"),
        ("[docker]\nsettel = \"2s\"", "line 2: unknown key \"docker.settel\": did you mean docker.settle?"),
        ("settle = \"2s\"", "line 1: unknown key \"settle\": did you mean docker.settle?"),
        ("\"docker.settle\" = \"2s\"", "line 1: unknown key \"docker.settle\": did you mean docker.settle?"),
        ("[log]\ndata-dir = \"/x\"", "line 2: unknown key \"log.data-dir\": did you mean data-dir?"),
        ("[dokcer]\nsettle = \"2s\"", "line 1: unknown key \"dokcer\": did you mean [docker]?"),
        ("[[match]]\nname = \"x\"", "line 1: unknown key \"match\": did you mean"),
        ("docker.x.y = 1", "line 1: unknown key \"docker.x\": did you mean"),
    ] {
        let found = problem(text);
        assert!(found.starts_with(said), "{text:?}: {found}");
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_their_lines() {
    let found = problems(
        "state-dir = \"relative\"\n\
         host-names = [\"-db\", \"ok\", \"db.123\"]\n\
         verbose = true\n\
         [certificates]\n\
         key-type = \"p521\"\n\
         leaf-lifetime = \"0s\"\n\
         [docker]\n\
         parallel = 0\n\
         stop-grace = \"10s\"\n\
         [log]\n\
         level = \"Info\"\n",
    );
    let starts = [
        "line 1: state-dir: found \"relative\", allowed: an absolute path",
        "line 2: host-names: \"-db\" has a part that starts with '-', which clients refuse; \"db.123\" ends",
        "line 3: unknown key \"verbose\"",
        "line 5: certificates.key-type: found \"p521\", allowed: \"p256\", \"p384\", \"rsa2048\", \"rsa3072\": many clients refuse P-521",
        "line 6: certificates.leaf-lifetime: found \"0s\", allowed: a duration such as \"90s\", \"12h\" or \"7d\", 1m to 825d",
        "line 8: docker.parallel: found 0, allowed: a number, 1 to 64",
        "line 9: docker.stop-grace: found \"10s\", allowed: a duration such as \"90s\", \"12h\" or \"7d\", 1m to 1d",
        "line 11: log.level: found \"Info\", allowed: \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\n{start}");
    }
}

#[test]
fn every_wrong_value_is_refused_and_never_guessed_at() {
    for text in [
        "data-dir = 3",
        "data-dir = \"\"",
        "data-dir = \"/\"",
        "data-dir = \"/data/../etc\"",
        "data-dir = \"/data\\u0000x\"",
        "state-dir = \"/var/lib/a:b\"",
        "state-dir = \"/var/lib/a,b\"",
        "state-dir = \"/data/coolify/ssl\"",
        "state-dir = \"/data/coolify/ssl/dbssl\"",
        "state-dir = \"/data\"",
        "data-dir = \"/var/lib/dbssl/ssl\"",
        "host-names = \"db\"",
        "host-names = [1]",
        "docker = 3",
        "log = []",
        "certificates.key-type = \"P256\"",
        "certificates.key-type = 256",
        "certificates.key-type = \"ed25519\"",
        "certificates.leaf-lifetime = 90",
        "certificates.leaf-lifetime = \"90\"",
        "certificates.leaf-lifetime = \"ninety days\"",
        "certificates.leaf-lifetime = \"-1d\"",
        "certificates.leaf-lifetime = \"826d\"",
        "certificates.leaf-lifetime = \"99999999999999999999d\"",
        "certificates.ca-lifetime = \"90d\"",
        "certificates.ca-lifetime = \"101years\"",
        "docker.socket = \"tcp://10.0.0.1:2375\"",
        "docker.socket = \"/var/run/docker.sock\"",
        "docker.socket = \"unix://docker.sock\"",
        "docker.settle = \"2h\"",
        "docker.ready-timeout = \"0s\"",
        "docker.stop-grace = \"59s\"",
        "docker.resync = \"0s\"",
        "docker.probe-timeout = \"1h\"",
        "docker.parallel = -1",
        "docker.parallel = 65",
        "docker.parallel = \"4\"",
        "docker.parallel = 0x4",
        "docker.parallel = 1.5",
        "log.level = true",
        "log.format = \"xml\"",
        "log.format = 2001-01-01",
    ] {
        let said = problem(text);
        assert!(said.starts_with("line 1: "), "{text}: {said}");
        assert!(said.contains("allowed: ") || said.contains("must be"), "{text}: {said}");
    }
}

#[test]
fn what_is_not_toml_is_told_with_its_lines() {
    let found = problems("data-dir = \n[log\nlevel = info\n");
    assert!(found.iter().all(|line| line.contains(": not TOML: ")), "{found:?}");
    assert!(found[0].starts_with("line 1: "), "{found:?}");
    assert!(
        problem("[log]\nlevel = \"info\"\nlevel = \"warn\"").starts_with("line 3: not TOML: duplicate key")
    );
}

#[test]
fn no_text_makes_it_panic() {
    let mut text = SAMPLE.as_bytes().to_vec();
    for at in 0..text.len() {
        for byte in *b"\0\"=[#\n9\xff" {
            let before = std::mem::replace(&mut text[at], byte);
            let _ = config::parse(&String::from_utf8_lossy(&text));
            let _ = config::parse(&String::from_utf8_lossy(&text[..at]));
            text[at] = before;
        }
    }
}

#[test]
fn folders_from_the_command_line_are_held_to_the_same_rules() {
    let roots = |data, state| config::roots(Path::new(data), Path::new(state));
    assert!(roots("/data/coolify/ssl", "/data/coolify/ssl-state").is_ok(), "a common prefix is not nesting");
    assert!(roots("/a:b", "/c").is_ok(), "data-dir is never a mount");
    assert!(matches!(roots("data", "/c"), Err(BadRoots::Relative(_))));
    assert!(matches!(roots("/a", "/c:ro"), Err(BadRoots::Separator(_))));
    assert!(matches!(roots("/a", "/a/"), Err(BadRoots::Nested { .. })));
}

#[test]
fn a_file_is_named_in_what_is_said_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dbssl.toml");

    let error = config::load(&path).unwrap_err();
    assert!(error.is_absent());
    assert_eq!(error.to_string(), format!("cannot read the config {}", path.display()));

    fs::write(&path, "a = 1\nb = 2\n").unwrap();
    let error = config::load(&path).unwrap_err();
    assert!(!error.is_absent());
    assert!(matches!(&error, LoadError::Invalid { problems, .. } if problems.len() == 2));
    let said = error.to_string();
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with(&format!("{}:1: unknown key \"a\"", path.display())), "{said}");
    assert!(lines[1].starts_with(&format!("{}:2: unknown key \"b\"", path.display())), "{said}");

    fs::write(&path, SAMPLE).unwrap();
    assert_eq!(config::load(&path).unwrap(), Settings::default());

    fs::write(&path, b"a = \"\xff\"").unwrap();
    assert!(matches!(config::load(&path), Err(LoadError::Read { .. })));
}
