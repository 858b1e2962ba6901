//! The config file as its reader meets it: the shipped sample, and what is said of a wrong one.

use std::{fs, path::Path, time::Duration};

use dbssl::{
    config::{self, BadRoots, Format, Level, LoadError, Settings},
    model::{ClientAuth, Engine, Healthcheck, KeyType, Mode, Redeploy, Sans, Wishes},
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

/// The sample with all that is in it, as an example of what can be set, taken at its word.
fn sample_with_examples() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(example) if example.starts_with(|letter: char| !letter.is_whitespace()) => example.to_owned(),
        _ => line.to_owned(),
    };
    SAMPLE.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_sample_has_every_key_with_a_line_about_it() {
    let mut table = String::new();
    let mut found = Vec::new();
    let mut explained = false;
    for line in sample_with_examples().lines() {
        if line.starts_with('[') {
            table = format!("{}.", line.trim_matches(['[', ']']));
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
fn the_example_of_a_match_in_the_sample_is_its_defaults() {
    let mut settings = config::parse(&sample_with_examples()).unwrap();
    let entry = settings.matches.remove(0);
    assert_eq!(settings, Settings::default());
    assert!(entry.name.is_some() && entry.image.is_some() && entry.label.is_some());
    assert!(entry.enable);
    let wishes = Wishes {
        mode: Some(Mode::default()),
        engine: Some(Engine::Postgres),
        names: Some(Sans::new()),
        redeploy: Some(Redeploy::default()),
        healthcheck: Some(Healthcheck::default()),
        client_auth: Some(ClientAuth::default()),
    };
    assert_eq!(entry.wishes, wishes);
    // What is left out is not set, so that a label or a default counts.
    let entry = config::parse("[[match]]\nname = \"pg\"").unwrap().matches.remove(0);
    assert!(entry.enable);
    assert_eq!(entry.wishes, Wishes::default());
}

#[test]
fn the_example_in_the_readme_is_right() {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("## Containers that you cannot label").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let example: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let matches = config::parse(&example.join("\n")).unwrap().matches;
    assert_eq!(matches.iter().map(|entry| entry.enable).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn every_key_of_a_match_counts() {
    let settings = config::parse(
        r#"
        [[match]]
        name = "coolify-db"
        enable = false
        [[match]]
        label = "tier=a=b"
        mode = "require"
        engine = "redis"
        names = ["DB.example.com"]
        redeploy = "manual"
        healthcheck = "keep"
        client-auth = "required"
        "#,
    )
    .unwrap();
    let [first, second] = &settings.matches[..] else { panic!("{settings:?}") };
    assert!(!first.enable && second.enable);
    let label = second.label.clone().unwrap();
    assert_eq!(label.key, "tier");
    assert!(label.value.unwrap().matches("a=b"));
    assert_eq!((second.wishes.mode, second.wishes.engine), (Some(Mode::Require), Some(Engine::Redis)));
    assert_eq!(second.wishes.names.clone().unwrap().iter().next().unwrap().to_string(), "db.example.com");
    assert_eq!(second.wishes.redeploy, Some(Redeploy::Manual));
    assert_eq!(second.wishes.healthcheck, Some(Healthcheck::Keep));
    assert_eq!(second.wishes.client_auth, Some(ClientAuth::Required));
}

#[test]
fn all_that_is_wrong_with_matches_is_told_at_once() {
    let many = vec!["\"a\""; 101].join(", ");
    let found = problems(&format!(
        "[[match]]\n\
         mode = \"Verify-Full\"\n\
         engine = \"mongo\"\n\
         redeploy = 3\n\
         [[match]]\n\
         name = \"/pg\"\n\
         nmae = \"pg\"\n\
         enable = \"true\"\n\
         names = [\"-db\"]\n\
         healthcheck = \"off\"\n\
         [[match]]\n\
         image = \"postgres 16\"\n\
         names = [{many}]\n\
         [[match]]\n\
         label = \"coolify.*\"\n\
         parallel = 4\n\
         host-names = []\n\
         [[match]]\n\
         name = \"pg\"\n\
         client-auth = \"yes\"\n\
         [[match]]\n\
         name = \"pg\"\n\
         mode = \"prefer\"\n\
         client-auth = \"required\"\n"
    ));
    let starts = [
        "line 1: match: without name, image and label it would match every container",
        "line 2: match.mode: found \"Verify-Full\", allowed: allow, prefer, require, verify-ca, verify-full; did you mean verify-full?",
        "line 3: match.engine: found \"mongo\", allowed: postgres, mysql, mariadb, redis, mongodb; did you mean mongodb?",
        "line 4: match.redeploy: found 3, allowed: text in quotes",
        "line 6: match.name: found \"/pg\", allowed: the name of a container",
        "line 7: unknown key \"match.nmae\": did you mean match.name?",
        "line 8: match.enable: found \"true\", allowed: true, false",
        "line 9: match.names: \"-db\" has a part that starts with '-'",
        "line 10: match.healthcheck: found \"off\", allowed: adapt, keep",
        "line 12: match.image: found \"postgres 16\", allowed: the name of an image",
        "line 13: match.names: found 101 names, allowed: at most 100",
        "line 15: match.label: found \"coolify.*\", allowed: a label, or label=value",
        "line 16: unknown key \"match.parallel\": did you mean docker.parallel?",
        "line 17: unknown key \"match.host-names\": did you mean host-names?",
        "line 20: match.client-auth: found \"yes\", allowed: none, optional, required",
        "line 21: match.client-auth: found \"required\" with mode = \"prefer\", which lets in whoever comes without TLS",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\n{start}");
    }
}

#[test]
fn a_condition_that_no_container_can_meet_is_refused() {
    for condition in [
        "name = \"\"",
        "name = \"a b\"",
        "name = \"pg|my\"",
        "name = 1",
        "name = [\"a\"]",
        "image = \"\"",
        "image = \":16\"",
        "image = \"postgres:\"",
        "image = \"postgres@\"",
        "image = true",
        "label = \"\"",
        "label = \"=x\"",
        "label = \"a?=x\"",
        "label = \"a b=x\"",
        "label = {}",
    ] {
        let said = problem(&format!("[[match]]\n{condition}"));
        assert!(said.starts_with("line 2: match.") && said.contains("allowed: "), "{condition}: {said}");
    }
    for text in ["match = 1", "match = [1]", "[match]\nname = \"x\"", "match = \"pg\""] {
        let said = problem(text);
        assert!(
            said.starts_with("line 1: match: found ") && said.contains("allowed: tables, each [[match]]"),
            "{said}"
        );
    }
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
        ("[[matches]]\nname = \"x\"", "line 1: unknown key \"matches\": did you mean [[match]]?"),
        ("[logs]\nlevel = \"info\"", "line 1: unknown key \"logs\": did you mean [log]?"),
        ("image = \"x\"", "line 1: unknown key \"image\": did you mean match.image?"),
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
    // Without what is only for people: each byte of it costs a parse of all the others.
    let text = sample_with_examples();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut text = lines.collect::<Vec<_>>().join("\n").into_bytes();
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
