//! Changing a file of PEM blocks in place, so that whoever reads it meanwhile finds whole blocks, and all that will be
//! there in the end.
//!
//! Overwriting a block with another one tears reads: the bytes of both are seen mixed. What cannot be torn is a single
//! byte, and text between blocks may be torn, as nobody reads it. So a block is hidden by one byte at the beginning of
//! each of its two marker lines, and shown by the same two bytes; what is written over is hidden before.
//!
//! 1. What is to be there is added behind all that is there, by one write.
//! 2. All blocks before it are hidden: they are text now.
//! 3. It is written over that text, hidden, and then shown: it is there twice.
//! 4. The second one is hidden and cut off.
//!
//! # Caveats
//!
//! Between the two bytes of a block a reader finds an end line without its begin line, which OpenSSL, GnuTLS, Go and
//! rustls pass over, and Java does not. A reader that takes several reads for the file, as it was shorter when it asked
//! for its length, meets one change at most, since there is a pause between them; but one whose buffer ends within a
//! block (4096 bytes with OpenSSL) can meet a change there.

use std::{path::Path, time::Duration};

use rustix::fs::OFlags;

use super::super::{
    crash,
    files::{self, FileError},
};

/// In the place of a marker line's first dash it makes the line a comment, for people as well.
const HIDDEN: u8 = b'#';
const SHOWN: u8 = b'-';

/// Make the content `to`; whatever it is now is in `from`. `to` ends with a line end. `pause`: longer than anybody needs
/// to read the file.
#[allow(clippy::disallowed_methods, reason = "nobody can say who reads: there is no condition to wait for")]
pub(super) fn rewrite(path: &Path, from: &[u8], to: &[u8], pause: Duration) -> Result<(), FileError> {
    let wait = || std::thread::sleep(pause);
    let (target, tail) = if let Some(rest) = from.strip_prefix(to) {
        (to.len(), rest)
    } else {
        // There has to be room for it in front of itself.
        let mut room = vec![b'\n'; to.len().saturating_sub(from.len())];
        if room.is_empty() && from.last() != Some(&b'\n') {
            room.push(b'\n');
        }
        files::append(path, &[&room[..], to].concat())?;
        wait();
        let file = InPlace::open(path)?;
        file.hide(from, 0)?;
        wait();
        file.write(&hidden(to), 0)?;
        let behind = from.len() + room.len();
        file.write(&vec![b'\n'; behind - to.len()], to.len())?;
        file.show(to, 0)?;
        wait();
        (behind, to)
    };
    let file = InPlace::open(path)?;
    file.hide(tail, target)?;
    wait();
    file.cut(to.len())
}

/// Offsets of the first dashes of a block's marker lines, in the order in which they stand.
fn markers(text: &[u8]) -> Vec<usize> {
    let starts = std::iter::once(0).chain((1..text.len()).filter(|at| matches!(text[at - 1], b'\n' | b'\r')));
    starts
        .filter(|at| text[*at..].starts_with(b"-----BEGIN ") || text[*at..].starts_with(b"-----END "))
        .collect()
}

fn hidden(text: &[u8]) -> Vec<u8> {
    let mut hidden = text.to_vec();
    for at in markers(text) {
        hidden[at] = HIDDEN;
    }
    hidden
}

struct InPlace<'a> {
    path: &'a Path,
    file: rustix::fd::OwnedFd,
}

impl<'a> InPlace<'a> {
    fn open(path: &'a Path) -> Result<Self, FileError> {
        let file = files::open_regular(path, OFlags::WRONLY)?;
        Ok(Self { path, file })
    }

    fn write(&self, bytes: &[u8], at: usize) -> Result<(), FileError> {
        crash::disk(self.path).map_err(|why| FileError::new("write into", self.path, why))?;
        let mut done = 0;
        while done < bytes.len() {
            done += rustix::io::pwrite(&self.file, &bytes[done..], (at + done) as u64)
                .map_err(|why| FileError::new("write into", self.path, why))?;
        }
        Ok(())
    }

    /// Hide the blocks of `text`, which stands at `offset`: each begin line before its end line.
    fn hide(&self, text: &[u8], offset: usize) -> Result<(), FileError> {
        markers(text).into_iter().try_for_each(|at| self.write(&[HIDDEN], offset + at))
    }

    /// Show them: each end line before its begin line.
    fn show(&self, text: &[u8], offset: usize) -> Result<(), FileError> {
        markers(text).into_iter().rev().try_for_each(|at| self.write(&[SHOWN], offset + at))
    }

    fn cut(&self, length: usize) -> Result<(), FileError> {
        rustix::fs::ftruncate(&self.file, length as u64)
            .and_then(|()| rustix::fs::fsync(&self.file))
            .map_err(|why| FileError::new("cut", self.path, why))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Read,
        os::unix::fs::MetadataExt,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn block(letter: char, lines: usize) -> String {
        let line = letter.to_string().repeat(64) + "\n";
        format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", line.repeat(lines))
    }

    /// As OpenSSL reads: blocks of a begin line and the next end line, an end line alone passed over.
    fn parse(text: &[u8]) -> Vec<char> {
        let text = std::str::from_utf8(text).unwrap();
        let (mut found, mut open) = (Vec::new(), None::<Vec<char>>);
        for line in text.lines() {
            match (line, &mut open) {
                ("-----BEGIN CERTIFICATE-----", None) => open = Some(Vec::new()),
                ("-----END CERTIFICATE-----", Some(letters)) => {
                    letters.dedup();
                    assert_eq!(letters.len(), 1, "a torn block: {text}");
                    found.push(letters[0]);
                    open = None;
                }
                (line, Some(letters)) => {
                    assert!(!line.contains('-') && !line.contains('#'), "a torn block: {text}");
                    letters.extend(line.chars());
                }
                _ => {}
            }
        }
        assert!(open.is_none(), "a block without end: {text}");
        found
    }

    #[test]
    fn the_content_is_what_it_has_to_be_and_the_inode_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (a, b, c) = (block('A', 3), block('B', 5), block('C', 9));
        for (from, to) in [
            (format!("{a}{b}"), b.clone()),
            (format!("{a}{b}"), a.clone()),
            (a.clone(), c.clone()),
            (c.clone(), a.clone()),
            (format!("text\n{a}text without an end"), format!("# other text\n{c}{b}")),
            (format!("{a}{b}{c}"), format!("{c}{a}")),
            (String::new(), a.clone()),
            ("just text".to_owned(), a.clone()),
            (a.clone(), a),
        ] {
            fs::write(&path, &from).unwrap();
            let inode = fs::metadata(&path).unwrap().ino();
            rewrite(&path, from.as_bytes(), to.as_bytes(), Duration::ZERO).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), to);
            assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        }
    }

    /// Changes the file until it was read so many times.
    fn read_at_full_speed(at_least: u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (a, b, c) = (block('A', 10), block('B', 11), block('C', 9));
        let contents =
            [format!("{a}{b}"), b.clone(), format!("{c}{b}"), format!("{b}{a}"), format!("{b}{c}")];
        fs::write(&path, &contents[0]).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                // As small files are read: all of it by one call.
                let mut buffer = vec![0; 1 << 16];
                for _ in 0..at_least {
                    let length = fs::File::open(&path).unwrap().read(&mut buffer).unwrap();
                    assert!(parse(&buffer[..length]).contains(&'B'));
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut changes = 0;
            while !done.load(Ordering::Relaxed) && !reader.is_finished() {
                let (from, to) = (&contents[changes % 5], &contents[(changes + 1) % 5]);
                rewrite(&path, from.as_bytes(), to.as_bytes(), Duration::ZERO).unwrap();
                changes += 1;
            }
            reader.join().unwrap();
            assert!(changes > 10);
        });
    }

    #[test]
    fn no_reader_finds_half_of_a_block_or_misses_one_that_stays() {
        read_at_full_speed(50_000);
    }

    #[test]
    #[ignore = "ten million reads take minutes: scripts/test --all"]
    fn no_reader_of_ten_million_does() {
        read_at_full_speed(10_000_000);
    }
}
