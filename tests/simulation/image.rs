//! Images: what their servers are like, and which of them a name means.

use std::collections::BTreeSet;

use crate::server::Quirk;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: &'static str,
    pub quirk: Quirk,
}

/// For each name the image that it means at first, and the one once it was pulled anew.
const NAMES: [(&str, Quirk, [&str; 2]); 6] = [
    (
        "redis:7.0",
        Quirk::None,
        [
            "sha256:1000000000000000000000000000000000000000000000000000000000000001",
            "sha256:1000000000000000000000000000000000000000000000000000000000000002",
        ],
    ),
    (
        "redis:7.1",
        Quirk::NoTls,
        [
            "sha256:2000000000000000000000000000000000000000000000000000000000000001",
            "sha256:2000000000000000000000000000000000000000000000000000000000000002",
        ],
    ),
    (
        "redis:7.2",
        Quirk::Deaf,
        [
            "sha256:3000000000000000000000000000000000000000000000000000000000000001",
            "sha256:3000000000000000000000000000000000000000000000000000000000000002",
        ],
    ),
    (
        "redis:7.3",
        Quirk::Refuses,
        [
            "sha256:4000000000000000000000000000000000000000000000000000000000000001",
            "sha256:4000000000000000000000000000000000000000000000000000000000000002",
        ],
    ),
    (
        "redis:7.4",
        Quirk::Slow,
        [
            "sha256:5000000000000000000000000000000000000000000000000000000000000001",
            "sha256:5000000000000000000000000000000000000000000000000000000000000002",
        ],
    ),
    (
        "redis:7.5",
        Quirk::OwnTls,
        [
            "sha256:6000000000000000000000000000000000000000000000000000000000000001",
            "sha256:6000000000000000000000000000000000000000000000000000000000000002",
        ],
    ),
];

pub fn name_of(quirk: Quirk) -> &'static str {
    NAMES.iter().find(|(_, its, _)| *its == quirk).unwrap().0
}

/// The images of a host.
#[derive(Debug, Default)]
pub struct Images {
    pulled: BTreeSet<&'static str>,
    /// All were removed.
    pub gone: bool,
}

impl Images {
    /// By name or by id.
    pub fn find(&self, name_or_id: &str) -> Option<Image> {
        if self.gone {
            return None;
        }
        NAMES.into_iter().find_map(|(name, quirk, ids)| {
            let named = || ids[usize::from(self.pulled.contains(name))];
            let id =
                if name == name_or_id { Some(named()) } else { ids.into_iter().find(|id| *id == name_or_id) };
            Some(Image { id: id?, quirk })
        })
    }

    /// The name means another image from here on, if it does not yet. The former one stays.
    pub fn pull(&mut self, name: &'static str) {
        self.pulled.insert(name);
    }
}
