//! The files that are shipped beside the program agree with it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use vaultd::config::{Config, schema};

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)).unwrap()
}

/// The annotated file with every default put in force, so that the defaults it states are seen to be accepted.
fn with_defaults(text: &str) -> String {
    let is_setting = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    text.lines()
        .map(|line| line.strip_prefix("# ").filter(|setting| is_setting(setting)).unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_annotated_configuration_is_valid_and_so_are_the_defaults_it_states() {
    let text = shipped("vaultd.toml").replace("$CREDENTIALS_DIRECTORY", "/run/credentials");
    let config = Config::parse(Path::new("vaultd.toml"), &text).unwrap();
    let stated = Config::parse(Path::new("vaultd.toml"), &with_defaults(&text)).unwrap();
    for (default, stated) in format!("{config:#?}").lines().zip(format!("{stated:#?}").lines()) {
        assert_eq!(default, stated);
    }
}

/// A whole configuration around each `[hsm]` table: an operator starts from one of them.
#[test]
fn every_modules_file_is_a_valid_table() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/hsm");
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let table = fs::read_to_string(&path).unwrap().replace("$CREDENTIALS_DIRECTORY", "/run/credentials");
        let text = format!(
            "[server]\nsocket = \"/run/a\"\nadmin_socket = \"/run/b\"\n{table}\n[store]\ndir = \"/var/a\"\n[audit]\ndir = \
             \"/var/b\"\n"
        );
        let parsed = Config::parse(&path, &text);
        assert!(parsed.is_ok(), "{}: {:?}", path.display(), parsed.err());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (head, _) = table.split_once("[hsm]").unwrap();
        let says = head.to_lowercase().contains("tested");
        assert!(says, "{name} does not say whether it was tested");
        names.push(name);
    }
    let in_docs =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hsm-modules.md")).unwrap();
    for name in names {
        assert!(in_docs.contains(&format!("config/hsm/{name}.toml")), "{name} is not in docs/hsm-modules.md");
    }
}

#[test]
fn every_key_of_the_schema_is_in_the_annotated_configuration() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let text = shipped("vaultd.toml");
    let tables =
        schema["$defs"].as_object().unwrap().values().filter_map(|table| table["properties"].as_object());
    for key in tables.flat_map(|properties| properties.keys()) {
        assert!(text.contains(key.as_str()), "{key} is not explained in config/vaultd.toml");
    }
}

#[test]
fn the_schema_is_that_of_the_code() {
    assert_eq!(shipped("vaultd.schema.json"), schema(), "run `make schema`");
}
