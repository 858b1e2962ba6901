//! Which containers are worth a look: those that may be ours, and those that were.
//!
//! An engine may run hundreds of containers that are none of our business. What is said here costs no call: whether
//! a candidate is ours is for [`super::observe`] to find out.

use super::world::World;
use crate::{
    decide::{
        labels::PREFIX,
        matching::{self, Seen},
    },
    host::docker::Listed,
    model::{ContainerName, inspect::Inspect},
};

/// As the list shows it.
pub fn listed(world: &World, listed: &Listed) -> bool {
    let seen = Seen::listed(listed.name.as_str(), &listed.image, &listed.labels);
    let mounts = listed.mounts.iter().map(|(source, _)| source.as_str());
    is_candidate(world, &listed.name, seen, mounts)
}

/// As it was looked at.
pub fn inspected(world: &World, inspect: &Inspect) -> bool {
    let (labels, mounts) = (inspect.labels(), inspect.mounts());
    let image = Some(matching::image(inspect));
    let seen = Seen { name: inspect.name().as_str(), image, labels: &labels };
    is_candidate(world, inspect.name(), seen, mounts.iter().map(|mount| mount.source.as_str()))
}

fn is_candidate<'a>(
    world: &World,
    name: &ContainerName,
    seen: Seen<'_>,
    mut mounts: impl Iterator<Item = &'a str>,
) -> bool {
    seen.labels.keys().any(|label| label.starts_with(PREFIX))
        || matching::may_match(&world.settings.matches, seen)
        // It was ours, or one of its name was, and it has to be released.
        || mounts.any(|source| world.roots.is_certificates(source.as_ref()))
        || world.roots.certificates(name).exists()
}
