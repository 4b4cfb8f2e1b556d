//! The log: lines on standard error for a terminal or a file, entries with fields for the journal.

use std::{
    env,
    io::{self, Write},
    panic::{self, PanicHookInfo},
    sync::Mutex,
    thread,
};

use nix::sys::stat::fstat;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::lines::Lines;
use crate::config::{Log, LogFormat};

/// What the names of an entry's own fields start with, so that none is taken for one of the journal's.
const FIELD_PREFIX: &str = "VAULTD";

/// A form of the log, writing somewhere.
type Form = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging. A second call changes nothing.
pub(super) fn start(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let form = match log.format {
        LogFormat::Json => json(),
        LogFormat::Auto if stderr_is_the_journal() => journal().unwrap_or_else(|_| text()),
        LogFormat::Auto | LogFormat::Text => text(),
    };
    let _ = tracing_subscriber::registry().with(form).with(filter).try_init();
}

/// From now on a panic is told in a line that says where it was, in place of what the standard library prints. That has the
/// text that a string was cut at, which may be card data, and a backtrace, for which it holds a lock that it takes again
/// when there is no memory for one: such a process would neither serve nor end.
pub fn tell_panics() {
    panic::set_hook(Box::new(tell_panic));
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or_default();
    if tracing::event_enabled!(tracing::Level::ERROR) {
        tracing::error!(place, thread, "vaultd panicked: please report this");
    } else {
        let _ = writeln!(io::stderr(), "vaultd: panicked at {place} in thread {thread}: please report this");
    }
}

fn text() -> Form {
    let told = |lost| format!(" WARN lines of the log are lost: nobody read them lost={lost}");
    let lines = fmt::layer()
        .with_writer(Mutex::new(Lines::new(io::stderr(), told)))
        .with_ansi(false)
        // A log that nobody takes must not end the requests it is about: the default is to panic.
        .log_internal_errors(false)
        .with_target(false);
    // The journal has its own clock.
    if stderr_is_the_journal() { Box::new(lines.without_time()) } else { Box::new(lines) }
}

/// One object a line: `timestamp`, `level`, `message` and the event's own fields.
fn json() -> Form {
    let told = |lost| {
        let message = "lines of the log are lost: nobody read them";
        serde_json::json!({ "level": "WARN", "message": message, "lost": lost }).to_string()
    };
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(Mutex::new(Lines::new(io::stderr(), told)))
        .log_internal_errors(false)
        .with_target(false);
    Box::new(lines)
}

/// The journal's native protocol (systemd.io, "Native Journal Protocol"), which keeps each field.
fn journal() -> io::Result<Form> {
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    let entries = tracing_journald::layer()?
        .with_field_prefix(Some(FIELD_PREFIX.to_owned()))
        .with_priority_mappings(priorities);
    Ok(Box::new(entries))
}

/// Whether standard error is a stream of the journal: systemd says which file that is, and children of a service may
/// have inherited its word but not the file (systemd.exec(5), `$JOURNAL_STREAM`).
fn stderr_is_the_journal() -> bool {
    let said = env::var("JOURNAL_STREAM").unwrap_or_default();
    fstat(io::stderr()).is_ok_and(|file| said == format!("{}:{}", file.st_dev, file.st_ino))
}
