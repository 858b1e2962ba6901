//! From labels and observations to a plan with its reason. Pure: values in, values out; `now` is one
//! of them.

pub mod compare;
pub mod successor;
