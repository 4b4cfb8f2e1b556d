//! `vaultd audit`: what can be done with a log without the vault.

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::CommandError;
use crate::audit::verify::{Options, Report, VerifyError, verify};

/// How often the progress is drawn, per second.
const DRAWS_PER_S: u8 = 10;

/// Verifies the log in `dir`; `say` is given the report, as JSON if `as_json`.
///
/// # Errors
/// [`CommandError`] if the log is damaged, or there is none.
pub fn audit_verify(
    dir: &Path,
    options: &Options,
    as_json: bool,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    // Nothing is drawn where standard error is not a terminal.
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S));
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {bytes} of {total_bytes}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let report = verify(dir, options, &mut |done, total| {
        // A log that is being written may have grown since.
        bar.set_length(total.max(done));
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    say(&if as_json { json(&report) } else { report.to_string() });
    if report.intact { Ok(()) } else { Err(CommandError::Failed(report.verdict())) }
}

fn json(report: &Report) -> String {
    // A struct with string keys: there is nothing to fail.
    serde_json::to_string_pretty(report).unwrap_or_default()
}

impl From<VerifyError> for CommandError {
    fn from(error: VerifyError) -> Self {
        Self::Usage(error.to_string())
    }
}
