//! The wall clock. Everything else is given the time as a value.

use std::time::Duration;

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

/// Gives others the time to end what they do, where nobody can say when they have. A simulation has no others.
#[expect(clippy::disallowed_methods, reason = "there is no condition to wait for")]
pub fn rest(pause: Duration) {
    #[cfg(feature = "simulation")]
    if simulated::now().is_some() {
        return;
    }
    std::thread::sleep(pause);
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
