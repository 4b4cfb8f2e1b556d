//! The documents agree with the repository: tests that they name exist, and links lead somewhere.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Documents whose claims name the tests that show them.
const CLAIMS: [&str; 2] = ["docs/threat-model.md", "docs/pci.md"];
/// What stands in the column of tests where there is none: it follows from how things are, or is there to be read.
const NO_TEST: [&str; 2] = ["argued", "document"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every document of the repository's own.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in ["", "docs", "docs/decisions", "config/observability"] {
        let files = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
        found.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    found
}

/// What stands between backquotes in `text`.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether `source` has a test called `name`, in Rust or Python.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(number, line)| {
        if line.starts_with(&format!("def {name}(")) {
            return name.starts_with("test_");
        }
        let is_here =
            [format!("fn {name}("), format!("async fn {name}(")].iter().any(|is| line.starts_with(is));
        let mut above = lines[..number].iter().rev().take_while(|line| line.starts_with("#["));
        is_here && above.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

/// Whether the document at `path` has a heading that is linked to as `wanted`.
fn has_heading(path: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| line.strip_prefix('#')).any(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).eq(wanted.chars())
    })
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_test_that_a_claim_names_exists() {
    let mut faults = Vec::new();
    for document in CLAIMS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let named = code_spans(&text).filter_map(|span| span.split_once("::"));
        let named: Vec<_> = named.filter(|(file, _)| *file != "FILE").collect();
        assert!(
            named.len() > 30,
            "{document} names {} tests: are they written as `FILE::TEST`?",
            named.len()
        );
        for (file, test) in named {
            match fs::read_to_string(root().join(file)) {
                Ok(source) if has_test(&source, test) => {}
                Ok(_) => faults.push(format!("{document} names {test}, which is no test of {file}")),
                Err(error) => faults.push(format!("{document} names {file}: {error}")),
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_claim_names_its_test_or_says_that_there_is_none() {
    let mut faults = Vec::new();
    for document in CLAIMS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let mut is_claim = false;
        for (number, line) in text.lines().enumerate() {
            let Some(cells) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
                is_claim &= line.starts_with("|-");
                continue;
            };
            let last = cells.rsplit(" | ").next().unwrap();
            let says = last.contains("::") || NO_TEST.iter().any(|word| last.starts_with(word));
            if last == "shown by" {
                is_claim = true;
            } else if is_claim && !says {
                faults.push(format!("{document}, line {}: by what is it shown?", number + 1));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_link_leads_somewhere() {
    let (mut faults, mut followed) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            if !path.exists() || !(heading.is_empty() || has_heading(&path, heading)) {
                faults.push(format!("{}: {target} leads nowhere", document.display()));
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "only {followed} links were found");
    assert_none(&faults);
}
