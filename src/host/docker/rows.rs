//! The rows of Docker's longer answers, field by field as far as they are used. What has an odd field is left out, or
//! reads as empty: one container must not hide the others.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Listed;
use crate::model::inspect::{Change, ChangeKind};

/// One of `GET /containers/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub(super) struct ListedRow {
    id: Option<String>,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<BTreeMap<String, Option<String>>>,
    state: Option<String>,
    mounts: Option<Vec<MountRow>>,
    host_config: Option<HostConfigRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MountRow {
    source: Option<String>,
    destination: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfigRow {
    network_mode: Option<String>,
}

impl ListedRow {
    /// `None` if it has no id or no name that could be one.
    pub(super) fn listed(self) -> Option<Listed> {
        let labels = self.labels.unwrap_or_default().into_iter();
        let mounts = self.mounts.unwrap_or_default().into_iter();
        Some(Listed {
            id: self.id?.parse().ok()?,
            // A linked container has further names with a second slash in them.
            name: self.names?.iter().find_map(|name| name.parse().ok())?,
            image: self.image.unwrap_or_default(),
            labels: labels.map(|(label, value)| (label, value.unwrap_or_default())).collect(),
            state: self.state.unwrap_or_default(),
            mounts: mounts
                .map(|mount| (mount.source.unwrap_or_default(), mount.destination.unwrap_or_default()))
                .collect(),
            network_mode: self.host_config.and_then(|config| config.network_mode).unwrap_or_default(),
        })
    }
}

/// One of `GET /containers/ID/changes`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ChangeRow {
    path: String,
    kind: u8,
}

impl ChangeRow {
    pub(super) fn change(self) -> Change {
        let kind = match self.kind {
            1 => ChangeKind::Added,
            2 => ChangeKind::Deleted,
            _ => ChangeKind::Modified,
        };
        Change { path: self.path, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_an_id_is_left_out_and_what_is_absent_is_empty() {
        let id = "a".repeat(64);
        let text = format!(
            r#"[{{"Id":"{id}","Names":["/other/db","/db"],"Labels":null,"New":[1]}},
                {{"Names":["/x"]}}, {{"Id":"{id}","Names":null}},
                {{"Id":"{id}","Names":["/b"],"Image":"i","State":"exited","Labels":{{"k":"v"}},
                  "HostConfig":{{"NetworkMode":"app"}},
                  "Mounts":[{{"Type":"bind","Source":"/s","Destination":"/d"}}]}}]"#
        );
        let rows: Vec<ListedRow> = serde_json::from_str(&text).unwrap();
        let listed: Vec<_> = rows.into_iter().filter_map(ListedRow::listed).collect();
        let [plain, full] = listed.as_slice() else { panic!("{listed:?}") };
        assert_eq!((plain.name.as_str(), plain.labels.len(), plain.mounts.len()), ("db", 0, 0));
        assert_eq!((plain.network_mode.as_str(), full.network_mode.as_str()), ("", "app"));
        assert_eq!(
            (full.image.as_str(), full.state.as_str(), full.labels["k"].as_str()),
            ("i", "exited", "v")
        );
        assert_eq!(full.mounts, [("/s".to_owned(), "/d".to_owned())]);
    }

    #[test]
    fn real_changes_are_read() {
        let rows: Vec<ChangeRow> =
            serde_json::from_str(include_str!("../../../tests/data/changes-plain.json")).unwrap();
        let changes: Vec<_> = rows.into_iter().map(ChangeRow::change).collect();
        assert!(changes.iter().any(|change| change.kind == ChangeKind::Added), "{changes:?}");
        assert!(changes.iter().any(|change| change.kind == ChangeKind::Modified), "{changes:?}");
    }
}
