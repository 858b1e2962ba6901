//! Containers that an event named and that no list has shown yet: what they are has to be asked.
//!
//! Whoever starts containers in a loop makes events without end, and an engine under load answers slowly. So a few are
//! asked about at a time, and each once however many events name it.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use tokio::{task::JoinSet, time::Instant};

use super::Known;
use crate::{
    agent::{candidate, client, world::World},
    decide::queue::Queue,
    model::ContainerId,
};

pub(super) struct Questions {
    world: Arc<World>,
    queue: Queue<ContainerId, Instant>,
    tasks: JoinSet<Option<Known>>,
    asked: HashMap<tokio::task::Id, ContainerId>,
}

impl Questions {
    pub(super) fn new(world: Arc<World>) -> Self {
        let parallel: NonZeroUsize = world.settings.docker.parallel;
        Self { world, queue: Queue::new(parallel), tasks: JoinSet::new(), asked: HashMap::new() }
    }

    pub(super) fn ask(&mut self, id: ContainerId) {
        self.queue.poke(id, Instant::now());
        self.start_due();
    }

    /// It is known by now, or gone.
    pub(super) fn forget(&mut self, id: &ContainerId) {
        self.queue.forget(id);
    }

    /// The next answer; none if nothing is asked. A question that failed is asked again by the next list.
    pub(super) async fn answer(&mut self) -> Option<(ContainerId, Option<Known>)> {
        let answered = self.tasks.join_next_with_id().await?;
        let (task, known) = match answered {
            Ok((task, known)) => (task, known),
            Err(failure) => (failure.id(), None),
        };
        let id = self.asked.remove(&task)?;
        self.queue.finished(&id, None);
        self.start_due();
        Some((id, known))
    }

    fn start_due(&mut self) {
        for id in self.queue.take_due(Instant::now()) {
            let (world, about) = (Arc::clone(&self.world), id.clone());
            let task = self.tasks.spawn(async move {
                let found = world.docker.inspect(about.as_str()).await.ok().flatten();
                let found = found.filter(|found| world.concerns(found))?;
                Some(Known {
                    name: found.name().clone(),
                    ours: candidate::inspected(&world, &found),
                    client: client::inspected(&world, &found),
                    state: found.state_word().to_owned(),
                })
            });
            self.asked.insert(task.id(), id);
        }
    }
}
