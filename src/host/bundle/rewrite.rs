//! Changing a file of PEM blocks in place, so that whoever reads it meanwhile finds whole blocks, and all that will be
//! there in the end.
//!
//! Overwriting a block with another one tears reads: the bytes of both are seen mixed. What cannot be torn is a single
//! byte, and text between blocks may be torn, as nobody reads it. So a block is hidden by one byte at the beginning of
//! each of its two marker lines, and shown by the same two bytes; what is written over is hidden before.
//!
//! 1. What is to be there is added behind all that is there: by one write if that stays within a page of the file, as
//!    Linux shows one that does not in two parts; else hidden, and then shown.
//! 2. All blocks before it are hidden: they are text now.
//! 3. It is written over that text, hidden, and then shown: it is there twice.
//! 4. The second one is hidden and cut off.
//!
//! Before each step the file has to be as the last one left it: who else writes to it has the last word.
//!
//! # Caveats
//!
//! Between the two bytes of a block a reader finds an end line without its begin line, which OpenSSL, GnuTLS, Go and
//! rustls pass over, and Java does not. A reader that takes several reads for the file, as it was shorter when it asked
//! for its length, meets one change at most, since there is a pause between them; but one whose buffer ends within a
//! block (4096 bytes with OpenSSL) can meet a change there.

use std::{io, ops::Range, path::Path, time::Duration};

use rustix::{fd::OwnedFd, fs::OFlags};

use super::super::{
    clock, crash,
    files::{self, FileError},
};

/// In the place of a marker line's first dash it makes the line a comment, for people as well.
const HIDDEN: u8 = b'#';
const SHOWN: u8 = b'-';

/// Bytes. The smallest there is: where pages are larger, more is hidden than has to be.
const PAGE: usize = 4096;

/// Make the content `to`, if it is `from` now. `to` ends with a line end. `pause`: longer than anybody needs to read the
/// file. `false` if it is, or became meanwhile, something else: then somebody else has written it, and has the last word.
pub(super) fn rewrite(path: &Path, from: &[u8], to: &[u8], pause: Duration) -> Result<bool, FileError> {
    InPlace::open(path, from)?.change(from, to, || clock::rest(pause))
}

/// Make the content `to`, if it is `found` now: a beginning of `to`, or what [`extend`] left of it when it was cut off.
/// `false` as for [`rewrite`].
pub(super) fn extend(path: &Path, found: &[u8], to: &[u8]) -> Result<bool, FileError> {
    let mut file = InPlace::open(path, found)?;
    Ok(file.is_untouched()? && file.extend(to)?)
}

/// Whether `found` is what [`extend`] to `to` leaves if it is cut off while what it added is hidden.
pub(super) fn is_half_shown(found: &[u8], to: &[u8]) -> bool {
    let mut shown = found.to_vec();
    for at in markers(to).into_iter().filter(|at| found.get(*at) == Some(&HIDDEN)) {
        shown[at] = SHOWN;
    }
    shown != found && to.starts_with(&shown)
}

/// Line ends behind `from`: there has to be room for `to` in front of itself, and it begins with a line.
fn room(from: &[u8], to: &[u8]) -> usize {
    let open = usize::from(from.last() != Some(&b'\n'));
    to.len().saturating_sub(from.len()).max(open)
}

/// Whether [`rewrite`] from `from` to `to`, cut off anywhere, leaves `found`: else somebody else has written it.
pub(super) fn passes(found: &[u8], from: &[u8], to: &[u8]) -> bool {
    let is = |byte: u8, meant: Option<&u8>| {
        meant.is_some_and(|meant| byte == *meant || (byte == HIDDEN && *meant == SHOWN))
    };
    let behind = from.len() + room(from, to);
    let may_be = |(at, byte): (usize, &u8)| {
        let space = *byte == b'\n' && at >= to.len().min(from.len());
        if at < behind {
            is(*byte, from.get(at)) || is(*byte, to.get(at)) || space
        } else {
            is(*byte, to.get(at - behind))
        }
    };
    found == to || (found.len() >= from.len() && found.iter().enumerate().all(may_be))
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
    file: OwnedFd,
    /// The same file, for what is added: by its name somebody else's could be met.
    end: OwnedFd,
    /// What it holds if nobody else writes to it.
    content: Vec<u8>,
    /// What each step left.
    #[cfg(test)]
    states: Vec<Vec<u8>>,
}

impl<'a> InPlace<'a> {
    fn open(path: &'a Path, content: &[u8]) -> Result<Self, FileError> {
        let file = files::open_regular(path, OFlags::WRONLY)?;
        let end = files::open_regular(path, OFlags::WRONLY | OFlags::APPEND)?;
        Ok(Self {
            path,
            file,
            end,
            content: content.to_vec(),
            #[cfg(test)]
            states: Vec::new(),
        })
    }

    /// `rest` lets readers finish.
    fn change(&mut self, from: &[u8], to: &[u8], mut rest: impl FnMut()) -> Result<bool, FileError> {
        if !self.is_untouched()? {
            return Ok(false);
        }
        let tail = if from.starts_with(to) {
            to.len()..from.len()
        } else {
            let behind = from.len() + room(from, to);
            let both = [from, &vec![b'\n'; room(from, to)], to].concat();
            if !self.extend(&both)? || !self.rests(&mut rest)? {
                return Ok(false);
            }
            self.hide(0..from.len())?;
            if !self.rests(&mut rest)? {
                return Ok(false);
            }
            self.write(&hidden(to), 0)?;
            self.write(&vec![b'\n'; behind - to.len()], to.len())?;
            self.show(to)?;
            if !self.rests(&mut rest)? {
                return Ok(false);
            }
            behind..behind + to.len()
        };
        self.hide(tail)?;
        if !self.rests(&mut rest)? {
            return Ok(false);
        }
        self.cut(to.len())?;
        Ok(true)
    }

    /// Whether what has that name is as it was left here.
    fn is_untouched(&self) -> Result<bool, FileError> {
        Ok(files::read(self.path)?.is_some_and(|found| found.content.expose() == self.content))
    }

    /// Whether nobody wrote while it was resting.
    fn rests(&self, rest: &mut impl FnMut()) -> Result<bool, FileError> {
        rest();
        self.is_untouched()
    }

    /// Make the content `to`, of which it is a beginning; `false` if somebody else has written.
    fn extend(&mut self, to: &[u8]) -> Result<bool, FileError> {
        let at = self.content.len();
        if to.starts_with(&self.content) && at / PAGE == to.len().saturating_sub(1) / PAGE {
            return self.append(&to[at..]).map(|()| true);
        }
        self.append(&hidden(to)[at..])?;
        if !self.is_untouched()? {
            return Ok(false);
        }
        self.show(to)?;
        self.sync()?;
        Ok(true)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        files::append_to(&self.end, self.path, bytes)?;
        self.content.extend_from_slice(bytes);
        #[cfg(test)]
        self.states.push(self.content.clone());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], at: usize) -> Result<(), FileError> {
        crash::disk(self.path).map_err(|why| FileError::new("write into", self.path, why))?;
        let mut done = 0;
        while done < bytes.len() {
            done += rustix::io::pwrite(&self.file, &bytes[done..], (at + done) as u64)
                .map_err(|why| FileError::new("write into", self.path, why))?;
        }
        self.content[at..at + bytes.len()].copy_from_slice(bytes);
        #[cfg(test)]
        self.states.push(self.content.clone());
        Ok(())
    }

    /// Hide the blocks that stand there: each begin line before its end line.
    fn hide(&mut self, range: Range<usize>) -> Result<(), FileError> {
        let at = markers(&self.content[range.clone()]);
        at.into_iter().try_for_each(|at| self.write(&[HIDDEN], range.start + at))
    }

    /// Show the blocks of `text`, which stands in front: each end line before its begin line.
    fn show(&mut self, text: &[u8]) -> Result<(), FileError> {
        let hidden: Vec<_> = markers(text).into_iter().filter(|at| self.content[*at] == HIDDEN).collect();
        hidden.into_iter().rev().try_for_each(|at| self.write(&[SHOWN], at))
    }

    fn cut(&mut self, length: usize) -> Result<(), FileError> {
        let failed = |why: io::Error| FileError::new("cut", self.path, why);
        crash::disk(self.path).map_err(failed)?;
        rustix::fs::ftruncate(&self.file, length as u64).map_err(|why| failed(why.into()))?;
        self.content.truncate(length);
        #[cfg(test)]
        self.states.push(self.content.clone());
        self.sync()
    }

    fn sync(&self) -> Result<(), FileError> {
        rustix::fs::fsync(&self.file).map_err(|why| FileError::new("sync", self.path, why))
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

    /// Each write of a change, and each half of one that adds, is a state in which it can be cut off.
    #[test]
    fn what_a_change_leaves_when_it_is_cut_off_is_known_from_what_others_write() {
        let blocks = |letters: &str| letters.chars().map(|letter| block(letter, 3)).collect::<String>();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (from, to) in [("ab", "b"), ("ab", "a"), ("a", "bc"), ("ab", "cd"), ("abc", "d"), ("", "a")] {
            let (from, to) = (blocks(from), blocks(to));
            let (from, to) = (from.as_bytes(), to.as_bytes());
            fs::write(&path, from).unwrap();
            let mut file = InPlace::open(&path, from).unwrap();
            assert!(file.change(from, to, || {}).unwrap());
            assert_eq!(fs::read(&path).unwrap(), to);
            let added = &file.states[0];
            let halves = (from.len()..added.len()).map(|length| added[..length].to_vec());
            for state in file.states.iter().cloned().chain(halves.filter(|_| !from.starts_with(to))) {
                assert!(passes(&state, from, to), "{}", String::from_utf8_lossy(&state));
            }
            // Somebody's file, alone or with what was added to it when it had got that name.
            for theirs in [blocks("x"), blocks("xy"), blocks("bx"), "# mine\n".to_owned() + &blocks("a")] {
                let added = [theirs.as_bytes(), &vec![b'\n'; room(from, to)], to].concat();
                assert!(!passes(&added, from, to), "{}", String::from_utf8_lossy(&added));
                assert!(!passes(theirs.as_bytes(), from, to));
            }
        }
    }

    /// Over the end of a page, which Linux may show in two parts, with the disk full in the middle, or nobody to go on.
    #[test]
    fn what_is_added_is_whole_at_each_step_and_can_be_taken_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (a, b, c) = (block('A', 3), block('B', 60), block('C', 9));
        for (from, new) in [(a.clone(), format!("{b}{c}")), (String::new(), format!("{b}{c}{a}"))] {
            let to = from.clone() + &new;
            fs::write(&path, &from).unwrap();
            let mut file = InPlace::open(&path, from.as_bytes()).unwrap();
            assert!(file.extend(to.as_bytes()).unwrap());
            assert_eq!(fs::read(&path).unwrap(), to.as_bytes());
            let added = &file.states[0];
            let halves = (from.len() + 1..added.len()).step_by(61).map(|length| added[..length].to_vec());
            let states: Vec<_> = halves.chain(file.states.iter().cloned()).collect();
            for state in states {
                let shown = parse(&state);
                assert!(to.ends_with(&blocks_of(&shown[parse(from.as_bytes()).len()..], [&a, &b, &c])));
                assert_eq!(is_half_shown(&state, to.as_bytes()), state != to.as_bytes());
                fs::write(&path, &state).unwrap();
                assert!(extend(&path, &state, to.as_bytes()).unwrap());
                assert_eq!(fs::read_to_string(&path).unwrap(), to);
            }
            // What somebody wrote.
            for theirs in [&from, &to, &(from.clone() + &a), &to.replace("-----BEGIN", "# -----BEGIN")] {
                assert!(!is_half_shown(theirs.as_bytes(), to.as_bytes()), "{theirs}");
            }
        }
    }

    fn blocks_of(letters: &[char], blocks: [&String; 3]) -> String {
        letters.iter().map(|letter| blocks["ABC".find(*letter).unwrap()].as_str()).collect()
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
            assert!(rewrite(&path, from.as_bytes(), to.as_bytes(), Duration::ZERO).unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), to);
            assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        }
    }

    /// Whoever replaces the file at whichever step of a change has the last word.
    #[test]
    fn what_somebody_else_writes_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, beside) = (folder.path().join("file"), folder.path().join("new"));
        let (from, to, theirs) = (block('A', 3) + &block('B', 5), block('C', 9), block('D', 4));
        fs::write(&path, &theirs).unwrap();
        assert!(!rewrite(&path, from.as_bytes(), to.as_bytes(), Duration::ZERO).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        // It rests after what is to be there is added, after the rest is hidden, written over, and hidden again.
        for step in 0..4 {
            for by_rename in [false, true] {
                fs::write(&path, &from).unwrap();
                let mut rests = 0;
                let somebody_writes = || {
                    if rests == step && by_rename {
                        fs::write(&beside, &theirs).unwrap();
                        fs::rename(&beside, &path).unwrap();
                    } else if rests == step {
                        fs::write(&path, &theirs).unwrap();
                    }
                    rests += 1;
                };
                let mut file = InPlace::open(&path, from.as_bytes()).unwrap();
                assert!(
                    !file.change(from.as_bytes(), to.as_bytes(), somebody_writes).unwrap(),
                    "step {step}"
                );
                assert_eq!(fs::read_to_string(&path).unwrap(), theirs, "step {step}");
                assert_eq!(rests, step + 1);
            }
        }
    }

    /// Changes the file until it was read so many times. With a pause as short as a read can take: without one, several
    /// steps fall into one read, and it is torn.
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
                assert!(rewrite(&path, from.as_bytes(), to.as_bytes(), Duration::from_millis(2)).unwrap());
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
