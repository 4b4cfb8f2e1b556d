//! From text to [`Raw`], without stopping at the first error.
//!
//! Serde stops at the first key it cannot take. So that key is noted, taken out, and the rest is read again, until
//! nothing is left to complain about.

use std::{fmt, ops::Range};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{ConfigError, raw::Raw};

/// What the TOML library says of a key that was there before. It keeps the first, and goes on.
const DUPLICATE: &str = "duplicate key";
/// The most errors that are reported: a file with more has another problem.
const MAX_ERRORS: usize = 50;

/// What is known of the file beside its values.
pub(super) struct Document {
    /// What was wrong so far.
    pub(super) errors: Vec<ConfigError>,
    /// Keys that were there but could not be read: they are not missing.
    pub(super) refused: Vec<String>,
    pub(super) lines: Lines,
}

/// The lines of keys, counted from 1.
#[derive(Clone, Default)]
pub(super) struct Lines(Vec<(String, usize)>);

/// Where keys stand is no part of what they say.
impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    /// The line of `key`, or of the nearest table around it.
    pub(super) fn of(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some((_, line)) = self.0.iter().find(|(known, _)| known == key) {
                return *line;
            }
            match key.rsplit_once('.') {
                Some((outer, _)) => key = outer,
                None => return 1,
            }
        }
    }
}

/// Reads `text` as far as possible; gives up on one that is no TOML but for keys that are there twice.
pub(super) fn parse(text: &str) -> Result<(Raw, Document), Vec<ConfigError>> {
    let (mut table, syntax) = DeTable::parse_recoverable(text);
    let mut document = Document { errors: Vec::new(), refused: Vec::new(), lines: Lines::default() };
    note_lines(table.get_ref(), "", text, &mut document.lines.0);
    for error in &syntax {
        let span = error.span();
        let line = span.as_ref().map(|span| line_of(text, span.start));
        let again = span.filter(|_| error.message() == DUPLICATE);
        let key = again.map(|span| name_at(table.get_ref(), text, &span)).unwrap_or_default();
        document.errors.push(ConfigError { line, key, message: error.message().to_owned() });
    }
    // Of anything else it is not certain what of the file is lost, and what seems to be missing may be there.
    if syntax.iter().any(|error| error.message() != DUPLICATE) {
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

/// The whole name of the key at `span` of `text`, which `table` has under that name already.
fn name_at(table: &DeTable<'_>, text: &str, span: &Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or_default();
    let start = before.rfind(['\n', '[', '{', ',']).map_or(0, |last| last + 1);
    let written = text.get(start..span.end).unwrap_or_default();
    let parts: Vec<_> = written.split('.').map(|part| part.trim().trim_matches(['"', '\''])).collect();
    let name = parts.join(".");
    if before.get(..start).is_some_and(|before| before.ends_with('[')) {
        // A header has the names of the tables around it.
        return name;
    }
    let mut around = (0, String::new());
    for (key, value) in table {
        find_around(value, key.get_ref().to_string(), text, span, &mut around);
    }
    join(&around.1, &name)
}

/// Puts where it begins and its name into `around`, if the table of `span` is in `value`: an inline one that it lies in, or
/// the one of the last header before it.
fn find_around(
    value: &Spanned<DeValue<'_>>,
    name: String,
    text: &str,
    span: &Range<usize>,
    around: &mut (usize, String),
) {
    match value.get_ref() {
        DeValue::Table(table) => {
            let own = value.span();
            let is_header = text.get(own.clone()).is_some_and(|own| own.starts_with('['));
            let is_before = is_header && own.end <= span.start;
            let is_around = own.start <= span.start && span.end <= own.end;
            for (key, value) in table {
                find_around(value, join(&name, key.get_ref()), text, span, around);
            }
            if (is_before || is_around) && own.start >= around.0 {
                *around = (own.start, name);
            }
        }
        DeValue::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                find_around(item, join(&name, &number.to_string()), text, span, around);
            }
        }
        _ => {}
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn errors(text: &str) -> Vec<(usize, String, String)> {
        let errors = Config::parse(Path::new("vaultd.toml"), text).err().unwrap();
        let told = |error: &super::ConfigError| {
            (error.line.unwrap(), error.key.clone(), error.message.lines().next().unwrap().to_owned())
        };
        errors.errors().iter().map(told).collect()
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_and_hides_nothing() {
        let found = errors(
            "[store]\n\
             dir = \"/a\"\n\
             dir = \"/b\"\n\
             zz = 1\n\
             [hsm]\n\
             sessions = 0\n",
        );
        let named: Vec<_> = found.iter().map(|(line, key, _)| (*line, key.as_str())).collect();
        for expected in [(3, "store.dir"), (4, "store.zz"), (6, "hsm.sessions"), (1, "server.socket")] {
            assert!(named.contains(&expected), "{expected:?} in {found:?}");
        }
        assert!(!named.contains(&(1, "store.dir")), "it is not missing: {found:?}");
    }

    #[test]
    fn whatever_is_there_twice_is_named_as_a_whole() {
        for (text, line, name) in [
            ("a = 1\na = 2\n", 2, "a"),
            ("[hsm]\n[store]\n[hsm]\n", 3, "hsm"),
            ("[log]\n[auth.a]\n[auth.a]\n", 3, "auth.a"),
            (
                "[[auth.issuers]]\nname = 1\n[[auth.issuers]]\nname = 1\n'name' = 2\n",
                5,
                "auth.issuers.1.name",
            ),
            ("[hsm]\nenvironment = { A = 1, A = 2 }\n", 2, "hsm.environment.A"),
            ("[hsm]\nenvironment.A = 1\nenvironment.A = 2\n", 3, "hsm.environment.A"),
            ("[a]\nx = { y = 1 }\nlist = [{ z = 1 }, { z = 1, z = 2 }]\n", 3, "a.list.1.z"),
            ("[a]\nx = { y = 1 }\nb = 1\n[c]\n[a.d]\ne = 1\ne = 1\n", 7, "a.d.e"),
        ] {
            let twice = (line, name.to_owned(), "duplicate key".to_owned());
            let found = errors(text);
            assert!(found.contains(&twice), "{text}: {found:?}");
        }
    }
}
