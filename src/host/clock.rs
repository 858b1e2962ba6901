//! The clocks. Everything else is given the time as a value.

use std::time::Instant;

use time::OffsetDateTime;

/// The wall clock: for what is written into certificates. It may jump.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads it")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// The clock for waiting: never goes back, may stand still while the machine sleeps.
pub fn monotonic() -> Instant {
    Instant::now()
}
