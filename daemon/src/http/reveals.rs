//! Where cards are revealed: what the guards say, as answers and `RateLimit` fields.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, header},
};
use vault_api::Code;

use super::{
    app::App,
    problem::{Failure, RATELIMIT, RATELIMIT_POLICY},
    trail::Call,
};
use crate::{
    audit::Event,
    auth::Caller,
    guards::{self, Admitted, Card, Quota, Refused},
    vault::VaultError,
};

impl App {
    /// Refuses whoever is locked.
    pub(super) fn refuse_locked(&self, issuer: &str, subject: &str) -> Result<(), Failure> {
        if self.guards().is_locked(issuer, subject) { Err(locked()) } else { Ok(()) }
    }

    /// Counts a request that reveals `cards` to `caller`, before any of them is opened.
    pub(super) async fn admit(&self, call: &Call, cards: &[Card]) -> Result<Admitted, Failure> {
        let on_lock = || self.note_lock(call, "it asked for far more cards than it may see");
        let admitted = self.guards().admit(&known(call), cards, on_lock).await;
        admitted.map_err(|refused| self.refusal(refused))
    }

    /// Writes into the audit log that `call` has locked its caller.
    pub(super) fn note_lock(&self, call: &Call, why: &str) {
        call.trail().alarm();
        let detail = format!("{} {}: {why}", call.issuer(), call.subject());
        self.audit().event(&Event {
            event: "subject.locked",
            detail: Some(&detail),
            alarm: true,
            ..Event::default()
        });
    }

    /// Says in `response` how much is left.
    pub(super) fn with_quota(&self, mut response: Response<Body>, quota: Option<Quota>) -> Response<Body> {
        if let Some(quota) = quota {
            response.headers_mut().extend(self.fields(&quota));
        }
        response
    }

    fn refusal(&self, refused: Refused) -> Failure {
        match refused {
            Refused::Limit(quota) => self.limited(&quota, over(&quota)),
            Refused::Batch(quota) => {
                let detail = format!("a batch may have {} tokens at most here: split it", quota.left);
                self.limited(&quota, detail)
            }
            Refused::Locked => locked(),
            Refused::TooManyCallers => {
                Failure::new(Code::Overloaded, "there are too many callers to count for: try again later")
            }
            Refused::Store(error) => VaultError::Store(error).into(),
        }
    }

    fn limited(&self, quota: &Quota, detail: String) -> Failure {
        let failure = Failure::new(Code::RateLimited, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(quota.more_in_s));
        self.fields(quota)
            .into_iter()
            .fold(failure, |failure, (name, value)| failure.with_header(name, value))
    }

    fn fields(&self, quota: &Quota) -> Vec<(HeaderName, HeaderValue)> {
        let Quota { policy, left, more_in_s } = quota;
        let left = HeaderValue::try_from(format!("\"{policy}\";r={left};t={more_in_s}"));
        let left = left.ok().map(|left| (RATELIMIT, left));
        let policy = self.reveal_policy().map(|policy| (RATELIMIT_POLICY, policy));
        policy.into_iter().chain(left).collect()
    }
}

/// The caller as the guards know it.
pub(super) fn known(caller: &Caller) -> guards::Caller<'_> {
    guards::Caller {
        issuer: caller.issuer(),
        subject: caller.subject(),
        tenant: caller.tenant(),
        uid: caller.peer.uid,
    }
}

fn locked() -> Failure {
    Failure::new(Code::CallerLocked, "this caller is locked: an operator has to look into it and unlock it")
}

/// The failure of a card that the limit of `quota` has refused, the others of its batch not.
pub(super) fn one_over(quota: Option<Quota>) -> Failure {
    let detail = quota.map_or_else(|| "over a limit on cards".to_owned(), |quota| over(&quota));
    Failure::new(Code::RateLimited, detail)
}

fn over(quota: &Quota) -> String {
    let Quota { policy, more_in_s, .. } = quota;
    format!("the limit `{policy}` on revealing cards is reached; there is more in {more_in_s} s")
}
