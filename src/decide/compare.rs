//! Whether Docker made of a successor what was asked: `inspect` against `inspect`, field by field.
//!
//! Everything is compared that is not listed here as belonging to one container alone; a field that a
//! newer engine adds is compared too.

use serde_json::Value;

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
const RULED: [&str; 3] = ["/Mounts", "/NetworkSettings", "/HostConfig/ContainerIDFile"];

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
    if let (Value::Object(left), right) = (expected, found)
        && (right.is_object() || right.is_null())
    {
        for (key, value) in left {
            walk(&format!("{field}/{}", pointer(key)), value, &found[key.as_str()], differences);
        }
        for (key, value) in
            right.as_object().into_iter().flatten().filter(|(key, _)| !left.contains_key(*key))
        {
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
    for missing in expected.iter().filter(|mount| !found.contains(mount)) {
        differences.push(Difference {
            field: "/Mounts".into(),
            expected: missing.clone(),
            found: "absent".into(),
        });
    }
    for extra in found.iter().filter(|mount| !expected.contains(mount)) {
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
        let (wanted, got) = (find(&wanted, &name), find(&got, &name));
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

/// One key as a part of a JSON pointer (RFC 6901, section 3).
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn shown(field: &str, value: &Value) -> String {
    // Environments and commands hold passwords.
    let secret = ["/Config/Env", "/Config/Cmd", "/Args"].iter().any(|kept| field.starts_with(kept));
    if secret && !blank(value) {
        return match value {
            Value::Array(items) => format!("(a list of {})", items.len()),
            _ => "(not shown)".to_owned(),
        };
    }
    value.to_string().chars().take(200).collect()
}
