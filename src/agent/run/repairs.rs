//! Clearing up beside the runs: operations that nobody works on any more, and containers that they left.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::agent::{settle, sweep::sweep, world::World};

#[derive(Default)]
pub(super) struct Repairs(JoinSet<()>);

impl Repairs {
    /// Settles what is in the journal and in nobody's hand, then clears up.
    pub(super) fn recover(&mut self, world: &Arc<World>) {
        let world = Arc::clone(world);
        self.spawn(async move { settle::recover(&world).await });
    }

    pub(super) fn sweep(&mut self, world: &Arc<World>) {
        let world = Arc::clone(world);
        self.spawn(async move { sweep(&world).await });
    }

    fn spawn(&mut self, repair: impl Future<Output = ()> + Send + 'static) {
        // Nobody waits for them: those that ended are let go of when another begins.
        while self.0.try_join_next().is_some() {}
        self.0.spawn(repair);
    }

    pub(super) fn under_way(&mut self) -> usize {
        while self.0.try_join_next().is_some() {}
        self.0.len()
    }

    pub(super) async fn finish(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}
