//! A configuration of any content is read or refused, and a refusal says something.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vaultd::config::Config;

fuzz_target!(|text: &str| {
    if let Err(errors) = Config::parse(Path::new("vaultd.toml"), text) {
        assert!(!errors.errors().is_empty());
        assert!(!errors.to_string().is_empty());
    }
});
