//! Which entry of the config speaks of a container, and what it and the container's labels want together.

use std::collections::BTreeMap;

use super::labels::{self, IMAGE, Reading};
use crate::{
    config::{ImagePattern, LabelPattern, Match, image_parts},
    model::{ContainerName, inspect::Inspect},
};

/// What is in the name of every container that only serves an operation of ours: parked, rehearsing, failed. Nobody's
/// pattern means one of these.
const OF_AN_OPERATION: &str = ".dbssl-";

/// How an image's id begins.
const ID: &str = "sha256:";

/// What can be seen of a container.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub name: &'a str,
    /// As its user named it; `None` where that cannot be told.
    pub image: Option<&'a str>,
    pub labels: &'a BTreeMap<String, String>,
}

impl<'a> Seen<'a> {
    /// From a row of `docker ps`, which shows an id in place of a name that means another image by now.
    pub fn listed(name: &'a str, image: &'a str, labels: &'a BTreeMap<String, String>) -> Self {
        let is_id = image.starts_with(ID) || image.bytes().all(|byte| byte.is_ascii_hexdigit());
        Self { name, image: Some(image).filter(|_| !is_id), labels }
    }
}

/// How its user named the image, also where dbssl had to create the container from the image's id.
pub fn image(inspect: &Inspect) -> &str {
    let name = inspect.image_name();
    // Whoever copies the labels to a container of another image names that image.
    inspect.label(IMAGE).filter(|_| name.starts_with(ID)).unwrap_or(name)
}

/// What the container's labels and the first entry that matches it want together; labels win, key by key.
pub fn read(entries: &[Match], inspect: &Inspect) -> Reading {
    let labels = inspect.labels();
    let seen = Seen { name: inspect.name().as_str(), image: Some(image(inspect)), labels: &labels };
    labels::read_over(&labels, entries.iter().find(|entry| holds(entry, seen) == Some(true)))
}

/// Whether an entry may make the container ours; of one that does not, that is certain.
pub fn may_match(entries: &[Match], seen: Seen<'_>) -> bool {
    for entry in entries {
        match holds(entry, seen) {
            Some(true) => return entry.enable,
            None if entry.enable => return true,
            None | Some(false) => {}
        }
    }
    false
}

/// Whether it is there only for an operation of ours: parked, rehearsing, failed.
pub fn serves_an_operation(name: &ContainerName) -> bool {
    name.as_str().contains(OF_AN_OPERATION)
}

/// Whether all conditions hold; `None` if that hangs on an image that cannot be told.
fn holds(entry: &Match, seen: Seen<'_>) -> Option<bool> {
    if seen.name.contains(OF_AN_OPERATION)
        || entry.name.as_ref().is_some_and(|pattern| !pattern.matches(seen.name))
        || entry.label.as_ref().is_some_and(|pattern| !has_label(pattern, seen.labels))
    {
        return Some(false);
    }
    match (&entry.image, seen.image) {
        (None, _) => Some(true),
        (Some(pattern), Some(image)) => Some(is_image(pattern, image)),
        (Some(_), None) => None,
    }
}

fn has_label(pattern: &LabelPattern, labels: &BTreeMap<String, String>) -> bool {
    let found = labels.get(&pattern.key);
    found.is_some_and(|found| pattern.value.as_ref().is_none_or(|wanted| wanted.matches(found)))
}

/// Whether it is that image, whichever of the ways to write the same name was used here and there.
fn is_image(pattern: &ImagePattern, image: &str) -> bool {
    let (repository, tag, digest) = image_parts(image);
    // Docker's own rule: without both, it is `latest`.
    let tag = tag.unwrap_or(if digest.is_none() { "latest" } else { "" });
    spellings(&repository.to_ascii_lowercase()).iter().any(|spelling| pattern.repository.matches(spelling))
        && pattern.tag.as_ref().is_none_or(|wanted| wanted.matches(tag))
        && pattern.digest.as_ref().is_none_or(|wanted| wanted.matches(digest.unwrap_or_default()))
}

/// `postgres`, `library/postgres`, `docker.io/postgres` and `docker.io/library/postgres` are one image. Of another
/// registry it is another image, perhaps of other people: such a name has just one spelling.
fn spellings(repository: &str) -> Vec<String> {
    const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
    let path = match repository.split_once('/') {
        Some((host, path)) if HUB.contains(&host) => path,
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => {
            return vec![repository.to_owned()];
        }
        _ => repository,
    };
    let short = path.strip_prefix("library/").unwrap_or(path);
    let mut paths = vec![short.to_owned()];
    if !short.contains('/') {
        paths.push(format!("library/{short}"));
    }
    let with_host: Vec<_> = paths.iter().map(|path| format!("docker.io/{path}")).collect();
    [paths, with_host].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        config,
        host::journal::PARKED,
        model::{Desired, Mode, Redeploy},
    };

    fn entries(text: &str) -> Vec<Match> {
        config::parse(text).unwrap().matches
    }

    fn inspect(name: &str, image: &str, labels: &[(&str, &str)]) -> Inspect {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        Inspect::new(json!({
            "Id": "a".repeat(64),
            "Name": format!("/{name}"),
            "Config": { "Image": image, "Labels": labels },
        }))
        .unwrap()
    }

    fn reading(text: &str, name: &str, image: &str, labels: &[(&str, &str)]) -> Reading {
        let (entries, inspect) = (entries(text), inspect(name, image, labels));
        let read = read(&entries, &inspect);
        // What is sorted out at the list, unseen, must not be ours.
        let labels = inspect.labels();
        if !may_match(&entries, Seen::listed(name, image, &labels)) && labels.is_empty() {
            assert!(matches!(read, Reading::NotOurs | Reading::Disabled), "{name} {image}: {read:?}");
        }
        read
    }

    fn desired(text: &str, name: &str, labels: &[(&str, &str)]) -> Desired {
        match reading(text, name, "postgres:16", labels) {
            Reading::Enabled(desired) => desired,
            other => panic!("{text}: {other:?}"),
        }
    }

    const DIGEST: &str = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn an_image_is_matched_however_it_is_written() {
        let digested = format!("postgres:16{DIGEST}");
        let bare = format!("postgres{DIGEST}");
        let hub = [
            "postgres",
            "postgres:16",
            "library/postgres:16",
            "docker.io/postgres:16",
            "docker.io/library/postgres:16",
            "index.docker.io/library/postgres",
            &digested,
            &bare,
        ];
        let others = [
            "ghcr.io/acme/postgres:16",
            "registry.example.com:5000/postgres",
            "localhost/postgres",
            "bitnami/postgres",
            "prometheuscommunity/postgres-exporter",
            "postgres-exporter",
            "mypostgres",
        ];
        for pattern in [
            "postgres",
            "postgres:*",
            "library/postgres",
            "docker.io/library/postgres",
            "POSTGRES",
            "post?res",
        ] {
            let text = format!("[[match]]\nimage = {pattern:?}");
            for image in hub {
                assert!(matches!(reading(&text, "x", image, &[]), Reading::Enabled(_)), "{pattern} {image}");
            }
            for image in others {
                assert_eq!(reading(&text, "x", image, &[]), Reading::NotOurs, "{pattern} {image}");
            }
        }
    }

    #[test]
    fn each_part_of_an_image_s_name_can_be_a_pattern() {
        for (pattern, fits, does_not) in [
            (
                "postgres:16*",
                &["postgres:16", "docker.io/library/postgres:16.4-alpine"][..],
                &["postgres", "postgres:15", "postgres:latest"][..],
            ),
            ("postgres:latest", &["postgres", "postgres:latest"], &["postgres:16"]),
            (
                "*/postgres",
                &["ghcr.io/acme/postgres:16", "postgres", "bitnami/postgres"],
                &["ghcr.io/acme/pg"],
            ),
            ("ghcr.io/acme/*", &["ghcr.io/acme/pg", "ghcr.io/acme/a/b:1"], &["acme/pg", "ghcr.io/other/pg"]),
            ("registry:5000/pg", &["registry:5000/pg:1", "registry:5000/pg"], &["registry:5001/pg", "pg"]),
            ("registry:5000/pg:1", &["registry:5000/pg:1"], &["registry:5000/pg:2"]),
            ("*:16", &["postgres:16", "ghcr.io/a/b:16"], &["postgres"]),
            ("postgres@sha256:01*", &[], &["postgres:16", "postgres"]),
            ("*", &["postgres", "a.b/c/d:e"], &[]),
        ] {
            let text = format!("[[match]]\nimage = {pattern:?}");
            for image in fits {
                assert!(matches!(reading(&text, "x", image, &[]), Reading::Enabled(_)), "{pattern} {image}");
            }
            for image in does_not {
                assert_eq!(reading(&text, "x", image, &[]), Reading::NotOurs, "{pattern} {image}");
            }
        }
        let text = "[[match]]\nimage = \"postgres@sha256:01*\"";
        assert!(matches!(reading(text, "x", &format!("postgres{DIGEST}"), &[]), Reading::Enabled(_)));
        let tagged = format!("postgres:16{DIGEST}");
        assert!(matches!(
            reading("[[match]]\nimage = \"postgres:16\"", "x", &tagged, &[]),
            Reading::Enabled(_)
        ));
        let bare = format!("postgres{DIGEST}");
        assert_eq!(reading("[[match]]\nimage = \"postgres:16\"", "x", &bare, &[]), Reading::NotOurs);
    }

    #[test]
    fn all_conditions_have_to_hold_and_the_first_entry_counts() {
        let text = "[[match]]\nname = \"pg-old*\"\nenable = false\n\
                    [[match]]\nname = \"pg-*\"\nimage = \"postgres\"\nlabel = \"tier=prod*\"\nmode = \"require\"\n\
                    [[match]]\nlabel = \"tls\"\nmode = \"prefer\"\n";
        let mode = |name, labels: &[(&str, &str)]| desired(text, name, labels).mode;
        assert_eq!(mode("pg-1", &[("tier", "production")]), Mode::Require);
        assert_eq!(mode("pg-1", &[("tier", "production"), ("tls", "")]), Mode::Require);
        assert_eq!(mode("pg-1", &[("tls", "")]), Mode::Prefer);
        assert_eq!(mode("other", &[("tier", "production"), ("tls", "x")]), Mode::Prefer);
        assert_eq!(reading(text, "pg-1", "postgres", &[]), Reading::NotOurs);
        assert_eq!(reading(text, "pg-1", "mysql", &[("tier", "prod")]), Reading::NotOurs);
        assert_eq!(reading(text, "pg-old", "postgres", &[("tier", "prod"), ("tls", "")]), Reading::Disabled);
    }

    #[test]
    fn labels_win_key_by_key() {
        let text = "[[match]]\nname = \"pg-*\"\nmode = \"require\"\nnames = [\"a.example.com\"]\nredeploy = \"manual\"\n\
                    [[match]]\nname = \"off-*\"\nenable = false\nmode = \"allow\"\n";
        let plain = desired(text, "pg-1", &[]);
        assert_eq!((plain.mode, plain.redeploy, plain.names.len()), (Mode::Require, Redeploy::Manual, 1));
        // Without `dbssl.enable`: the entry says that.
        let mixed = desired(text, "pg-1", &[(labels::MODE, "verify-ca"), (labels::NAMES, "b.example.com")]);
        assert_eq!((mixed.mode, mixed.redeploy), (Mode::VerifyCa, Redeploy::Manual));
        assert_eq!(mixed.names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b.example.com"]);
        let enabled = desired(text, "pg-1", &[(labels::ENABLE, "true")]);
        assert_eq!(enabled, plain);
        let disabled = [(labels::ENABLE, "false"), (labels::MODE, "require")];
        assert_eq!(reading(text, "pg-1", "postgres", &disabled), Reading::Disabled);
        assert_eq!(reading(text, "off-1", "postgres", &[(labels::MODE, "require")]), Reading::Disabled);
        assert_eq!(desired(text, "off-1", &[(labels::ENABLE, "true")]).mode, Mode::Allow);
        // Without an entry that matches, a label alone still does nothing and says so.
        assert!(matches!(reading(text, "db", "postgres", &[(labels::MODE, "require")]), Reading::Wrong(_)));
    }

    #[test]
    fn wrong_labels_are_reported_although_an_entry_matches() {
        let text = "[[match]]\nname = \"*\"\nmode = \"require\"";
        for (label, value) in [
            ("dbssl.enabel", "false"),
            (labels::ENABLE, "no"),
            (labels::MODE, "Require"),
            (labels::NAMES, "-db"),
            ("dbssl.foo", ""),
        ] {
            match reading(text, "db", "postgres", &[(label, value)]) {
                Reading::Wrong(problems) => assert_eq!(problems[0].label, label),
                other => panic!("{label}={value} was read as {other:?}"),
            }
        }
    }

    #[test]
    fn containers_of_our_own_operations_never_match_and_their_successor_does() {
        let text = "[[match]]\nname = \"pg-*\"\nimage = \"postgres:16\"";
        for name in [&format!("pg-1{PARKED}"), "pg-1.dbssl-rehearsal", "pg-1.dbssl-failed-0123"] {
            for operation in ["rehearsal", "0123"] {
                let labels = [(labels::OPERATION, operation)];
                assert_eq!(reading(text, name, "postgres:16", &labels), Reading::NotOurs, "{name}");
            }
            assert!(!may_match(&entries(text), Seen::listed(name, "postgres:16", &BTreeMap::new())));
        }
        let id = format!("sha256:{}", "b".repeat(64));
        let successor = [(labels::OPERATION, "0123"), (IMAGE, "postgres:16")];
        assert!(matches!(reading(text, "pg-1", "postgres:16", &successor[..1]), Reading::Enabled(_)));
        assert!(matches!(reading(text, "pg-1", &id, &successor), Reading::Enabled(_)));
        assert_eq!(reading(text, "pg-1", &id, &successor[..1]), Reading::NotOurs);
        // Somebody updated it and copied its labels.
        assert_eq!(reading(text, "pg-1", "postgres:17", &successor), Reading::NotOurs);
    }

    /// `docker ps` names the image by its id once its name means another one.
    #[test]
    fn an_image_that_the_list_does_not_name_is_looked_at() {
        let none = BTreeMap::new();
        let id = format!("sha256:{}", "b".repeat(64));
        let text = "[[match]]\nname = \"off\"\nenable = false\n\
                    [[match]]\nname = \"pg-*\"\nimage = \"postgres:15\"\nenable = false\n\
                    [[match]]\nname = \"pg-*\"\nimage = \"postgres:16\"\n";
        let may = |name, image| may_match(&entries(text), Seen::listed(name, image, &none));
        assert!(may("pg-1", "postgres:16") && may("pg-1", &id) && may("pg-1", "bbbbbbbbbbbb"));
        assert!(!may("pg-1", "postgres:15") && !may("off", &id) && !may("other", &id));
        assert!(!may_match(&[], Seen::listed("pg-1", &id, &none)));
    }
}
