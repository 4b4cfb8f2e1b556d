//! When a request is sent again, and how long to wait before.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use vault_api::Code;

use crate::Error;

/// How often and how patiently a request is sent again. Which failures allow it is not a setting: see
/// [`VaultClient`](crate::VaultClient).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is sent at most, the first time included; 0 counts as 1.
    pub max_attempts: u32,
    /// The wait before the second attempt; doubled before each further one.
    pub base: Duration,
    /// The longest wait, unless the vault asks for a longer one with `Retry-After`.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    /// Three attempts, the first wait 100 ms, none above 2 s.
    fn default() -> Self {
        Self { max_attempts: 3, base: Duration::from_millis(100), cap: Duration::from_secs(2) }
    }
}

impl RetryPolicy {
    /// How long to wait after attempt number `attempt` (from 1) failed.
    ///
    /// Half of the backoff is fixed and half is random, so that callers that failed together do not come back
    /// together. The vault's own wish comes on top: never earlier than that.
    pub(crate) fn wait(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let backoff = self.base.saturating_mul(doubled).min(self.cap);
        let half = backoff / 2;
        retry_after.unwrap_or_default().saturating_add(half).saturating_add(half.mul_f64(random_fraction()))
    }
}

/// What it would mean if the vault carried a request out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Twice is the same as once.
    Idempotent,
    /// The second time finds nothing left to do and says `unknown_token`.
    Removes,
    /// Twice may make two things.
    Creates,
    /// The first time uses up what the second would need.
    Spends,
    /// Whatever it does, it shows an approval, which is good for the first time that the vault gets it.
    Approved,
}

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Hand the error to the caller.
    GiveUp,
    /// Wait and send the request again.
    SendAgain,
    /// An earlier attempt had already done it.
    AlreadyDone,
}

/// The one place that decides whether a request is sent again. `may_be_done`: an earlier attempt of the same call left that
/// open.
pub(crate) fn verdict(effect: Effect, error: &Error, may_be_done: bool) -> Verdict {
    let error = if let Error::Login(error) = error { error } else { error };
    let twice_is_harmless = matches!(effect, Effect::Idempotent | Effect::Removes);
    let again = match error {
        // The vault has not got the request.
        Error::Connect { .. } => true,
        // It has, and with it what is good for once.
        _ if effect == Effect::Approved => false,
        // The vault may have done it.
        Error::Broken => twice_is_harmless,
        Error::Api(problem) => match problem.code {
            // The vault turned the request away before it did anything, or got no further than its HSM: it makes and
            // notes nothing before that.
            Code::RateLimited | Code::Overloaded | Code::HsmUnavailable => true,
            // The vault may have stopped half-way.
            Code::StoreUnavailable | Code::AuditUnavailable => twice_is_harmless,
            Code::UnknownToken if effect == Effect::Removes && may_be_done => return Verdict::AlreadyDone,
            _ => false,
        },
        // A timeout is the end of the caller's patience; the rest would fail again.
        _ => false,
    };
    if again { Verdict::SendAgain } else { Verdict::GiveUp }
}

/// Whether the vault may have done what it was asked for, although it ended in `error`.
pub(crate) fn leaves_open(error: &Error) -> bool {
    matches!(error, Error::Broken)
        || matches!(error.code(), Some(Code::StoreUnavailable | Code::AuditUnavailable))
}

/// A number from 0 to 1 for jitter, where quality does not matter: std's hasher keys are random.
fn random_fraction() -> f64 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0_u8).to_le_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::io;

    use vault_api::Problem;

    use super::*;

    fn connect() -> Error {
        Error::Connect { socket: "/v.sock".into(), source: io::Error::from(io::ErrorKind::NotFound) }
    }

    fn api(code: Code) -> Error {
        Error::Api(Problem::new(code, "", ""))
    }

    #[test]
    fn the_table_of_what_is_sent_again() {
        use Effect::{Approved, Creates, Idempotent, Removes, Spends};
        use Verdict::{GiveUp, SendAgain};

        let table = [
            (connect(), [SendAgain; 5]),
            (Error::Broken, [SendAgain, SendAgain, GiveUp, GiveUp, GiveUp]),
            (api(Code::RateLimited), [SendAgain, SendAgain, SendAgain, SendAgain, GiveUp]),
            (api(Code::Overloaded), [SendAgain, SendAgain, SendAgain, SendAgain, GiveUp]),
            (api(Code::HsmUnavailable), [SendAgain, SendAgain, SendAgain, SendAgain, GiveUp]),
            (api(Code::StoreUnavailable), [SendAgain, SendAgain, GiveUp, GiveUp, GiveUp]),
            (api(Code::AuditUnavailable), [SendAgain, SendAgain, GiveUp, GiveUp, GiveUp]),
            (api(Code::InvalidPan), [GiveUp; 5]),
            (api(Code::ExpiredJwt), [GiveUp; 5]),
            (api(Code::UnknownToken), [GiveUp; 5]),
            (api(Code::RequestTimeout), [GiveUp; 5]),
            (Error::Timeout { after: Duration::ZERO, socket: "/v.sock".into() }, [GiveUp; 5]),
            (Error::Protocol(String::new()), [GiveUp; 5]),
            (Error::Token(crate::TokenError::Missing), [GiveUp; 5]),
        ];
        for (error, expected) in table {
            for (effect, expected) in
                [Idempotent, Removes, Creates, Spends, Approved].into_iter().zip(expected)
            {
                assert_eq!(verdict(effect, &error, false), expected, "{effect:?} after {error:?}");
            }
        }
    }

    #[test]
    fn a_removal_whose_answer_was_lost_is_done_when_the_token_is_gone() {
        let gone = api(Code::UnknownToken);
        assert_eq!(verdict(Effect::Removes, &gone, true), Verdict::AlreadyDone);
        assert_eq!(verdict(Effect::Idempotent, &gone, true), Verdict::GiveUp);
    }

    #[test]
    fn the_wait_doubles_up_to_the_cap() {
        let policy = RetryPolicy {
            max_attempts: 9,
            base: Duration::from_millis(100),
            cap: Duration::from_millis(350),
        };
        for (attempt, backoff) in [(1, 100), (2, 200), (3, 350), (4, 350), (u32::MAX, 350)] {
            let backoff = Duration::from_millis(backoff);
            let wait = policy.wait(attempt, None);
            assert!(backoff / 2 <= wait && wait <= backoff, "attempt {attempt}: {wait:?}");
        }
    }

    #[test]
    fn the_wait_is_never_shorter_than_the_vault_asks_for() {
        let wait = RetryPolicy::default().wait(1, Some(Duration::from_secs(7)));
        assert!((Duration::from_secs(7)..=Duration::from_millis(7_100)).contains(&wait), "{wait:?}");
    }
}
