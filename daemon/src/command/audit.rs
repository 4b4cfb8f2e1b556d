//! `vaultd audit`: verifying a log without its vault, and going on with one of which some is lost.

use std::path::Path;

use super::{
    CommandError,
    boot::{one_thread, open_store},
    progress::bytes_bar,
};
use crate::{
    audit::{
        Audit,
        verify::{Options, Report, VerifyError, verify},
    },
    config::Config,
    sandbox::harden,
    store::Store,
    vault::{last_signed, remember},
};

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
    let bar = bytes_bar(0);
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

/// Lets the vault of the configuration at `path` go on although its log was damaged: a new file begins, which says `reason`.
/// What is lost stays a finding of every verification.
///
/// # Errors
/// [`CommandError`], also if nothing is wrong with the log.
pub fn audit_resume(path: &Path, reason: &str, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    harden().map_err(|error| CommandError::new("cannot restrict the process", error))?;
    let store = open_store(&config)?;
    let resumed = resume(&config, &store, reason, say);
    store.close();
    resumed
}

fn resume(
    config: &Config,
    store: &Store,
    reason: &str,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let (vault_id, mark) = (store.vault_id(), last_signed(store)?);
    let wrong = match Audit::inspect(&config.audit.dir, &vault_id, mark) {
        Ok(()) => return Err(CommandError::Failed("the audit log is whole: start vaultd".to_owned())),
        Err(wrong) => wrong,
    };
    let resumed = Audit::resume(&config.audit, &vault_id, mark, reason);
    let resumed = resumed.map_err(|error| CommandError::new("audit.dir", error))?;
    one_thread()?.block_on(remember(store, resumed))?;
    say(&format!("accepted on the record: {wrong}"));
    say(&format!("the audit log goes on with entry {} in file {}", resumed.seq, resumed.file));
    Ok(())
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
