//! What Docker says of a container: a real answer in which any values are others, or any JSON at all.
#![no_main]

use dbssl::{
    decide::{client, gates, labels, matching, names::certificate_names},
    engine::detect::detect,
    model::{
        Sans,
        inspect::{Health, Image, Inspect, State},
    },
};
use libfuzzer_sys::{
    Corpus,
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use serde_json::Value;

const REAL: [&str; 4] = [
    include_str!("../../tests/data/inspect/everything.json"),
    include_str!("../../tests/data/inspect/shop-db-1.json"),
    include_str!("../../tests/data/inspect/host-network.json"),
    include_str!("../../tests/data/inspect/borrower.json"),
];

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let raw = match bytes.split_first() {
        Some((b'{', _)) => serde_json::from_slice(bytes).ok(),
        Some(_) => changed(&mut Unstructured::new(bytes)).ok(),
        None => None,
    };
    let Some(raw) = raw else { return Corpus::Reject };
    let _ = Image::new(&raw);
    match Inspect::new(raw.clone()) {
        Ok(inspect) => {
            assert_eq!(inspect.raw(), &raw);
            look(&inspect);
        }
        Err(why) => {
            let line = why.to_string();
            assert!(line.len() < 2048 && !line.contains(char::is_control), "{line:?}");
        }
    }
    Corpus::Keep
});

/// One of the real answers with up to eight values replaced.
fn changed(choices: &mut Unstructured<'_>) -> Result<Value> {
    let real = REAL[usize::from(choices.arbitrary::<u8>()?) % REAL.len()];
    let mut raw: Value = serde_json::from_str(real).expect("the data of the tests is JSON");
    for _ in 0..choices.int_in_range(1..=8)? {
        let mut paths = Vec::new();
        list(&raw, String::new(), &mut paths);
        let path = choices.choose(&paths)?;
        let value = match choices.int_in_range(0..=7)? {
            0 => Value::Null,
            1 => choices.arbitrary::<i64>()?.into(),
            2 => choices.arbitrary::<bool>()?.into(),
            3 => Value::Array(Vec::new()),
            4 => serde_json::json!({ "": null }),
            5 => raw.pointer(choices.choose(&paths)?).cloned().unwrap_or_default(),
            6 => serde_json::json!([choices.arbitrary::<&str>()?, 0, null]),
            _ => choices.arbitrary::<&str>()?.into(),
        };
        if let Some(place) = raw.pointer_mut(path) {
            *place = value;
        }
    }
    Ok(raw)
}

/// The JSON pointers of all values but the whole.
fn list(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                list(value, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), paths);
            }
        }
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                list(value, format!("{path}/{at}"), paths);
            }
        }
        _ => {}
    }
    if !path.is_empty() {
        paths.push(path);
    }
}

/// All views of it, and what is concluded from them without asking anybody.
fn look(inspect: &Inspect) {
    assert_eq!(inspect.name().as_str().parse().as_ref(), Ok(inspect.name()));
    assert_eq!(inspect.id().as_str().parse().as_ref(), Ok(inspect.id()));
    assert_eq!(inspect.running(), inspect.raw()["State"]["Running"] == true);
    assert!(inspect.state() == State::Other || !inspect.state_word().is_empty());
    assert!(inspect.health() == Health::None || inspect.raw()["State"]["Health"].is_object());
    for (label, value) in inspect.labels() {
        assert_eq!(inspect.label(&label).unwrap_or_default(), value);
    }
    assert!(
        inspect
            .addresses(5432)
            .iter()
            .all(|address| !address.ip().is_unspecified() || address.port() == 5432)
    );
    assert!(inspect.words().len() >= inspect.command().len());
    let _ = (inspect.image_id(), inspect.user(), inspect.healthcheck(), inspect.started_at(), inspect.pid());
    let _ = (inspect.exit_code(), inspect.exec_ids(), inspect.mounts(), inspect.default_hostname());

    let names = certificate_names(inspect, &Sans::new(), &Sans::new());
    assert!(names.sans.len() >= 3, "localhost by its three names");
    for left_out in &names.left_out {
        let line = left_out.to_string();
        assert!(line.len() < 2048 && !line.contains(char::is_control), "{line:?}");
    }
    let reading = matching::read(&[], inspect);
    assert_eq!(reading, labels::read(&inspect.labels()));
    if let Some(client) = client::asked(&reading, &inspect.labels()) {
        let _ = client::way(inspect, &client.path, |path| path.ends_with("coolify-ca.crt"));
    }
    let _ = detect(matching::image(inspect), &inspect.words(), &inspect.environment(), &[]);
    let _ = gates::depends_on(inspect, inspect);
}
