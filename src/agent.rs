//! Observe, decide, apply, prove; and the loop around it.
//!
//! Where to start reading: [`reconcile`] is one run over one container, [`run`] is the daemon,
//! and [`client`] looks after the applications' containers.

pub mod act;
pub mod candidate;
pub mod client;
mod clients;
mod credential;
mod enforce;
pub mod external;
pub mod observe;
pub mod prove;
pub mod reconcile;
mod redeploy;
mod rollover;
pub mod run;
pub mod settle;
mod sweep;
pub mod users;
pub mod world;
