//! Validation of `[keys]`: how long keys live.

use std::time::Duration;

use super::{raw, validate::Validator};
use crate::{hsm::Purpose, store::MAX_SEALS_PER_KEY, vault::KeyRules};

const DAY_S: u64 = 86_400;
const MAX_DAYS: u64 = 10 * 365;
/// So few suit tests alone: encryptions are reserved 65,536 at a time, and a restart spends what is left of them, which is
/// all of a limit that is no higher.
const MIN_ENCRYPTIONS: u64 = 1_000;

/// How long what is signed and sealed may live outside the store, in seconds.
pub(super) struct Lifetimes {
    pub(super) jwt_s: u64,
    pub(super) envelope_s: u64,
}

impl Validator {
    pub(super) fn keys(&mut self, raw: &raw::Keys, lifetimes: &Lifetimes) -> (KeyRules, Duration) {
        let days = &raw.cryptoperiod_days;
        let cryptoperiods_s = Purpose::ALL.map(|purpose| {
            let (given, default) = match purpose {
                Purpose::Record => (days.record, 365),
                Purpose::Fingerprint => (days.fingerprint, 1_095),
                Purpose::Holder => (days.holder, 1_095),
                Purpose::Envelope => (days.envelope, 365),
                Purpose::Jwt => (days.jwt, 365),
                Purpose::Audit => (days.audit, 1_095),
            };
            self.number(&format!("keys.cryptoperiod_days.{purpose}"), given, default, 1..=MAX_DAYS) * DAY_S
        });
        let warn_before_s =
            self.number("keys.warn_before_days", raw.warn_before_days, 30, 0..=MAX_DAYS) * DAY_S;
        let max_encryptions = self.number(
            "keys.max_encryptions",
            raw.max_encryptions,
            MAX_SEALS_PER_KEY,
            MIN_ENCRYPTIONS..=MAX_SEALS_PER_KEY,
        );
        let rate = self.number(
            "keys.rewrap_records_per_second",
            raw.rewrap_records_per_second,
            1_000,
            1..=1_000_000,
        );
        let rules = KeyRules {
            cryptoperiods_s,
            warn_before_s,
            max_encryptions,
            rotate_when_spent: raw.when_spent == raw::WhenSpent::Rotate,
            jwt_needed_s: lifetimes.jwt_s.max(lifetimes.envelope_s),
            envelope_needed_s: lifetimes.envelope_s,
        };
        (rules, Duration::from_secs(1).div_f64(f64::from(u32::try_from(rate).unwrap_or(u32::MAX))))
    }
}
