//! The managed block of `pg_hba.conf`, by which PostgreSQL refuses plaintext.
//!
//! PostgreSQL takes the first line that fits a connection, so the block stands at the top. It touches neither the
//! Unix socket (`local` lines) nor TLS (`hostnossl` fits plaintext only). Nothing else in the file is changed by a
//! single byte: it may be in any encoding, with any line ends.
//!
//! What is ours is recognised line by line: the two marker comments, and between them the rules. A line that somebody
//! else wrote between the markers stays, behind the block.
//!
//! # Certificates
//! That a client must have one is an option of the very line that says how he proves who he is, and there is no line that
//! demands it and leaves the rest to others. So the block holds a copy of each line for TLS, in its order, with that
//! demand: a client who fits a copy would have fitted the original, and has to prove what it says. Whoever fits none is
//! refused, as he would have been.

mod certified;

pub use certified::NotUnderstood;
use certified::certified;

/// By these beginnings the markers are recognised, so that their wording may change.
const BEGIN: &str = "# >>> dbssl";
const END: &str = "# <<< dbssl";

const FIRST: &str =
    "# >>> dbssl: managed, removed again with dbssl.enable. Connections from outside must use TLS.";
const LAST: &str = "# <<< dbssl";

/// `all` as a database does not stand for replication.
const RULES: [&str; 2] = ["hostnossl all all all reject", "hostnossl replication all all reject"];

/// Behind the copies: a line that is written below later is not in force before it has been copied. Without TLS none of
/// these fits.
const REST: [&str; 2] = ["hostssl all all all reject", "hostssl replication all all reject"];

/// At the end of each line of the block that demands certificates: by it the line is known to be ours.
const OURS: &str = " # dbssl";

/// What the block is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Who comes without TLS is refused.
    pub plaintext: bool,
    /// Who comes by TLS without a certificate is refused; what else the file demands of him stays as it is.
    pub certificates: bool,
}

impl Block {
    const ALL: [Self; 4] = [
        Self { plaintext: false, certificates: false },
        Self { plaintext: true, certificates: false },
        Self { plaintext: false, certificates: true },
        Self { plaintext: true, certificates: true },
    ];
}

/// The file with this block at its top, exactly once; `None` if it is so already.
///
/// # Errors
/// If certificates are to be demanded and a line cannot be copied for that.
pub fn with_block(text: &[u8], block: Block) -> Result<Option<Vec<u8>>, NotUnderstood> {
    if block == Block::default() {
        return Ok(without_block(text));
    }
    let rest = without_block(text);
    let rest = rest.as_deref().unwrap_or(text);
    let wanted = [block_for(rest, block)?.as_slice(), rest].concat();
    Ok((wanted != text).then_some(wanted))
}

/// The file without any block, whole or damaged; `None` if there is nothing of ours in it.
pub fn without_block(text: &[u8]) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let kinds: Vec<Kind> = lines.iter().map(|line| kind(line)).collect();
    let mut ours = vec![false; lines.len()];
    for (at, kind) in kinds.iter().enumerate() {
        match kind {
            Kind::Begin => {
                ours[at] = true;
                // As far as the end marker, if nothing else of ours begins before it; a block that was torn ends
                // where its rules end.
                let length = kinds[at + 1..]
                    .iter()
                    .position(|kind| matches!(kind, Kind::Begin | Kind::End))
                    .filter(|length| kinds[at + 1 + length] == Kind::End)
                    .unwrap_or_else(|| {
                        kinds[at + 1..].iter().take_while(|kind| **kind != Kind::Other).count()
                    });
                for inside in at + 1..(at + 1 + length).min(lines.len()) {
                    ours[inside] |= kinds[inside] != Kind::Other;
                }
            }
            Kind::End => {
                ours[at] = true;
                // Its begin marker may be lost: then the rules straight before it are the block's.
                for before in (0..at).rev().take_while(|before| kinds[*before] == Kind::Rule) {
                    ours[before] = true;
                }
            }
            Kind::Rule | Kind::TornRule | Kind::Other => {}
        }
    }
    // Half a rule at the end of the file is ours only straight behind what is ours.
    for at in 0..lines.len() {
        if kinds[at] == Kind::TornRule && ours[at] && !(at > 0 && ours[at - 1]) {
            ours[at] = false;
        }
    }
    if !ours.contains(&true) {
        return None;
    }
    Some(
        lines
            .iter()
            .zip(&ours)
            .filter(|(_, ours)| !**ours)
            .flat_map(|(line, _)| line.iter().copied())
            .collect(),
    )
}

/// The block that is there, whole, once, and at the top, where it is in force; `None` if what is there is damaged, or out
/// of date: lines below it have changed since.
pub fn block(text: &[u8]) -> Option<Block> {
    Block::ALL.into_iter().find(|block| matches!(with_block(text, *block), Ok(None)))
}

/// Whether some block of ours demands certificates, be it whole or not.
pub fn demands_certificates(text: &[u8]) -> bool {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut inside = false;
    lines.iter().any(|line| {
        match kind(line) {
            Kind::Begin => inside = true,
            Kind::End => inside = false,
            Kind::Rule | Kind::TornRule | Kind::Other => {}
        }
        inside && is_certified(line.trim_ascii())
    })
}

/// With the line ends that the file has.
fn block_for(rest: &[u8], block: Block) -> Result<Vec<u8>, NotUnderstood> {
    let first = rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let end = if first.ends_with(b"\r\n") { "\r\n" } else { "\n" };
    let mut lines: Vec<Vec<u8>> = vec![FIRST.into()];
    if block.plaintext {
        lines.extend(RULES.map(Vec::from));
    }
    if block.certificates {
        let ours = |line: &[u8]| [line, OURS.as_bytes()].concat();
        lines.extend(certified(rest)?.iter().map(|line| ours(line)));
        lines.extend(REST.map(|line| ours(line.as_bytes())));
    }
    lines.push(LAST.into());
    Ok(lines.into_iter().flat_map(|line| [&line, end.as_bytes()].concat()).collect())
}

fn is_certified(line: &[u8]) -> bool {
    line.starts_with(b"hostssl") && line.ends_with(OURS.as_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Begin,
    End,
    Rule,
    /// The beginning of a rule, cut off by the end of the file.
    TornRule,
    Other,
}

fn kind(line: &[u8]) -> Kind {
    let text = line.trim_ascii();
    if text.starts_with(BEGIN.as_bytes()) {
        Kind::Begin
    } else if text.starts_with(END.as_bytes()) {
        Kind::End
    } else if RULES.iter().any(|rule| same_words(text, rule.as_bytes())) || is_certified(text) {
        Kind::Rule
    } else if !line.ends_with(b"\n")
        && !text.is_empty()
        && RULES.iter().any(|rule| rule.as_bytes().starts_with(text))
    {
        Kind::TornRule
    } else {
        Kind::Other
    }
}

fn same_words(one: &[u8], other: &[u8]) -> bool {
    let words = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
    };
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAINTEXT: Block = Block { plaintext: true, certificates: false };
    const BOTH: Block = Block { plaintext: true, certificates: true };
    const LINES: [&str; 4] = [FIRST, RULES[0], RULES[1], LAST];

    fn with_this(text: &[u8], block: Block) -> Vec<u8> {
        with_block(text, block).unwrap().unwrap_or_else(|| text.to_vec())
    }

    fn with(text: &[u8]) -> Vec<u8> {
        with_this(text, PLAINTEXT)
    }

    fn has_block(text: &[u8]) -> bool {
        block(text) == Some(PLAINTEXT)
    }

    fn without(text: &[u8]) -> Vec<u8> {
        without_block(text).unwrap_or_else(|| text.to_vec())
    }

    fn the_block() -> String {
        LINES.map(|line| format!("{line}\n")).concat()
    }

    #[test]
    fn the_block_stands_at_the_top_and_the_rest_is_untouched() {
        let file = b"# mine\nlocal all all trust\nhost all all all scram-sha-256\n";
        let managed = with(file);
        assert_eq!(managed, [the_block().as_bytes(), file].concat());
        assert!(has_block(&managed) && !has_block(file));
        assert_eq!(without(&managed), file);
        assert_eq!(without_block(file), None);
    }

    #[test]
    fn the_block_says_what_postgresql_needs_to_read() {
        let rules: Vec<_> = LINES.iter().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(rules, [&"hostnossl all all all reject", &"hostnossl replication all all reject"]);
    }

    #[test]
    fn line_ends_follow_the_file() {
        let managed = with(b"local all all trust\r\nhost all all all md5\r\n");
        assert!(!managed.split(|byte| *byte == b'\n').any(|line| !line.is_empty() && !line.ends_with(b"\r")));
        assert!(has_block(&managed));
    }

    #[test]
    fn damaged_blocks_are_made_whole_and_nobodys_lines_are_lost() {
        let [begin, all, replication, end] = LINES;
        let mine = "local all all trust\nhost all all all scram-sha-256\n";
        for damaged in [
            format!("{begin}\n{mine}"),
            format!("{begin}\n{all}\n{mine}"),
            format!("{begin}\n{all}\n{replication}\n{mine}"),
            format!("{all}\n{replication}\n{end}\n{mine}"),
            format!("{end}\n{mine}"),
            format!("{begin}\n{end}\n{mine}"),
            format!("{begin}\n{replication}\n{all}\n{end}\n{mine}"),
            format!("{}{}{mine}", the_block(), the_block()),
            format!("{mine}{}", the_block()),
            format!("{begin}\n{all}\n{}{mine}", the_block()),
            format!("{begin}\n{all}\n{mine}{}", the_block()),
            format!(
                "  {begin}\t\r\n hostnossl  all\tall all reject \n{replication}\n{end} old words\n{mine}"
            ),
            format!("{begin}\n{mine}{all}\n{end}\n"),
            format!("{mine}{begin}\n{all}\nhostnossl repl"),
            format!("{mine}{begin}\nh"),
        ] {
            assert!(!has_block(damaged.as_bytes()), "{damaged}");
            let repaired = with(damaged.as_bytes());
            assert_eq!(
                String::from_utf8(repaired.clone()).unwrap(),
                format!("{}{mine}", the_block()),
                "{damaged}"
            );
            assert!(has_block(&repaired));
            assert_eq!(without(damaged.as_bytes()), mine.as_bytes(), "{damaged}");
        }
    }

    #[test]
    fn lines_that_others_wrote_are_theirs_even_between_the_markers() {
        let [begin, all, _, end] = LINES;
        let edited =
            format!("{begin}\n{all}\nhostssl all bob all cert\n# {all}\n{end}\nlocal all all trust\n");
        let kept = format!("hostssl all bob all cert\n# {all}\nlocal all all trust\n");
        assert_eq!(without(edited.as_bytes()), kept.as_bytes());
        assert_eq!(with(edited.as_bytes()), [the_block().as_bytes(), kept.as_bytes()].concat());
        // The same rule, written by somebody else outside of any markers.
        let theirs = format!("{all}\nlocal all all trust\n");
        assert_eq!(without_block(theirs.as_bytes()), None);
        assert_eq!(without(&with(theirs.as_bytes())), theirs.as_bytes());
    }

    #[test]
    fn each_line_for_tls_is_copied_with_the_demand_and_the_rest_is_untouched() {
        let file = "local all all trust\nhost all all 127.0.0.1/32 trust # me\nhostnossl all bob all md5\n\
                    hostssl shop shop 10.0.0.0/8 scram-sha-256\n";
        let managed = String::from_utf8(with_this(file.as_bytes(), BOTH)).unwrap();
        let block_lines = "hostnossl all all all reject\nhostnossl replication all all reject\n\
                           hostssl all all 127.0.0.1/32 trust clientcert=verify-ca # dbssl\n\
                           hostssl shop shop 10.0.0.0/8 scram-sha-256 clientcert=verify-ca # dbssl\n\
                           hostssl all all all reject # dbssl\nhostssl replication all all reject # dbssl\n";
        assert_eq!(managed, format!("{FIRST}\n{block_lines}{LAST}\n{file}"));
        assert_eq!(block(managed.as_bytes()), Some(BOTH));
        assert_eq!(block(file.as_bytes()), Some(Block::default()));
        assert!(demands_certificates(managed.as_bytes()) && !demands_certificates(&with(file.as_bytes())));
        assert_eq!(without(managed.as_bytes()), file.as_bytes());
        // From each to each, in one step.
        for (from, to) in Block::ALL.into_iter().flat_map(|from| Block::ALL.map(|to| (from, to))) {
            let managed = with_this(file.as_bytes(), from);
            assert_eq!(block(&managed), Some(from));
            assert_eq!(with_this(&managed, to), with_this(file.as_bytes(), to), "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_line_that_is_written_below_later_makes_the_copies_out_of_date() {
        let managed = with_this(b"host all all all md5\n", BOTH);
        let edited = [managed.as_slice(), b"hostssl all bob all cert\n"].concat();
        assert_eq!(block(&edited), None);
        assert!(demands_certificates(&edited));
        let anew = with_this(&edited, BOTH);
        assert_eq!(block(&anew), Some(BOTH));
        let text = String::from_utf8(anew).unwrap();
        assert!(text.contains("\nhostssl all bob all cert # dbssl\n"), "{text}");
        // What its owner wrote between the markers is his, and is copied like the rest.
        let text =
            String::from_utf8(managed).unwrap().replace(LAST, &format!("hostssl all eve all md5\n{LAST}"));
        let anew = String::from_utf8(with_this(text.as_bytes(), BOTH)).unwrap();
        assert!(anew.contains("hostssl all eve all md5 clientcert=verify-ca # dbssl\n"), "{anew}");
        assert!(anew.ends_with("# <<< dbssl\nhostssl all eve all md5\nhost all all all md5\n"), "{anew}");
    }

    /// xorshift64: the same files in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % bound as u64).unwrap()
        }
    }

    fn random_file(random: &mut Random, pieces: &[&[u8]]) -> Vec<u8> {
        (0..random.below(12)).flat_map(|_| pieces[random.below(pieces.len())].to_vec()).collect()
    }

    const THEIRS: &[&[u8]] = &[
        b"local all all trust\n",
        b"host all all all md5\r\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"# caf\xe9 \xff\x00\n",
        b"host all all all md5",
        b"hostnossl all all all reject\n",
        b"hostnossl replication all all reject\r\n",
        b"hostnossl all all all scram-sha-256\n",
        b"host all all 10.0.0.0/8 \\\n",
        b"\xef\xbb\xbf",
        b"  ",
        b"# dbssl\n",
    ];

    #[test]
    fn taking_the_block_out_again_gives_the_same_bytes() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..5_000 {
            let file = random_file(&mut random, THEIRS);
            let managed = with(&file);
            assert_eq!(without(&managed), file, "{}", file.escape_ascii());
            assert!(has_block(&managed) && with_block(&managed, PLAINTEXT) == Ok(None));
            assert!(without_block(&file).is_none());
            if let Ok(Some(managed)) = with_block(&file, BOTH) {
                assert_eq!(without(&managed), file, "{}", file.escape_ascii());
                assert_eq!(block(&managed), Some(BOTH));
                assert_eq!(with(&managed), with(&file));
            }
        }
    }

    #[test]
    fn any_mixture_of_pieces_of_blocks_converges_in_one_step() {
        let certified = format!("hostssl all all all md5 clientcert=verify-ca{OURS}");
        let ours: Vec<Vec<u8>> = LINES
            .iter()
            .copied()
            .chain([certified.as_str()])
            .flat_map(|line| ["\n", "\r\n", ""].map(|end| format!("{line}{end}").into_bytes()))
            .chain([b"hostnossl al".to_vec(), b"# >>> dbss".to_vec()])
            .collect();
        let mut pieces: Vec<&[u8]> = ours.iter().map(Vec::as_slice).collect();
        pieces.extend(THEIRS);
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for _ in 0..8_000 {
            let file = random_file(&mut random, &pieces);
            let managed = with(&file);
            assert!(has_block(&managed), "{}", file.escape_ascii());
            let bare = without(&file);
            assert!(without_block(&bare).is_none(), "{}", file.escape_ascii());
            assert_eq!(without(&managed), bare, "{}", file.escape_ascii());
            assert_eq!(with(&bare), managed);
            match with_block(&file, BOTH) {
                Ok(managed) => {
                    let managed = managed.unwrap_or(file);
                    assert_eq!(block(&managed), Some(BOTH), "{}", managed.escape_ascii());
                    assert_eq!(with_this(&bare, BOTH), managed);
                }
                Err(_) => assert!(with_block(&bare, BOTH).is_err()),
            }
        }
    }

    #[test]
    fn an_empty_file_and_endless_lines_are_files_too() {
        assert_eq!(without(&with(b"")), b"");
        let long = vec![b'x'; 1 << 20];
        assert_eq!(without(&with(&long)), long);
    }
}
