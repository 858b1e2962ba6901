//! `/proc/PID/mountinfo`, and paths as the kernel writes them there.
#![no_main]

use dbssl::fuzzing::{is_stale, mounted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    for line in text.split(|byte| *byte == b'\n') {
        if let Some([device, path, point]) = mounted(line) {
            assert!(device.len() + path.len() + point.len() <= line.len());
        }
    }
    // Two paths of one's own: what was written down is what is read.
    let mut paths = text.split(|byte| *byte == 0);
    let [path, point] = std::array::from_fn(|_| paths.next().unwrap_or_default());
    let line =
        [&b"36 35 98:0 "[..], &escaped(path), b" ", &escaped(point), b" ro - ext4 /dev/vda rw"].concat();
    assert_eq!(mounted(&line), Some([b"98:0".to_vec(), path.to_vec(), point.to_vec()]));
    // Whatever else is mounted below it, what lies on top counts.
    let all = [text, b"\n", &line].concat();
    assert_eq!(is_stale(&all, point, b"98:0", path), Some(false));
    assert_eq!(is_stale(&all, point, b"98:0", &[path, b"x"].concat()), Some(true));
    assert_eq!(is_stale(&all, point, b"98:1", path), Some(true));
});

/// As `seq_path` of the kernel escapes.
fn escaped(path: &[u8]) -> Vec<u8> {
    path.iter()
        .flat_map(|byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![*byte],
        })
        .collect()
}
