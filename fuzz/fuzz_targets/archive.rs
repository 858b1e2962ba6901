//! Tar archives out of a container: the files of `/etc`, and what is copied into its successor.
#![no_main]

use std::io::Read;

use dbssl::{fuzzing::first_file, host::archive::without};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fuzz_target!(|tar: &[u8]| {
    if let Some(content) = first_file(tar, LIMIT) {
        assert!(content.len() <= LIMIT);
        assert!(tar.windows(content.len().max(1)).any(|part| part == content) || content.is_empty());
    }
    let Some(whole) = without(tar, |_| false) else { return };
    // Names that are too long for a header are written twice, and each entry is filled up to whole blocks.
    assert!(whole.len() <= 4 * tar.len() + 4096, "{} bytes became {}", tar.len(), whole.len());
    assert_eq!(without(&whole, |_| false).as_deref(), Some(whole.as_slice()), "once more changes nothing");
    let Some(left_out) = paths(&whole).pop() else { return };
    if let Some(rest) = without(&whole, |path| path == left_out) {
        assert!(!paths(&rest).contains(&left_out));
    }
});

fn paths(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let mut paths = Vec::new();
    for entry in archive.entries().expect("it was written by us") {
        let mut entry = entry.expect("it was written by us");
        entry.read_to_end(&mut Vec::new()).expect("it is whole");
        let path = entry.path().expect("it was read before").to_string_lossy().into_owned();
        paths.push(path.trim_end_matches('/').to_owned());
    }
    paths
}
