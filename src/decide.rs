//! From labels, the config's entries and observations to a plan with its reason. Pure: values in, values out; `now`
//! is one of them.

pub mod client;
pub mod compare;
pub mod compose;
pub mod external;
pub mod gates;
pub mod labels;
pub mod matching;
pub mod names;
pub mod place;
pub mod plan;
pub mod queue;
pub mod server_user;
pub mod successor;
