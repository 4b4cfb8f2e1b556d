//! From text to [`Raw`], without stopping at the first error.
//!
//! Serde stops at the first key it cannot take. So that key is noted, taken out, and the rest is read again, until
//! nothing is left to complain about.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{ConfigError, raw::Raw};

/// The most errors that are reported: a file with more has another problem.
const MAX_ERRORS: usize = 50;

/// What is known of the file beside its values.
pub(super) struct Document {
    /// What was wrong so far.
    pub(super) errors: Vec<ConfigError>,
    /// Keys that were there but could not be read: they are not missing.
    pub(super) refused: Vec<String>,
    lines: Vec<(String, usize)>,
}

impl Document {
    /// The line of `key`, or of the nearest table around it.
    pub(super) fn line(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some((_, line)) = self.lines.iter().find(|(known, _)| known == key) {
                return *line;
            }
            match key.rsplit_once('.') {
                Some((outer, _)) => key = outer,
                None => return 1,
            }
        }
    }
}

/// Reads `text` as far as possible; gives up on one that is no TOML.
pub(super) fn parse(text: &str) -> Result<(Raw, Document), Vec<ConfigError>> {
    let (mut table, syntax) = DeTable::parse_recoverable(text);
    let mut document = Document { errors: Vec::new(), refused: Vec::new(), lines: Vec::new() };
    note_lines(table.get_ref(), "", text, &mut document.lines);
    for error in &syntax {
        let line = error.span().map(|span| line_of(text, span.start));
        document.errors.push(ConfigError { line, key: String::new(), message: error.message().to_owned() });
    }
    if !syntax.is_empty() {
        return Err(document.errors);
    }
    while document.errors.len() < MAX_ERRORS {
        let error = match Raw::deserialize(Deserializer::from(table.clone())) {
            Ok(raw) => return Ok((raw, document)),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let key = take_out(table.get_mut(), "", &span);
        document.errors.push(ConfigError {
            line: Some(line_of(text, span.start)),
            key: key.clone().unwrap_or_default(),
            message: error.message().to_owned(),
        });
        match key {
            Some(key) => document.refused.push(key),
            None => break,
        }
    }
    Err(document.errors)
}

/// Removes the innermost entry that `span` lies in, and says which it was.
fn take_out(table: &mut DeTable<'_>, prefix: &str, span: &Range<usize>) -> Option<String> {
    let mut victim = None;
    for (key, value) in table.iter_mut() {
        let name = join(prefix, key.get_ref());
        let within = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
        let inner = match value.get_mut() {
            DeValue::Table(table) => take_out(table, &name, span),
            DeValue::Array(items) => {
                items.iter_mut().enumerate().find_map(|(number, item)| match item.get_mut() {
                    DeValue::Table(table) => take_out(table, &join(&name, &number.to_string()), span),
                    _ => None,
                })
            }
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
        if within(key.span()) || within(value.span()) {
            victim = Some((key.clone(), name));
            break;
        }
    }
    let (key, name) = victim?;
    table.remove(&key);
    Some(name)
}

fn note_lines(table: &DeTable<'_>, prefix: &str, text: &str, lines: &mut Vec<(String, usize)>) {
    for (key, value) in table {
        note(value, join(prefix, key.get_ref()), line_of(text, key.span().start), text, lines);
    }
}

fn note(
    value: &Spanned<DeValue<'_>>,
    name: String,
    line: usize,
    text: &str,
    lines: &mut Vec<(String, usize)>,
) {
    match value.get_ref() {
        DeValue::Table(table) => note_lines(table, &name, text, lines),
        DeValue::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                let line = line_of(text, item.span().start);
                note(item, join(&name, &number.to_string()), line, text, lines);
            }
        }
        _ => {}
    }
    lines.push((name, line));
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
