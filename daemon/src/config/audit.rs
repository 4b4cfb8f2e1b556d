//! Validation of `[audit]`: how the audit log is kept.

use std::time::Duration;

use super::{raw, validate::Validator};
use crate::audit::{Rotation, Settings};

const MIB: u64 = 1_048_576;
const HOUR_S: u64 = 3_600;
const MAX_HOURS: u64 = 10 * 365 * 24;
const MAX_ENTRIES: u64 = 1_000_000_000;

impl Validator {
    pub(super) fn audit(&mut self, raw: raw::Audit) -> Option<Settings> {
        let dir = self.required("audit.dir", raw.dir);
        let queue = self.count("audit.queue", raw.queue, 8_192, 1..=1_000_000);
        let checkpoint_entries =
            self.number("audit.checkpoint_entries", raw.checkpoint_entries, 10_000, 1..=MAX_ENTRIES);
        let checkpoint_interval = self.duration("audit.checkpoint_seconds", raw.checkpoint_seconds, 10);
        let mib = self.number("audit.rotate_mib", raw.rotate_mib, 256, 1..=1_048_576);
        let hours = self.number("audit.rotate_hours", raw.rotate_hours, 24, 1..=MAX_HOURS);
        let lines = self.number("audit.rotate_entries", raw.rotate_entries, MAX_ENTRIES, 10..=MAX_ENTRIES);
        let rotation = Rotation { bytes: mib * MIB, lines, age: Duration::from_secs(hours * HOUR_S) };
        Some(Settings { dir: dir?, queue, checkpoint_entries, checkpoint_interval, rotation })
    }
}
