//! The wall clock. Everything else is given the time as a value.

use time::OffsetDateTime;

/// For what is written into certificates. It may jump.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads it")]
pub fn now() -> OffsetDateTime {
    #[cfg(feature = "simulation")]
    if let Some(now) = simulated::now() {
        return now;
    }
    OffsetDateTime::now_utc()
}

/// What the simulation sets for its thread.
#[cfg(feature = "simulation")]
pub mod simulated {
    use std::{cell::RefCell, rc::Rc};

    use time::OffsetDateTime;

    type Clock = Rc<dyn Fn() -> OffsetDateTime>;

    thread_local! {
        static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
    }

    pub fn set(clock: Option<Clock>) {
        CLOCK.set(clock);
    }

    pub(super) fn now() -> Option<OffsetDateTime> {
        CLOCK.with_borrow(Clone::clone).map(|clock| clock())
    }
}
