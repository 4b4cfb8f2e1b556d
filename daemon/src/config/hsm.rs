//! Validation of `[hsm]`: how the token is reached.

use std::path::{Path, PathBuf};

use super::{Hsm, raw, validate::Validator};
use crate::hsm::{Library, TokenSelector};

impl Validator {
    pub(super) fn hsm(&mut self, raw: raw::Hsm) -> Option<Hsm> {
        let module = self.required("hsm.module", raw.module);
        let pin_file = raw.pin_file.and_then(|path| self.credential(path));
        let token = match (raw.token_label, raw.token_serial) {
            (Some(label), None) => Some(TokenSelector::Label(label)),
            (None, Some(serial)) => Some(TokenSelector::Serial(serial)),
            (None, None) => {
                self.error("hsm.token_label", "this or hsm.token_serial is required");
                None
            }
            (Some(_), Some(_)) => {
                self.error("hsm.token_serial", "leave out this or hsm.token_label: one names the token");
                None
            }
        };
        let key_prefix = raw.key_prefix.unwrap_or_else(|| "vaultd".to_owned());
        if key_prefix.is_empty() || key_prefix.len() > 64 {
            self.error("hsm.key_prefix", "must have 1 to 64 bytes");
        }
        for (name, value) in &raw.environment {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.error("hsm.environment", "a variable's name must not be empty or hold `=`");
            }
            if value.contains('\0') {
                self.error(&format!("hsm.environment.{name}"), "must not hold a zero byte");
            }
        }
        if raw.init_parameters.as_ref().is_some_and(|text| text.contains('\0')) {
            self.error("hsm.init_parameters", "must not hold a zero byte");
        }
        let sessions = self.count("hsm.sessions", raw.sessions, 1, 1..=1_024);
        let queue = self.count("hsm.queue", raw.queue, 4_096, 1..=1_000_000);
        let call_timeout = self.duration("hsm.call_timeout_seconds", raw.call_timeout_seconds, 5);
        let max_written_off =
            self.count("hsm.max_written_off_threads", raw.max_written_off_threads, 8, 0..=1_024);
        Some(Hsm {
            library: Library { path: module?, parameters: raw.init_parameters },
            token: token?,
            pin_file,
            key_prefix,
            sessions,
            queue,
            call_timeout,
            max_written_off,
            environment: raw.environment,
        })
    }

    /// Resolves `$CREDENTIALS_DIRECTORY/NAME` (systemd.exec(5), `LoadCredential=`).
    fn credential(&mut self, path: PathBuf) -> Option<PathBuf> {
        let Ok(name) = path.strip_prefix("$CREDENTIALS_DIRECTORY") else { return Some(path) };
        if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") {
            return Some(Path::new(&dir).join(name));
        }
        self.error("hsm.pin_file", "names a systemd credential, but systemd passed none to this process");
        None
    }
}
