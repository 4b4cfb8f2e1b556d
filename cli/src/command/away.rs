//! A vault that is away while somebody stays with it: for a restart, or until systemd has started it for its socket.

use std::time::Duration;

use vault_client::{Code, Error};

use crate::complaint::Complaint;

/// The wait before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the vault was away when it was asked last.
#[derive(Default)]
pub(super) struct Away(bool);

impl Away {
    /// The answer; `None` after a pause if the vault is away. The first time, `say` says so.
    pub(super) async fn sit_out<T>(
        &mut self,
        answer: Result<T, Error>,
        say: impl FnOnce(&str),
    ) -> Result<Option<T>, Complaint> {
        match answer {
            Ok(answer) => {
                self.0 = false;
                Ok(Some(answer))
            }
            Err(error) if comes_back(&error) => {
                if !std::mem::replace(&mut self.0, true) {
                    say(&format!("vaultctl: waiting: {}", Complaint::from(error)));
                }
                tokio::time::sleep(PAUSE).await;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn comes_back(error: &Error) -> bool {
    match error {
        Error::Login(error) => comes_back(error),
        // A socket of systemd takes connections that nobody answers yet.
        Error::Connect { .. } | Error::Broken | Error::Timeout { .. } => true,
        _ => error.code().is_some_and(|code| code == Code::RateLimited || code.status() == 503),
    }
}

#[cfg(test)]
mod tests {
    use vault_client::Problem;

    use super::*;

    #[test]
    fn a_vault_that_is_away_is_told_from_one_that_refuses() {
        let api = |code| Error::Api(Problem::new(code, "", "r-1"));
        let timeout = || Error::Timeout { after: PAUSE, socket: "/v.sock".into() };
        for error in [Error::Broken, timeout(), api(Code::HsmUnavailable), api(Code::RateLimited)] {
            assert!(comes_back(&error), "{error:?}");
            assert!(comes_back(&Error::Login(Box::new(error))));
        }
        for error in [Error::Protocol(String::new()), api(Code::InsufficientScope), api(Code::CallerLocked)] {
            assert!(!comes_back(&error), "{error:?}");
            assert!(!comes_back(&Error::Login(Box::new(error))));
        }
    }
}
