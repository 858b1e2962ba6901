//! From labels and observations to a plan with its reason. Pure: values in, values out; `now` is one
//! of them.

pub mod compare;
pub mod gates;
pub mod labels;
pub mod names;
pub mod plan;
pub mod queue;
pub mod server_user;
pub mod successor;
