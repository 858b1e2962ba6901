//! Whether Docker made of a successor what was asked: `inspect` against `inspect`, field by field.
//!
//! Everything is compared that is not listed here as belonging to one container alone; a field that a
//! newer engine adds is compared too.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::{Map, Value, json};

use super::successor::endpoints;
use crate::model::inspect::Inspect;

/// Fields that are another container's own: identity, run-time state and paths made from its id.
const OWN: [&str; 17] = [
    "/Id",
    "/Created",
    "/Name",
    "/State",
    "/ResolvConfPath",
    "/HostnamePath",
    "/HostsPath",
    "/LogPath",
    "/GraphDriver",
    "/Storage",
    "/RestartCount",
    "/ExecIDs",
    "/SizeRw",
    "/SizeRootFs",
    // Chosen anew for each start; what was asked for is HostConfig.SecurityOpt, which is compared.
    "/MountLabel",
    "/ProcessLabel",
    "/AppArmorProfile",
];
/// Compared by rules of their own, below.
const RULED: [&str; 4] = ["/Mounts", "/NetworkSettings", "/HostConfig/ContainerIDFile", "/Config/Hostname"];

/// A field that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// JSON pointer (RFC 6901) into the answer of inspect.
    pub field: String,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { field, expected, found } = self;
        write!(f, "{field} is {found}, expected {expected}")
    }
}

/// All differences between the container as found and what `expected` says; empty when all is well.
/// Values that may be secret are not quoted.
pub fn differences(expected: &Value, found: &Inspect) -> Vec<Difference> {
    let mut differences = Vec::new();
    walk("", expected, found.raw(), &mut differences);
    compare_mounts(expected, found, &mut differences);
    compare_host_names(expected, found, &mut differences);
    match Inspect::new(expected.clone()) {
        Ok(expected) => compare_networks(&expected, found, &mut differences),
        Err(error) => differences.push(Difference {
            field: format!("/{}", error.field),
            expected: "a container".into(),
            found: error.why,
        }),
    }
    differences
}

fn walk(field: &str, expected: &Value, found: &Value, differences: &mut Vec<Difference>) {
    if OWN.contains(&field) || RULED.contains(&field) || same(expected, found) {
        return;
    }
    if let (Some(left), Some(right)) = (fields_of(expected), fields_of(found)) {
        for (key, value) in left.iter() {
            walk(&format!("{field}/{}", pointer(key)), value, &found[key.as_str()], differences);
        }
        for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
            walk(&format!("{field}/{}", pointer(key)), &Value::Null, value, differences);
        }
        return;
    }
    differences.push(Difference {
        field: field.to_owned(),
        expected: shown(field, expected),
        found: shown(field, found),
    });
}

/// The fields of an object; of nothing none.
fn fields_of(value: &Value) -> Option<Cow<'_, Map<String, Value>>> {
    match value {
        Value::Object(fields) => Some(Cow::Borrowed(fields)),
        Value::Null => Some(Cow::Owned(Map::new())),
        _ => None,
    }
}

/// Docker writes "none" in several ways: absent, null, an empty list, an empty map, an empty string.
fn same(left: &Value, right: &Value) -> bool {
    left == right || (blank(left) && blank(right))
}

fn blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// In the host's UTS namespace a container has no name of its own, and Docker shows its id there.
fn compare_host_names(expected: &Value, found: &Inspect, differences: &mut Vec<Difference>) {
    let field = "/Config/Hostname";
    let (wanted, got) = (&expected["Config"]["Hostname"], &found.config()["Hostname"]);
    let shared = expected["HostConfig"]["UTSMode"] == "host";
    if !shared && !same(wanted, got) {
        differences.push(Difference {
            field: field.to_owned(),
            expected: shown(field, wanted),
            found: shown(field, got),
        });
    }
}

/// What is mounted where, in any order. The mode's spelling is left out: it differs for a volume that
/// had no name before; what it says about writing is compared.
fn compare_mounts(expected: &Value, found: &Inspect, differences: &mut Vec<Difference>) {
    let describe = |mounts: &Value| {
        let mut described: Vec<_> = mounts
            .as_array()
            .into_iter()
            .flatten()
            .map(|mount| {
                let text = |field: &str| mount[field].as_str().unwrap_or_default().to_owned();
                let writable = if mount["RW"] == true { "rw" } else { "ro" };
                let what = if text("Name").is_empty() { text("Source") } else { text("Name") };
                format!("{}: {} {what} {writable} {}", text("Destination"), text("Type"), text("Propagation"))
            })
            .collect();
        described.sort();
        described
    };
    let (expected, found) = (describe(&expected["Mounts"]), describe(&found.raw()["Mounts"]));
    let times = |mounts: &[String], mount: &String| mounts.iter().filter(|other| *other == mount).count();
    for missing in expected.iter().filter(|mount| times(&found, mount) < times(&expected, mount)) {
        differences.push(Difference {
            field: "/Mounts".into(),
            expected: missing.clone(),
            found: "absent".into(),
        });
    }
    for extra in found.iter().filter(|mount| times(&expected, mount) < times(&found, mount)) {
        differences.push(Difference {
            field: "/Mounts".into(),
            expected: "absent".into(),
            found: extra.clone(),
        });
    }
}

/// The networks, and for each what was configured; addresses that Docker hands out are not compared.
fn compare_networks(expected: &Inspect, found: &Inspect, differences: &mut Vec<Difference>) {
    let (wanted, got) = (endpoints(expected), endpoints(found));
    let mut names: Vec<_> = wanted.iter().chain(&got).map(|(name, _)| name.clone()).collect();
    names.sort();
    names.dedup();
    let find = |list: &[(String, Value)], name: &str| {
        list.iter().find(|(network, _)| network == name).map_or(Value::Null, |(_, endpoint)| endpoint.clone())
    };
    for name in names {
        let (mut wanted, mut got) = (find(&wanted, &name), find(&got, &name));
        compare_aliases(&mut wanted, &mut got, found);
        walk(&format!("/NetworkSettings/Networks/{}", pointer(&name)), &wanted, &got, differences);
        if wanted.is_null() != got.is_null() {
            let say = |value: &Value| if value.is_null() { "absent" } else { "attached" }.to_owned();
            differences.push(Difference {
                field: format!("/NetworkSettings/Networks/{}", pointer(&name)),
                expected: say(&wanted),
                found: say(&got),
            });
        }
    }
}

/// Makes lists of names equal that mean the same: their order is of no account, and Docker adds the host name by
/// itself, in some versions when it connects and in others when it starts.
fn compare_aliases(wanted: &mut Value, got: &mut Value, found: &Inspect) {
    let of = |endpoint: &Value| {
        let aliases = endpoint["Aliases"].as_array().into_iter().flatten().filter_map(Value::as_str);
        aliases.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (asked, mut seen) = (of(wanted), of(got));
    if let Some(host_name) = found.config()["Hostname"].as_str().filter(|name| !asked.contains(*name)) {
        seen.remove(host_name);
    }
    for (endpoint, names) in [(wanted, asked), (got, seen)] {
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.insert("Aliases".to_owned(), json!(names));
        }
    }
}

/// One key as a part of a JSON pointer (RFC 6901, section 3).
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// What may hold passwords: commands, environments, labels (basic authentication), options of log and volume drivers.
const SECRET: [&str; 9] = [
    "/Args",
    "/Path",
    "/Config/Env",
    "/Config/Cmd",
    "/Config/Entrypoint",
    "/Config/Healthcheck",
    "/Config/Labels",
    "/HostConfig/LogConfig",
    "/HostConfig/Mounts",
];

fn shown(field: &str, value: &Value) -> String {
    let within = |path: &str, root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Of a whole object that holds one of them, too.
    let secret = SECRET.iter().any(|secret| within(field, secret) || within(secret, field));
    match value {
        value if !secret || blank(value) => value.to_string().chars().take(200).collect(),
        Value::Array(items) => format!("(a list of {})", items.len()),
        _ => "(not shown)".to_owned(),
    }
}

#[cfg(test)]
mod tests;
