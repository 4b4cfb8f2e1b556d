//! What is configured of the guards.

/// Limits on reveals, by whom they count for. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardRules {
    /// For each subject: the `iss` and `sub` of JWTs together.
    pub subject: RevealLimits,
    /// For each tenant.
    pub tenant: RevealLimits,
    /// For each user id of callers.
    pub uid: RevealLimits,
}

/// What one of them may have; any number where a limit is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevealLimits {
    /// Requests a second that reveal.
    pub requests_per_second: Option<u32>,
    /// Different cards in an hour.
    pub pans_per_hour: Option<usize>,
    /// Different cards in a day.
    pub pans_per_day: Option<usize>,
    /// Tokens in a batch.
    pub batch_items: Option<usize>,
    /// So many different cards asked for in an hour, refused ones included, lock the subject.
    pub lock_at_pans_per_hour: Option<usize>,
    /// The same for a day.
    pub lock_at_pans_per_day: Option<usize>,
}

impl GuardRules {
    /// Whether nothing is limited.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether requests a second are limited.
    pub(super) fn limit_requests(&self) -> bool {
        [self.subject, self.tenant, self.uid].iter().any(|limits| limits.requests_per_second.is_some())
    }
}
