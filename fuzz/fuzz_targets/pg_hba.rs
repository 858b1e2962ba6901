//! `pg_hba.conf`, into which a block is put and out of which it is taken again.
#![no_main]

use dbssl::engine::pg_hba::{Block, block, demands_certificates, with_block, without_block};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let bare = without_block(text).unwrap_or_else(|| text.to_vec());
    assert!(is_rest_of(&bare, text), "nothing is added and the order stays");
    assert_eq!(without_block(&bare), None, "what is left holds nothing of ours");
    assert_eq!(with_block(text, Block::default()), Ok(without_block(text)));
    for (plaintext, certificates) in [(true, false), (false, true), (true, true)] {
        let wanted = Block { plaintext, certificates };
        let with = match with_block(text, wanted) {
            Ok(with) => with.unwrap_or_else(|| text.to_vec()),
            Err(why) => {
                assert!(certificates, "a block without certificates reads nothing: {why}");
                assert!(why.to_string().len() < 512);
                continue;
            }
        };
        assert!(with.ends_with(&bare), "not a byte of anybody else's is changed");
        assert_eq!(with_block(&with, wanted), Ok(None), "once is enough");
        assert_eq!(block(&with), Some(wanted));
        assert_eq!(demands_certificates(&with), certificates);
        assert_eq!(without_block(&with), Some(bare.clone()), "it goes without a trace");
    }
});

/// Whether `rest` are some of the lines of `text`, in their order.
fn is_rest_of(rest: &[u8], text: &[u8]) -> bool {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    rest.split_inclusive(|byte| *byte == b'\n').all(|line| lines.any(|other| other == line))
}
