//! Holds `docs/hazards.md`: every hazard has a file that deals with it and a test that proves it, and both exist.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// One line of the table.
#[derive(Debug)]
struct Hazard<'t> {
    about: &'t str,
    files: Vec<&'t str>,
    tests: Vec<&'t str>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The lines of the table below its heads.
fn hazards(text: &str) -> Vec<Hazard<'_>> {
    let lines = text.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [hazard, _, files, tests] = cells[..] else { panic!("{} cells in: {line}", cells.len()) };
            Hazard { about: hazard, files: quoted(files), tests: quoted(tests) }
        })
        .collect()
}

/// The functions that are marked as tests.
fn tests_of(text: &str) -> Vec<&str> {
    let mut marked = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim_start) {
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let line = line.strip_prefix("async ").unwrap_or(line);
        if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')) {
            if marked {
                found.push(name);
            }
            marked = false;
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What is wrong with the table, given the tests that there are.
fn faults(text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for Hazard { about: hazard, files, tests: named } in hazards(text) {
        if files.is_empty() || named.is_empty() {
            faults.push(format!("{hazard}: no file, or no test"));
        }
        let no_file = files.iter().filter(|file| !root().join(file).is_file());
        faults.extend(no_file.map(|file| format!("{hazard}: there is no file {file}")));
        let no_test = named.iter().filter(|test| !tests.contains(**test));
        faults.extend(no_test.map(|test| format!("{hazard}: there is no test {test}")));
    }
    faults
}

#[test]
fn every_hazard_has_a_file_that_deals_with_it_and_a_test_that_proves_it() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let tests: BTreeSet<_> = texts.iter().flat_map(|text| tests_of(text)).map(str::to_owned).collect();
    let table = fs::read_to_string(root().join("docs/hazards.md")).unwrap();
    assert!(hazards(&table).len() >= 30, "a part of the table is not read");
    assert_eq!(faults(&table, &tests), Vec::<String>::new());
}

#[test]
fn a_name_that_is_gone_is_found() {
    let text = "\
        | hazard | what dbssl does | where | proved by |\n|---|---|---|---|\n\
        | a | x | `src/lib.rs` | `there`, `gone` |\n\
        | b | x | `src/no_such_file.rs` | `there` |\n\
        | c | x | `src/lib.rs` | none |\n";
    let tests = [String::from("there")].into();
    let expected =
        ["a: there is no test gone", "b: there is no file src/no_such_file.rs", "c: no file, or no test"];
    assert_eq!(faults(text, &tests), expected);
}

#[test]
fn only_what_is_marked_is_a_test() {
    let text = "fn helper() {}\n    #[test]\n    fn one() {\n#[tokio::test(flavor = \"x\")]\n#[ignore = \"x\"]\nasync fn two() {\nfn more() {\n";
    assert_eq!(tests_of(text), ["one", "two"]);
}
