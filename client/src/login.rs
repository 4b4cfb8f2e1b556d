//! A session with the vault: logs in by itself, and again before the JWT ends or when it was refused.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::{Method, header::HeaderValue};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use vault_api::LoginAnswer;

use crate::{Error, bearer, call::Failed};

/// The longest that any call waits for a new JWT while the old one is still good.
const REFRESH_PATIENCE: Duration = Duration::from_secs(2);
/// The wait after a refresh that failed, while the old JWT is still good.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// What is called: a method, and a path that names no token.
pub(crate) type Endpoint = (Method, String);

/// The latest JWT that a login gave. One login at a time: whoever comes meanwhile uses the JWT before, or waits if
/// there is none.
pub(crate) struct Session {
    /// The longest a call waits for a new JWT while the old one is still good.
    patience: Duration,
    latest: Mutex<Option<Grant>>,
    /// Where the vault takes each JWT but once.
    unshared: Mutex<HashSet<Endpoint>>,
    /// Held by the one that logs in.
    login: AsyncMutex<()>,
}

/// What a login gave.
#[derive(Clone)]
pub(crate) struct Grant {
    header: HeaderValue,
    /// From here on a new one is wanted: 80 % of the lifetime.
    refresh_at: Instant,
    /// From here on it is of no use.
    ends_at: Instant,
}

impl Grant {
    /// The grant that `answer` holds, to a login that was sent at `asked_at`.
    pub(crate) fn new(answer: &LoginAnswer, asked_at: Instant) -> Result<Self, Error> {
        if !answer.token_type.eq_ignore_ascii_case("Bearer") {
            return Err(Error::Protocol("a login gave a token of another type than Bearer".into()));
        }
        let lifetime = Duration::from_secs(u64::from(u32::try_from(answer.expires_in).unwrap_or(u32::MAX)));
        Ok(Self {
            header: bearer::header(answer.access_token.expose())?,
            refresh_at: asked_at + lifetime / 5 * 4,
            ends_at: asked_at + lifetime,
        })
    }
}

impl Session {
    /// A session of calls that may take as long as `timeout`, of which waiting for a new JWT is to leave them half.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            patience: REFRESH_PATIENCE.min(timeout / 2),
            latest: Mutex::default(),
            unshared: Mutex::default(),
            login: AsyncMutex::default(),
        }
    }

    /// From now on each call of `endpoint` has a JWT of its own, for the vault has answered `replayed_jwt` there: one that
    /// is shown twice would each time be refused first, and stand in the audit log as a theft may.
    pub(crate) fn never_share(&self, endpoint: Endpoint) {
        self.unshared.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint);
    }

    fn is_shared(&self, endpoint: &Endpoint) -> bool {
        !self.unshared.lock().unwrap_or_else(PoisonError::into_inner).contains(endpoint)
    }

    /// The `Authorization` header for a call of `endpoint`, by `login` if a new one is due.
    pub(crate) async fn current(
        &self,
        endpoint: &Endpoint,
        login: impl Future<Output = Result<Grant, Failed>>,
    ) -> Result<HeaderValue, Failed> {
        match self.latest() {
            _ if !self.is_shared(endpoint) => Ok(login.await?.header),
            Some(known) if Instant::now() < known.refresh_at => Ok(known.header),
            Some(known) if Instant::now() < known.ends_at => Ok(self.refreshed(known, login).await),
            _ => self.other_than(None, login).await,
        }
    }

    /// A header after the vault has answered `refused` with 401 at `endpoint`: by `login`, unless somebody else has logged
    /// in since.
    pub(crate) async fn renewed(
        &self,
        refused: &HeaderValue,
        endpoint: &Endpoint,
        login: impl Future<Output = Result<Grant, Failed>>,
    ) -> Result<HeaderValue, Failed> {
        if self.is_shared(endpoint) {
            self.other_than(Some(refused), login).await
        } else {
            Ok(login.await?.header)
        }
    }

    /// A header that is still good and not `refused`.
    async fn other_than(
        &self,
        refused: Option<&HeaderValue>,
        login: impl Future<Output = Result<Grant, Failed>>,
    ) -> Result<HeaderValue, Failed> {
        let _only_one = self.login.lock().await;
        if let Some(known) = self.latest()
            && Instant::now() < known.ends_at
            && refused != Some(&known.header)
        {
            return Ok(known.header);
        }
        let grant = login.await?;
        Ok(self.keep(grant))
    }

    /// A new header if this caller is the one to log in and it works, else that of `known`.
    async fn refreshed(
        &self,
        known: Grant,
        login: impl Future<Output = Result<Grant, Failed>>,
    ) -> HeaderValue {
        let Ok(_only_one) = self.login.try_lock() else { return known.header };
        if let Some(latest) = self.latest()
            && latest.refresh_at > known.refresh_at
        {
            return latest.header;
        }
        // Whoever asked may give up waiting.
        self.put_off(&known);
        match tokio::time::timeout(self.patience, login).await {
            Ok(Ok(grant)) => self.keep(grant),
            _ => self.put_off(&known),
        }
    }

    /// Keeps `known` for a while before another login is tried.
    fn put_off(&self, known: &Grant) -> HeaderValue {
        self.keep(Grant { refresh_at: Instant::now() + REFRESH_PAUSE, ..known.clone() })
    }

    fn latest(&self) -> Option<Grant> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, grant: Grant) -> HeaderValue {
        let header = grant.header.clone();
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(grant);
        header
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn grant(token: &str, seconds: u64) -> Grant {
        let answer = LoginAnswer {
            access_token: token.into(),
            token_type: "bearer".into(),
            expires_in: seconds,
            scope: String::new(),
            tenant: "dev".into(),
        };
        Grant::new(&answer, Instant::now()).unwrap()
    }

    static DETOKENIZE: LazyLock<Endpoint> = LazyLock::new(|| (Method::POST, "/v1/detokenize".to_owned()));

    fn must_not_log_in() -> impl Future<Output = Result<Grant, Failed>> {
        std::future::poll_fn(|_| panic!("there is no need to log in"))
    }

    fn is_down() -> impl Future<Output = Result<Grant, Failed>> {
        std::future::ready(Err(Error::Broken.into()))
    }

    async fn takes(seconds: u64, token: &str) -> Result<Grant, Failed> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(grant(token, 100))
    }

    async fn wait(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_jwt_is_kept_until_four_fifths_of_its_lifetime() {
        let session = Session::new(Duration::from_secs(10));
        assert_eq!(session.current(&DETOKENIZE, takes(0, "one")).await.unwrap(), "Bearer one");
        wait(79).await;
        assert_eq!(session.current(&DETOKENIZE, must_not_log_in()).await.unwrap(), "Bearer one");
        wait(2).await;
        assert_eq!(session.current(&DETOKENIZE, takes(0, "two")).await.unwrap(), "Bearer two");
        assert_eq!(session.current(&DETOKENIZE, must_not_log_in()).await.unwrap(), "Bearer two");
    }

    #[tokio::test(start_paused = true)]
    async fn one_refreshes_while_the_others_use_the_old_jwt() {
        let session = Session::new(Duration::from_secs(10));
        session.current(&DETOKENIZE, takes(0, "one")).await.unwrap();
        wait(85).await;
        let (first, second) = tokio::join!(
            session.current(&DETOKENIZE, takes(1, "two")),
            session.current(&DETOKENIZE, must_not_log_in())
        );
        assert_eq!(
            (first.unwrap(), second.unwrap()),
            ("Bearer two".parse().unwrap(), "Bearer one".parse().unwrap())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_fails_or_hangs_costs_nothing_while_the_jwt_is_good() {
        let session = Session::new(Duration::from_secs(10));
        session.current(&DETOKENIZE, takes(0, "one")).await.unwrap();
        wait(85).await;
        assert_eq!(session.current(&DETOKENIZE, is_down()).await.unwrap(), "Bearer one");
        assert_eq!(session.current(&DETOKENIZE, must_not_log_in()).await.unwrap(), "Bearer one");
        wait(2).await;
        assert_eq!(session.current(&DETOKENIZE, takes(60, "late")).await.unwrap(), "Bearer one");
        wait(15).await;
        assert!(session.current(&DETOKENIZE, is_down()).await.is_err(), "its time is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_hangs_leaves_a_call_of_little_time_half_of_it() {
        let session = Session::new(Duration::from_secs(1));
        session.current(&DETOKENIZE, takes(0, "one")).await.unwrap();
        wait(85).await;
        let (limit, asked) = (Duration::from_millis(100), Instant::now());
        assert!(
            tokio::time::timeout(limit, session.current(&DETOKENIZE, takes(60, "late"))).await.is_err(),
            "given up"
        );
        assert_eq!(session.current(&DETOKENIZE, must_not_log_in()).await.unwrap(), "Bearer one");
        wait(2).await;
        assert_eq!(session.current(&DETOKENIZE, takes(60, "late")).await.unwrap(), "Bearer one");
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_without_a_jwt_log_in_once() {
        let session = Session::new(Duration::from_secs(10));
        let (first, second) = tokio::join!(
            session.current(&DETOKENIZE, takes(1, "one")),
            session.current(&DETOKENIZE, must_not_log_in())
        );
        assert_eq!(first.unwrap(), second.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_with_the_same_refused_jwt_log_in_once() {
        let session = Session::new(Duration::from_secs(10));
        let old = session.current(&DETOKENIZE, takes(0, "old")).await.unwrap();
        let (first, second) = tokio::join!(
            session.renewed(&old, &DETOKENIZE, takes(1, "new")),
            session.renewed(&old, &DETOKENIZE, must_not_log_in())
        );
        assert_eq!(first.unwrap(), "Bearer new");
        assert_eq!(second.unwrap(), "Bearer new");
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_jwt_may_be_shared_each_call_has_one_that_nobody_else_gets() {
        let session = Session::new(Duration::from_secs(10));
        let other = (Method::POST, "/v1/tokenize".to_owned());
        let old = session.current(&other, takes(0, "old")).await.unwrap();
        session.never_share(DETOKENIZE.clone());
        assert_eq!(session.renewed(&old, &DETOKENIZE, takes(0, "one")).await.unwrap(), "Bearer one");
        assert_eq!(session.current(&DETOKENIZE, takes(0, "two")).await.unwrap(), "Bearer two");
        assert_eq!(session.current(&other, must_not_log_in()).await.unwrap(), "Bearer old");
    }

    #[test]
    fn a_login_that_gives_no_bearer_token_is_not_understood() {
        let mut answer = LoginAnswer {
            access_token: "aaa".into(),
            token_type: "DPoP".into(),
            expires_in: 60,
            scope: String::new(),
            tenant: "dev".into(),
        };
        assert!(matches!(Grant::new(&answer, Instant::now()), Err(Error::Protocol(_))));
        answer.token_type = "Bearer".into();
        answer.access_token = "not a token".into();
        assert!(matches!(Grant::new(&answer, Instant::now()), Err(Error::Token(_))));
        answer.access_token = "aaa".into();
        answer.expires_in = u64::MAX;
        assert!(Grant::new(&answer, Instant::now()).is_ok());
    }
}
