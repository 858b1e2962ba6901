//! Pure: what labels, settings and observations mean for one container, and when to look again.

pub mod labels;
pub mod names;
pub mod queue;
