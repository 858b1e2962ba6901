//! Holds the map in `src/lib.rs`: who may import whom, who may touch the outside, and that no file is
//! forgotten. Each rule is a function of a file's path and text, and is shown to fail on an offender.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Layer by layer: what each may import. What is not here may not exist at the top of `src`.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("model", &["san", "shown"]),
    ("san", &["model", "shown"]),
    ("shown", &[]),
    ("pki", &["model", "san", "shown"]),
    ("engine", &["model", "san", "shown"]),
    ("config", &["model", "san", "shown"]),
    ("decide", &["model", "san", "shown", "pki", "engine", "config"]),
    ("host", &["model", "san", "shown", "pki", "engine", "config"]),
    ("logging", &["model", "san", "shown", "config"]),
    ("agent", &["model", "san", "shown", "pki", "engine", "config", "decide", "host"]),
    ("cli", &["model", "san", "shown", "pki", "engine", "config", "decide", "host", "logging", "agent"]),
    ("main", &["model", "config", "host", "logging", "agent", "cli"]),
    ("fuzzing", &["host"]),
    ("lib", &[]),
];

/// Crates that one place alone may name, so that replacing one of them touches that place only.
const ONE_PLACE: [(&str, &[&str]); 4] = [
    ("bollard", &["src/host/docker.rs", "src/host/docker/"]),
    ("rcgen", &["src/pki.rs", "src/pki/"]),
    ("notify", &["src/host/watch.rs"]),
    ("clap", &["src/cli.rs", "src/cli/", "src/main.rs"]),
];

/// The layers that are functions of values.
const PURE: [&str; 6] = ["model", "san", "shown", "pki", "engine", "decide"];

/// The outside world, as paths: a path that starts so touches it.
const OUTSIDE: [&str; 21] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::os::unix::net",
    "std::os::unix::fs",
    "std::time::SystemTime",
    "std::time::Instant",
    "SystemTime",
    "Instant::now",
    "OffsetDateTime::now_utc",
    "OffsetDateTime::now_local",
    "time::OffsetDateTime::now_utc",
    "tokio",
    "rustix",
    "hyper",
    "hyper_util",
];

/// Methods of `Path` and others that ask the outside world.
const ASKING: [&str; 10] = [
    "exists",
    "try_exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "metadata",
    "symlink_metadata",
    "canonicalize",
    "read_dir",
    "read_link",
];

const MOST_LINES: usize = 600;
/// Tests of one concept are a list to be looked things up in, not a text to be read from end to end: they may be
/// longer.
const MOST_LINES_OF_TESTS: usize = 800;

/// Names that say nothing about what is in a file.
const SAY_NOTHING: [&str; 8] =
    ["utils", "util", "common", "manager", "managers", "helpers", "helper", "misc"];

#[test]
fn the_sources_keep_all_rules() {
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(
        sources.contains_key("src/lib.rs") && sources.contains_key("src/main.rs"),
        "{:?}",
        sources.keys()
    );
    let found = offences(&sources);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// All sources below `src`, by their path from the root of the crate.
fn sources(root: &Path) -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
}

fn offences(sources: &BTreeMap<String, String>) -> Vec<String> {
    let modules = Modules::walk(sources);
    let mut found = modules.unreached(sources);
    for (path, text) in sources {
        found.extend(too_long(path, text, modules.for_tests.contains(path)));
        found.extend(says_nothing(path));
        if !modules.for_tests.contains(path) {
            let file = File::new(path, text);
            found.extend(upward_imports(&file));
            found.extend(crates_out_of_place(&file));
            found.extend(touches_the_outside(&file));
        }
    }
    found
}

fn too_long(path: &str, text: &str, only_tests: bool) -> Option<String> {
    let (lines, most) = (text.lines().count(), if only_tests { MOST_LINES_OF_TESTS } else { MOST_LINES });
    (lines > most).then(|| format!("{path}: {lines} lines, at most {most}: a file is one concept"))
}

fn says_nothing(path: &str) -> Option<String> {
    let empty = path.trim_end_matches(".rs").split('/').find(|part| SAY_NOTHING.contains(part))?;
    Some(format!("{path}: {empty:?} does not say what is in it"))
}

/// Imports point down only.
fn upward_imports(file: &File) -> Vec<String> {
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(layer, _)| *layer == file.layer) else {
        return vec![format!("{}: the map knows no layer {:?}", file.path, file.layer)];
    };
    let imports = file.uses.iter().filter_map(|path| layer_of(path));
    let wrong: BTreeSet<_> =
        imports.filter(|layer| **layer != file.layer && !allowed.contains(&layer.as_str())).collect();
    wrong.iter().map(|layer| format!("{}: {} may not import {layer}", file.path, file.layer)).collect()
}

fn crates_out_of_place(file: &File) -> Vec<String> {
    let misplaced = ONE_PLACE.iter().filter(|(_, places)| {
        !places
            .iter()
            .any(|place| file.path == *place || place.ends_with('/') && file.path.starts_with(place))
    });
    misplaced
        .filter(|(name, _)| file.uses.iter().any(|path| path[0] == *name && path.len() > 1))
        .map(|(name, places)| format!("{}: only {} may name {name}", file.path, places.join(", ")))
        .collect()
}

/// No clock, file, socket or environment in what is a function of values.
fn touches_the_outside(file: &File) -> Vec<String> {
    if !PURE.contains(&file.layer.as_str()) {
        return Vec::new();
    }
    let starts_with = |path: &[String], outside: &str| {
        let parts: Vec<_> = outside.split("::").collect();
        // `use std::*` may bring anything.
        let glob = path.last().is_some_and(|last| last == "*") && path.len() <= parts.len();
        let shared = path.iter().zip(&parts).take_while(|(one, other)| one == other).count();
        shared == parts.len() || glob && shared == path.len() - 1
    };
    let paths = file.uses.iter().filter(|path| OUTSIDE.iter().any(|outside| starts_with(path, outside)));
    let mut found: BTreeSet<_> = paths.map(|path| path.join("::")).collect();
    found.extend(
        file.methods.iter().filter(|name| ASKING.contains(&name.as_str())).map(|name| format!(".{name}()")),
    );
    let layer = &file.layer;
    found.iter().map(|what| format!("{}: {layer} is pure and may not use {what}", file.path)).collect()
}

/// Words in front of a path that are no part of it: `use ::std::fs`.
const KEYWORDS: [&str; 12] =
    ["use", "extern", "return", "as", "in", "dyn", "impl", "for", "mut", "const", "match", "if"];

/// What one file names, outside of its `#[cfg(test)]` modules; comments and texts do not count.
struct File {
    path: String,
    layer: String,
    /// Every path, groups spelled out: `std::{fs, io}` is two. A single identifier is a path of one;
    /// `use name as other` is `name::self`.
    uses: Vec<Vec<String>>,
    methods: BTreeSet<String>,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
        let parts: Vec<_> = inner.split('/').collect();
        let depth = if parts.last() == Some(&"mod") { parts.len() - 1 } else { parts.len() };
        let layer = parts[0].to_owned();
        let mut file = Self { path: path.to_owned(), layer, uses: Vec::new(), methods: BTreeSet::new() };
        let depth = if matches!(file.layer.as_str(), "lib" | "main") { 0 } else { depth };
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        file.read(&without_tests(tokens), depth);
        file
    }

    fn read(&mut self, tokens: &[TokenTree], depth: usize) {
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    let named = at >= 2 && is_ident(&tokens[at - 2], "mod");
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.read(&inner, depth + usize::from(named));
                    at += 1;
                }
                TokenTree::Ident(ident) => {
                    let method = at > 0 && is_punct(&tokens[at - 1], '.');
                    if method {
                        self.methods.insert(ident.to_string());
                    }
                    if method || KEYWORDS.iter().any(|keyword| ident == keyword) {
                        at += 1;
                        continue;
                    }
                    let named_whole =
                        at > 0 && ["use", "crate"].iter().any(|word| is_ident(&tokens[at - 1], word));
                    let before = self.uses.len();
                    at = self.path(tokens, at, Vec::new(), depth);
                    if let Some(path) =
                        self.uses.get_mut(before).filter(|path| named_whole && path.len() == 1)
                    {
                        path.push("self".to_owned());
                    }
                }
                _ => at += 1,
            }
        }
    }

    /// Reads one path from `at` on; the place behind it.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, mut path: Vec<String>, depth: usize) -> usize {
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(ident) => path.push(ident.to_string().trim_start_matches("r#").to_owned()),
                TokenTree::Punct(star) if star.as_char() == '*' => path.push("*".to_owned()),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    for part in inner.split(|token| is_punct(token, ',')) {
                        self.path(part, 0, path.clone(), depth);
                    }
                    return at + 1;
                }
                // `<` of a turbofish ends it.
                _ => break,
            }
            at += 1;
            let colons = tokens.get(at).is_some_and(|t| is_punct(t, ':'))
                && tokens.get(at + 1).is_some_and(|t| is_punct(t, ':'));
            if !colons {
                break;
            }
            at += 2;
        }
        if !path.is_empty() {
            self.uses.push(absolute(path, depth));
        }
        at
    }
}

/// The layer that a path leads to, if it leads into this crate.
fn layer_of(path: &[String]) -> Option<&String> {
    if matches!(path[0].as_str(), "crate" | "dbssl") { path.get(1) } else { None }
}

/// `super::super::host` to `crate::host`, where it climbs to the top.
fn absolute(path: Vec<String>, depth: usize) -> Vec<String> {
    let climbed = path.iter().skip_while(|part| *part == "self").take_while(|part| *part == "super").count();
    let rest: Vec<_> = path.iter().filter(|part| *part != "super" && *part != "self").cloned().collect();
    if climbed > 0 && climbed >= depth { [vec!["crate".to_owned()], rest].concat() } else { path }
}

/// The tokens without `#[cfg(test)]` items that have a body or end with a semicolon.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let gate = is_punct(&tokens[at], '#') && tokens.get(at + 1).is_some_and(is_cfg_test);
        if gate {
            at += 2;
            while at < tokens.len() {
                let ends = is_punct(&tokens[at], ';')
                    || matches!(&tokens[at], TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
                at += 1;
                if ends {
                    break;
                }
            }
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn is_cfg_test(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(_)) && token.to_string().replace(' ', "") == "[cfg(test)]"
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// Which files the compiler reads, followed from `lib.rs` and `main.rs` along `mod` lines.
#[derive(Default)]
struct Modules {
    reached: BTreeSet<String>,
    for_tests: BTreeSet<String>,
}

impl Modules {
    fn walk(sources: &BTreeMap<String, String>) -> Self {
        let mut modules = Self::default();
        for (root, folder) in [("src/lib.rs", "src"), ("src/main.rs", "src")] {
            modules.file(sources, root, folder, false);
        }
        modules
    }

    fn file(&mut self, sources: &BTreeMap<String, String>, path: &str, folder: &str, test: bool) {
        let Some(source) = sources.get(path) else { return };
        self.reached.insert(path.to_owned());
        if test {
            self.for_tests.insert(path.to_owned());
        }
        let tokens: Vec<_> =
            source.parse::<TokenStream>().unwrap_or_else(|e| panic!("{path}: {e}")).into_iter().collect();
        self.lines(sources, &tokens, folder, test);
    }

    fn lines(&mut self, sources: &BTreeMap<String, String>, tokens: &[TokenTree], folder: &str, test: bool) {
        for (at, window) in tokens.windows(3).enumerate() {
            let (true, TokenTree::Ident(name)) = (is_ident(&window[0], "mod"), &window[1]) else { continue };
            let inner = format!("{folder}/{name}");
            let gated = tokens[..at].iter().rev().take(3).any(is_cfg_test);
            match &window[2] {
                TokenTree::Punct(_) => {
                    self.file(sources, &format!("{inner}.rs"), &inner, test || gated);
                    self.file(sources, &format!("{inner}/mod.rs"), &inner, test || gated);
                }
                TokenTree::Group(body) => {
                    let body: Vec<_> = body.stream().into_iter().collect();
                    self.lines(sources, &body, &inner, test || gated);
                }
                _ => {}
            }
        }
    }

    fn unreached(&self, sources: &BTreeMap<String, String>) -> Vec<String> {
        let lost = sources.keys().filter(|path| !self.reached.contains(*path));
        lost.map(|path| format!("{path}: no mod line leads to it, so nothing in it is compiled")).collect()
    }
}

// Each rule on an offender, and beside one that keeps it.

fn crate_of(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect()
}

#[track_caller]
fn offends(check: impl Fn(&File) -> Vec<String>, path: &str, text: &str, said: &str) {
    let found = check(&File::new(path, text));
    assert!(
        found.iter().any(|line| line.contains(said)),
        "{path}: {text}\nfound {found:?}, expected {said:?}"
    );
}

#[track_caller]
fn keeps(check: impl Fn(&File) -> Vec<String>, path: &str, text: &str) {
    assert_eq!(check(&File::new(path, text)), [""; 0], "{path}: {text}");
}

#[test]
fn an_import_that_points_up_is_found_however_it_is_written() {
    for (path, text, said) in [
        ("src/model.rs", "use crate::config::Settings;", "model may not import config"),
        ("src/config.rs", "use crate::pki::KeyType;", "config may not import pki"),
        ("src/engine/postgres.rs", "use crate::{model::Engine, decide};", "engine may not import decide"),
        ("src/decide/labels.rs", "fn f() { crate::host::clock::now(); }", "decide may not import host"),
        ("src/decide/labels.rs", "use super::super::host;", "decide may not import host"),
        ("src/decide.rs", "use super::{host as outside};", "decide may not import host"),
        ("src/decide/mod.rs", "use super::host;", "decide may not import host"),
        ("src/decide.rs", "mod inner { use super::super::host; }", "decide may not import host"),
        ("src/host/docker.rs", "use crate::decide::queue::Queue;", "host may not import decide"),
        ("src/host/docker.rs", "impl From<crate::agent::Plan> for u8 {}", "host may not import agent"),
        (
            "src/agent/run.rs",
            "use crate::{model::{Mode, Engine}, cli::{self, Verb}};",
            "agent may not import cli",
        ),
        ("src/agent.rs", "macro_rules! m { () => { $crate::cli::x() } }", "agent may not import cli"),
        ("src/main.rs", "fn main() { dbssl::decide::labels::read(); }", "main may not import decide"),
        ("src/lib.rs", "pub mod model; use crate::model::Mode;", "lib may not import model"),
        ("src/proxy.rs", "", "the map knows no layer \"proxy\""),
    ] {
        offends(upward_imports, path, text, said);
    }
    for (path, text) in [
        ("src/decide/labels.rs", "use crate::{model::Mode, config, engine, pki}; use super::names;"),
        ("src/decide/plan/text.rs", "use super::super::labels;"),
        (
            "src/host/docker.rs",
            "// crate::decide\nconst A: &str = \"crate::decide\"; /// crate::cli\nstruct B;",
        ),
        ("src/host/docker.rs", "#[cfg(test)] mod tests { use crate::decide::labels; }"),
        ("src/agent/run.rs", "use crate::{decide, host, config}; let decide = host.cli();"),
        ("src/main.rs", "use dbssl::{cli, logging};"),
    ] {
        keeps(upward_imports, path, text);
    }
}

#[test]
fn a_crate_out_of_its_place_is_found() {
    for (path, text, said) in [
        (
            "src/agent/run.rs",
            "use bollard::Docker;",
            "only src/host/docker.rs, src/host/docker/ may name bollard",
        ),
        ("src/host/dockerish.rs", "use ::bollard::Docker;", "may name bollard"),
        ("src/agent/run.rs", "use bollard as b;", "may name bollard"),
        ("src/agent/run.rs", "extern crate bollard;", "may name bollard"),
        ("src/host/castore.rs", "fn f() -> rcgen::KeyPair {}", "may name rcgen"),
        ("src/host/probe.rs", "use {notify::Watcher, std::io};", "only src/host/watch.rs may name notify"),
        ("src/config.rs", "#[derive(clap::Args)] struct A;", "may name clap"),
    ] {
        offends(crates_out_of_place, path, text, said);
    }
    for (path, text) in [
        ("src/host/docker.rs", "use bollard::Docker;"),
        ("src/host/docker/events.rs", "use bollard::Docker;"),
        ("src/pki/leaf.rs", "use rcgen::KeyPair;"),
        ("src/host/watch.rs", "use notify::Watcher;"),
        ("src/cli/verbs.rs", "use clap::Parser;"),
        ("src/main.rs", "use clap::Parser;"),
        // A word of ours that is spelt like a crate.
        ("src/host/systemd.rs", "fn notify(notify: u8) { self.notify(); Systemd::notify(notify) }"),
    ] {
        keeps(crates_out_of_place, path, text);
    }
}

#[test]
fn a_pure_layer_that_touches_the_outside_is_found() {
    for (path, text, said) in [
        ("src/decide/labels.rs", "use std::fs;", "decide is pure and may not use std::fs"),
        ("src/decide/labels.rs", "use std::{io, fs::{self, File}};", "std::fs::File"),
        ("src/decide/labels.rs", "fn f() -> u8 { return ::std::process::id() }", "std::process::id"),
        ("src/decide/labels.rs", "use std::*;", "std::*"),
        ("src/pki/leaf.rs", "use std::time::*;", "std::time::*"),
        ("src/pki.rs", "fn f() { std::env::var(\"HOME\"); }", "std::env::var"),
        ("src/pki.rs", "use std::time::{Duration, SystemTime};", "std::time::SystemTime"),
        ("src/pki.rs", "fn f() { time::OffsetDateTime::now_utc(); }", "now_utc"),
        ("src/pki.rs", "use time::OffsetDateTime; fn f() { OffsetDateTime::now_utc(); }", "now_utc"),
        ("src/engine/redis.rs", "use std::net::{IpAddr, TcpStream};", "std::net::TcpStream"),
        ("src/engine/redis.rs", "use std::os::unix::net::UnixStream;", "std::os::unix::net"),
        ("src/engine/redis.rs", "async fn f() { tokio::time::sleep(d).await }", "tokio::time::sleep"),
        ("src/engine.rs", "fn f(t: T) { let now = Instant::now(); }", "Instant::now"),
        ("src/model.rs", "fn f(p: &Path) -> bool { p.exists() }", ".exists()"),
        ("src/san.rs", "fn f() { std::process::exit(1) }", "std::process::exit"),
    ] {
        offends(touches_the_outside, path, text, said);
    }
    for (path, text) in [
        ("src/decide/labels.rs", "use std::{net::{IpAddr, Ipv4Addr}, time::Duration, path::PathBuf};"),
        ("src/decide/labels.rs", "#[cfg(test)] mod tests { use std::fs; } // std::fs"),
        ("src/decide/labels.rs", "const A: &str = \"std::fs\";"),
        ("src/config.rs", "use std::fs;"),
        ("src/host/probe.rs", "use tokio::net::TcpStream;"),
    ] {
        keeps(touches_the_outside, path, text);
    }
}

#[test]
fn a_file_without_a_mod_line_is_found() {
    let lost = |files: &[(&str, &str)]| Modules::walk(&crate_of(files)).unreached(&crate_of(files));
    let files = [
        ("src/lib.rs", "pub mod host; #[cfg(test)] mod checks; mod inline { mod deep; }"),
        ("src/main.rs", "fn main() {}"),
        ("src/host.rs", "mod docker; // mod forgotten;"),
        ("src/host/docker.rs", "mod events;"),
        ("src/host/docker/events.rs", ""),
        ("src/inline/deep/mod.rs", ""),
        ("src/checks.rs", "use std::fs;"),
    ];
    assert_eq!(lost(&files), [""; 0]);
    assert!(Modules::walk(&crate_of(&files)).for_tests.contains("src/checks.rs"));
    for path in ["src/host/forgotten.rs", "src/docker.rs", "src/host/events.rs"] {
        let found = lost(&[&files[..], &[(path, "")]].concat());
        assert_eq!(found, [format!("{path}: no mod line leads to it, so nothing in it is compiled")]);
    }
}

#[test]
fn a_long_file_and_a_name_that_says_nothing_are_found() {
    for (lines, only_tests, long) in
        [(600, false, false), (601, false, true), (800, true, false), (801, true, true)]
    {
        assert_eq!(too_long("src/a.rs", &"x\n".repeat(lines), only_tests).is_some(), long, "{lines}");
    }
    for path in
        ["src/utils.rs", "src/host/common.rs", "src/agent/manager.rs", "src/helpers/x.rs", "src/util.rs"]
    {
        assert!(says_nothing(path).is_some(), "{path}");
    }
    assert!(says_nothing("src/host/commonname.rs").is_none());
}

#[test]
fn all_rules_are_applied_to_a_whole_crate() {
    let found = offences(&crate_of(&[
        ("src/lib.rs", "pub mod decide;"),
        ("src/main.rs", "fn main() {}"),
        ("src/decide.rs", "mod utils; use crate::host; use std::fs; use bollard::Docker;"),
        ("src/decide/utils.rs", &"\n".repeat(700)),
        ("src/decide/lost.rs", ""),
    ]));
    for said in
        ["no mod line", "700 lines", "\"utils\"", "may not import host", "std::fs", "may name bollard"]
    {
        assert!(found.iter().any(|line| line.contains(said)), "{said}: {found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}
