//! From a bearer token to a caller.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use vault_api::Scope;

use super::{AuthError, Caller, Issuers, Peer, ScopeSet, Stranger, caller::Grant, replay::ReplayMemory};
use crate::{
    metrics::{Counter, Page},
    store::{Store, UseKind},
};

/// What holds for JWTs of every issuer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What `aud` must name.
    pub audience: String,
    /// How far clocks may be apart, in seconds.
    pub leeway_s: u64,
    /// How many verified JWTs are remembered.
    pub cache_entries: usize,
    /// Scopes whose use takes a fresh JWT each time.
    pub single_use: ScopeSet,
    /// How many used `jti` are remembered, and how many of approvals.
    pub replay_entries: usize,
}

/// Looks for key files that have changed: the issuers as they are now, or `None` if nothing has.
pub type Watch = Box<dyn FnMut() -> Option<Issuers> + Send>;

/// Verifies JWTs and remembers those that verified.
pub struct Authenticator {
    settings: Settings,
    known: Arc<ArcSwap<Known>>,
    replay: ReplayMemory,
    hits: Counter,
    misses: Counter,
}

/// The issuers, the JWTs they are known to have signed, and what looks after their files: all are replaced together.
struct Known {
    issuers: Issuers,
    verified: Cache<[u8; 32], Arc<Grant>>,
    /// One look at a time; whoever waits for his turn gives it up with his request.
    watch: Arc<Mutex<Watch>>,
}

impl Authenticator {
    /// An authenticator that trusts `issuers`, remembers in `store` what may be used once, and asks `watch` for
    /// changed key files.
    pub fn new(settings: Settings, issuers: Issuers, watch: Watch, store: Store) -> Self {
        let known = Known::new(&settings, issuers, Arc::new(Mutex::new(watch)));
        let replay = ReplayMemory::new(store, settings.replay_entries);
        let (known, hits, misses) =
            (Arc::new(ArcSwap::from_pointee(known)), Counter::default(), Counter::default());
        Self { settings, known, replay, hits, misses }
    }

    /// Trusts `issuers` from now on, and nobody else; `watch` looks after their files. Requests on their way are not
    /// disturbed, and a look that is under way, which may never end, changes nothing any more.
    pub fn trust(&self, issuers: Issuers, watch: Watch) {
        self.known.store(Arc::new(Known::new(&self.settings, issuers, Arc::new(Mutex::new(watch)))));
    }

    /// Takes over key files that have changed; says whether there were any, now or while it waited for another look.
    pub async fn refresh(&self) -> bool {
        let before = self.known.load_full();
        let (known, settings) = (Arc::clone(&self.known), self.settings.clone());
        let ours = Arc::clone(&before.watch);
        let mut watch = Arc::clone(&ours).lock_owned().await;
        // Reads files.
        let looked = tokio::task::spawn_blocking(move || {
            let Some(issuers) = watch() else { return };
            let fresh = Arc::new(Known::new(&settings, issuers, Arc::clone(&ours)));
            known.rcu(|now| Arc::clone(if Arc::ptr_eq(&now.watch, &ours) { &fresh } else { now }));
        });
        looked.await.is_ok() && !Arc::ptr_eq(&before, &self.known.load())
    }

    /// Who calls from `peer` at `now_s`, by the value of the `Authorization` header. What it may do is not asked yet.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn identify(
        &self,
        authorization: Option<&[u8]>,
        peer: Peer,
        now_s: u64,
    ) -> Result<Caller, AuthError> {
        let grant = self.verified(bearer(authorization)?, now_s).await?;
        if grant.approves.is_some() {
            return Err(AuthError::Approval(Box::new(Stranger {
                issuer: grant.issuer.clone(),
                subject: grant.subject.clone(),
                tenant: Some(grant.tenant.clone()),
            })));
        }
        Ok(Caller { grant, peer })
    }

    /// Whether `caller` may do what needs one of `scopes`.
    ///
    /// # Errors
    /// [`AuthError`]; for a missing scope it names the first of `scopes`.
    pub async fn permit(&self, caller: &Caller, scopes: &[Scope]) -> Result<(), AuthError> {
        let grant = &caller.grant;
        if grant.bound_uid.is_some_and(|uid| uid != caller.peer.uid) {
            return Err(AuthError::Sender);
        }
        let granted = scopes.iter().copied().find(|scope| grant.scopes.contains(*scope));
        let scope = granted.ok_or(AuthError::Scope(scopes.first().copied().unwrap_or(Scope::Tokenize)))?;
        if self.settings.single_use.contains(scope) {
            let jti = grant.jti.as_deref().ok_or(AuthError::Invalid(
                "this scope takes a fresh JWT for each request: the JWT needs a `jti`",
            ))?;
            self.use_up(UseKind::Jwt, grant, jti).await?;
        }
        Ok(())
    }

    /// Uses up the `jti` of `grant`.
    pub(super) async fn use_up(&self, kind: UseKind, grant: &Grant, jti: &str) -> Result<(), AuthError> {
        let until_s = grant.expires_at_s.saturating_add(self.settings.leeway_s);
        self.replay.use_up(kind, &grant.issuer, jti, until_s).await
    }

    /// Writes what became of the cache of verified JWTs.
    pub fn write_metrics(&self, page: &mut Page) {
        for (name, help, value) in [
            ("vaultd_jwt_cache_hits_total", "JWTs that were known to verify.", &self.hits),
            ("vaultd_jwt_cache_misses_total", "JWTs whose signature was looked at.", &self.misses),
        ] {
            page.counter(name, help, value);
        }
    }

    /// A `kid` that is not known is looked for once more where key files have changed.
    pub(super) async fn verified(&self, jwt: &str, now_s: u64) -> Result<Arc<Grant>, AuthError> {
        match self.verify(jwt, now_s) {
            Err(AuthError::UnknownKey) if self.refresh().await => self.verify(jwt, now_s),
            result => result,
        }
    }

    fn verify(&self, jwt: &str, now_s: u64) -> Result<Arc<Grant>, AuthError> {
        let known = self.known.load();
        let digest = Sha256::digest(jwt).into();
        if let Some(grant) = known.verified.get(&digest) {
            self.hits.increment();
            if now_s < grant.expires_at_s.saturating_add(self.settings.leeway_s) {
                return Ok(grant);
            }
            known.verified.remove(&digest);
            return Err(AuthError::Expired);
        }
        self.misses.increment();
        let Settings { audience, leeway_s, .. } = &self.settings;
        let grant = Arc::new(known.issuers.verify(jwt, audience, *leeway_s, now_s)?);
        known.verified.insert(digest, Arc::clone(&grant));
        Ok(grant)
    }
}

impl Known {
    fn new(settings: &Settings, issuers: Issuers, watch: Arc<Mutex<Watch>>) -> Self {
        Self { issuers, verified: Cache::new(settings.cache_entries), watch }
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750, 2.1; the scheme's case does not matter, RFC 9110, 11.1).
fn bearer(authorization: Option<&[u8]>) -> Result<&str, AuthError> {
    let value = authorization.and_then(|value| std::str::from_utf8(value).ok()).ok_or(AuthError::Missing)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(token.trim())
        }
        _ => Err(AuthError::Missing),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_look_that_has_no_end_holds_up_nobody_and_changes_nothing() {
        let settings = Settings {
            audience: "vault".to_owned(),
            leeway_s: 0,
            cache_entries: 1,
            single_use: ScopeSet::default(),
            replay_entries: 1,
        };
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), [7; 16], 1 << 20, 1).unwrap();
        let (end, ended) = mpsc::channel();
        let hangs = move || {
            ended.recv().unwrap();
            Some(Issuers::default())
        };
        let auth = Authenticator::new(settings, Issuers::default(), Box::new(hangs), store);
        let look = auth.refresh();
        tokio::pin!(look);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut look).await.is_err());
        auth.trust(Issuers::default(), Box::new(|| None));
        let trusted = auth.known.load_full();
        assert!(!auth.refresh().await, "the new watch looks at once, and finds nothing");
        end.send(()).unwrap();
        assert!(look.await, "others are trusted since");
        assert!(Arc::ptr_eq(&trusted, &auth.known.load()), "and what it found is of issuers that are gone");
    }

    #[test]
    fn only_a_bearer_header_counts() {
        assert_eq!(bearer(Some(b"Bearer abc")), Ok("abc"));
        assert_eq!(bearer(Some(b"bearer  abc ")), Ok("abc"));
        for value in
            [None, Some(b"".as_slice()), Some(b"Bearer"), Some(b"Bearer "), Some(b"Basic abc"), Some(b"\xff")]
        {
            assert_eq!(bearer(value), Err(AuthError::Missing));
        }
    }
}
