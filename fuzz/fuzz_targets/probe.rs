//! What a server says before TLS, or to a client without it: the first byte chooses the exchange.
#![no_main]

use dbssl::{
    fuzzing::{EXCHANGES, exchange},
    host::probe::Plain,
};
use futures_util::FutureExt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, answers)) = bytes.split_first() else { return };
    let which = EXCHANGES[usize::from(*which) % EXCHANGES.len()];
    let mut sent = Vec::new();
    let mut stream = tokio::io::join(answers, &mut sent);
    let verdict = exchange(which, &mut stream).now_or_never().expect("a stream in memory never waits");
    // However much the server says: few and short answers.
    assert!(sent.len() < 512, "{} bytes sent", sent.len());
    match &verdict {
        Plain::Refused | Plain::Accepted => assert!(!answers.is_empty() || which.starts_with("hello")),
        Plain::NotReady(why) | Plain::Unreachable(why) | Plain::Unclear(why) => {
            assert!(why.len() < 1024, "{} bytes", why.len());
            assert!(!why.contains(char::is_control), "{why:?}");
        }
    }
    // One byte is all of PostgreSQL's answer to the wish for TLS.
    if which == "postgres: ask for TLS" {
        assert_eq!(verdict == Plain::Refused, answers.first() == Some(&b'S'));
        assert_eq!(verdict == Plain::Accepted, answers.first() == Some(&b'N'));
    }
});
