//! The config file.
#![no_main]

use dbssl::{config, san};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match config::parse(text) {
        Ok(settings) => {
            assert_eq!(
                config::roots(&settings.roots.data, &settings.roots.state).as_ref(),
                Ok(&settings.roots),
                "the command line is told the same of these folders"
            );
            assert!(settings.certificates.leaf_lifetime < settings.certificates.ca_lifetime);
            for name in &settings.host_names {
                assert_eq!(san::parse(&name.to_string()).as_ref(), Ok(name));
            }
            assert_eq!(config::parse(&format!("{text}\n# a comment\n")), Ok(settings));
        }
        Err(problems) => {
            assert!(!problems.is_empty() && problems.is_sorted());
            let lines = text.split('\n').count();
            for problem in problems {
                assert!((1..=lines).contains(&problem.line), "{problem} of {lines}");
                assert!(!problem.what.contains(char::is_control), "{problem:?}");
            }
        }
    }
});
