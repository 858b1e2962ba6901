//! Waiting for a condition.

use std::time::{Duration, Instant};

/// A look costs a process or two; more often only slows down what is waited for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Looks until there is something; panics after so many seconds, with what was seen last.
pub fn wait<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= end => panic!("waited {seconds} s for: {what}; last seen: {seen}"),
            Err(_) => pause(),
        }
    }
}

/// The one place where a test sleeps: between two looks at a condition.
fn pause() {
    #[allow(clippy::disallowed_methods)]
    std::thread::sleep(BETWEEN_LOOKS);
}
