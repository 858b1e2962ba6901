//! Observe, decide, apply, prove; and the loop around it.
//!
//! Where to start reading: [`reconcile`] is one run over one container, [`run`] is the daemon.

mod act;
mod enforce;
pub mod observe;
pub mod prove;
pub mod reconcile;
mod redeploy;
pub mod run;
pub mod settle;
pub mod world;
