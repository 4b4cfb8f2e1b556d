//! `[guards]`: how many cards callers may take, as it is written and as it is validated.

use schemars::JsonSchema;
use serde::Deserialize;

use super::validate::Validator;
use crate::guards;

/// Each card that is counted takes some 40 bytes of memory, and 16 on disk.
const MOST_PANS: u64 = 10_000_000;
const MOST_REQUESTS: u64 = 10_000_000;

/// Limits on reveals, counted over sliding windows that outlast a restart.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Guards {
    /// For each subject: the `iss` and `sub` of JWTs together.
    pub(super) subject: SubjectLimits,
    /// For each tenant.
    pub(super) tenant: RevealLimits,
    /// For each user id of callers.
    pub(super) uid: RevealLimits,
}

/// What one tenant or user id may have.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RevealLimits {
    /// Requests a second that reveal cards. Default: any number.
    pub(super) requests_per_second: Option<u64>,
    /// Different cards in an hour. Default: any number.
    pub(super) pans_per_hour: Option<u64>,
    /// Different cards in a day. Default: any number.
    pub(super) pans_per_day: Option<u64>,
    /// Tokens in a batch. Default: as many as `limits.max_batch_items`.
    pub(super) batch_items: Option<u64>,
}

/// What one subject may have, and what locks it.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SubjectLimits {
    /// Requests a second that reveal cards. Default: any number.
    pub(super) requests_per_second: Option<u64>,
    /// Different cards in an hour. Default: any number.
    pub(super) pans_per_hour: Option<u64>,
    /// Different cards in a day. Default: any number.
    pub(super) pans_per_day: Option<u64>,
    /// Tokens in a batch. Default: as many as `limits.max_batch_items`.
    pub(super) batch_items: Option<u64>,
    /// Different cards asked for in an hour that lock the subject, those included that its own `pans_per_…` refuse.
    /// Default: never.
    pub(super) lock_at_pans_per_hour: Option<u64>,
    /// Different cards asked for in a day, counted likewise. Default: never.
    pub(super) lock_at_pans_per_day: Option<u64>,
}

impl Validator {
    /// `batch_items`: the most items of any batch.
    pub(super) fn guards(&mut self, raw: &Guards, batch_items: usize) -> guards::GuardRules {
        let without_locks = |limits: RevealLimits| SubjectLimits {
            requests_per_second: limits.requests_per_second,
            pans_per_hour: limits.pans_per_hour,
            pans_per_day: limits.pans_per_day,
            batch_items: limits.batch_items,
            ..SubjectLimits::default()
        };
        guards::GuardRules {
            subject: self.reveal_limits("subject", raw.subject, batch_items),
            tenant: self.reveal_limits("tenant", without_locks(raw.tenant), batch_items),
            uid: self.reveal_limits("uid", without_locks(raw.uid), batch_items),
        }
    }

    fn reveal_limits(&mut self, scope: &str, raw: SubjectLimits, batch_items: usize) -> guards::RevealLimits {
        let key = |name: &str| format!("guards.{scope}.{name}");
        let most_items = u64::try_from(batch_items).unwrap_or(u64::MAX);
        let requests = self.limit(&key("requests_per_second"), raw.requests_per_second, MOST_REQUESTS);
        let pans_per_hour = self.limit(&key("pans_per_hour"), raw.pans_per_hour, MOST_PANS);
        let pans_per_day = self.limit(&key("pans_per_day"), raw.pans_per_day, MOST_PANS);
        if let (Some(hour), Some(day)) = (pans_per_hour, pans_per_day)
            && day < hour
        {
            self.error(&key("pans_per_day"), "is less than pans_per_hour, which would never count");
        }
        guards::RevealLimits {
            requests_per_second: requests.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            pans_per_hour,
            pans_per_day,
            batch_items: self.limit(&key("batch_items"), raw.batch_items, most_items),
            lock_at_pans_per_hour: self.lock_at(
                &key("lock_at_pans_per_hour"),
                raw.lock_at_pans_per_hour,
                pans_per_hour,
            ),
            lock_at_pans_per_day: self.lock_at(
                &key("lock_at_pans_per_day"),
                raw.lock_at_pans_per_day,
                pans_per_day,
            ),
        }
    }

    fn limit(&mut self, key: &str, value: Option<u64>, most: u64) -> Option<usize> {
        value.map(|value| self.count(key, Some(value), value, 1..=most))
    }

    /// A line that is above the limit it belongs to.
    fn lock_at(&mut self, key: &str, value: Option<u64>, limit: Option<usize>) -> Option<usize> {
        let line = self.limit(key, value, 2 * MOST_PANS)?;
        match limit {
            None => self.error(key, "needs the limit that it is far over"),
            Some(limit) if line <= limit => self.error(key, format!("must be above the limit, {limit}")),
            Some(_) => {}
        }
        Some(line)
    }
}
