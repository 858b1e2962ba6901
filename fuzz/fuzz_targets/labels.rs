//! The labels of one container, a line each: `label=value`.
#![no_main]

use std::collections::BTreeMap;

use dbssl::{
    decide::labels::{self, Reading},
    model::Desired,
    san,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let labels: BTreeMap<String, String> = text
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .collect();
    let reading = labels::read(&labels);
    match &reading {
        Reading::NotOurs | Reading::Disabled => {}
        Reading::Enabled(desired) => {
            for name in &desired.names {
                assert_eq!(san::parse(&name.to_string()).as_ref(), Ok(name));
            }
            assert_eq!(
                labels::read(&written(desired)),
                reading,
                "what was read, written down, reads the same"
            );
        }
        Reading::Wrong(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.is_sorted_by_key(|problem| &problem.label));
            for problem in problems {
                let line = problem.to_string();
                assert!(line.len() < 2048, "{} bytes: {line}", line.len());
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
    // What others say of the container changes nothing.
    let mut more = labels.clone();
    more.insert("com.example.dbssl".to_owned(), text.to_owned());
    assert_eq!(labels::read(&more), reading);
});

fn written(desired: &Desired) -> BTreeMap<String, String> {
    let Desired { mode, engine, names, redeploy, healthcheck, client_auth } = desired;
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut all = vec![
        (labels::ENABLE, "true".to_owned()),
        (labels::MODE, mode.to_string()),
        (labels::REDEPLOY, redeploy.to_string()),
        (labels::HEALTHCHECK, healthcheck.to_string()),
        (labels::CLIENT_AUTH, client_auth.to_string()),
    ];
    all.extend(engine.map(|engine| (labels::ENGINE, engine.to_string())));
    if !names.is_empty() {
        all.push((labels::NAMES, names.join(",")));
    }
    all.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()
}
