//! How fast the token is with so many sessions, and how many suit it.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::CommandError;
use crate::hsm::{Hsm, HsmError, KeyName, Settings};

/// Numbers of sessions that are tried, while more are faster.
const SESSIONS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// How long each is measured.
const MEASURED: Duration = Duration::from_millis(300);
/// Requests on their way for each session, so that none waits for work.
const CALLERS_PER_SESSION: usize = 4;
/// More sessions must bring as much to be worth it: threads and sessions cost, too.
const WORTH: f64 = 1.1;
/// As many tries in a row without a gain end the search.
const MOST_VAIN: usize = 2;

/// What one number of sessions gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measurement {
    pub(super) sessions: usize,
    /// HMAC operations a second, through the daemon's own pool.
    pub(super) rate: f64,
}

/// Measures the token of `settings` by MACs under `key`. Ends early where more sessions bring nothing, or the token
/// opens no more.
///
/// # Errors
/// [`CommandError`] if not even one session works.
pub(super) fn measure(settings: &Settings, key: KeyName) -> Result<Vec<Measurement>, CommandError> {
    let mut measured = Vec::new();
    let (mut best, mut vain) = (0.0, 0);
    for sessions in SESSIONS {
        let rate = match measure_one(settings, key, sessions) {
            Ok(rate) => rate,
            Err(error) if measured.is_empty() => return Err(error),
            Err(_) => break,
        };
        measured.push(Measurement { sessions, rate });
        if rate < best * WORTH {
            vain += 1;
            if vain == MOST_VAIN {
                break;
            }
        } else {
            vain = 0;
        }
        best = rate.max(best);
    }
    Ok(measured)
}

/// The fewest sessions that nothing else beats by enough to be worth it.
pub(super) fn recommended(measured: &[Measurement]) -> Option<usize> {
    let best = measured.iter().map(|one| one.rate).fold(0.0, f64::max);
    measured.iter().find(|one| one.rate * WORTH >= best).map(|one| one.sessions)
}

fn measure_one(settings: &Settings, key: KeyName, sessions: usize) -> Result<f64, CommandError> {
    let hsm = Hsm::open(&Settings { sessions, ..settings.clone() })?;
    let rate = super::boot::one_thread().and_then(|runtime| Ok(runtime.block_on(rate(&hsm, key, sessions))?));
    hsm.close();
    rate
}

async fn rate(hsm: &Hsm, key: KeyName, sessions: usize) -> Result<f64, HsmError> {
    let started = Instant::now();
    let callers = (0..sessions * CALLERS_PER_SESSION).map(|_| async move {
        let mut done = 0_u32;
        while started.elapsed() < MEASURED {
            hsm.mac(key, vec![Zeroizing::new(b"vaultd check".to_vec())]).await?;
            done += 1;
        }
        Ok::<_, HsmError>(done)
    });
    let done = futures_util::future::try_join_all(callers).await?;
    Ok(done.into_iter().map(f64::from).sum::<f64>() / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rates: &[(usize, f64)]) -> Vec<Measurement> {
        rates.iter().map(|(sessions, rate)| Measurement { sessions: *sessions, rate: *rate }).collect()
    }

    #[test]
    fn sessions_that_bring_little_are_not_recommended() {
        assert_eq!(recommended(&of(&[(1, 80e3), (2, 70e3), (4, 77e3)])), Some(1), "a software token");
        assert_eq!(recommended(&of(&[(1, 900.0), (2, 1800.0), (4, 3600.0), (8, 3700.0)])), Some(4));
        assert_eq!(recommended(&[]), None);
    }
}
