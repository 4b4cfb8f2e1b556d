//! The log: lines on standard error, for a terminal or the journal.

use std::io;

use tracing_subscriber::EnvFilter;

/// Starts logging at `level`. A second call changes nothing.
pub(super) fn start(level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        // A log that nobody takes must not end the requests it is about: the default is to panic.
        .log_internal_errors(false)
        .with_target(false);
    // The journal has its own clock (systemd.exec(5), `$JOURNAL_STREAM`).
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        let _ = subscriber.without_time().try_init();
    } else {
        let _ = subscriber.try_init();
    }
}
