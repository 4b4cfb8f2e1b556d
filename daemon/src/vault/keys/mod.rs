//! The keys of the vault: which version new work is done with, which older ones still count, and how that changes.
//!
//! The door is [`Keys`]. The store holds the truth (states and census), the token the material; what a request goes by
//! is a [`KeyView`] of both. A request that began under an older view is told so by the store's writer, which takes
//! records of active keys only, and does its work once more.

mod change;
mod lifetimes;
mod report;
mod view;

use std::{
    collections::BTreeMap,
    sync::{self, Arc, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify};

pub use change::finish_key_changes;
use lifetimes::Lifetimes;
pub use report::{KeyReport, KeyWarning};
pub(super) use view::KeyView;

use super::{VaultError, now_s};
use crate::{
    audit::Audit,
    hsm::{Hsm, HsmError, KeyInfo, KeyName, Purpose, RsaPublic, SealRequest, Sealed},
    jose::{Signer, SigningKeys},
    store::{KeyState, Store, StoredKey},
};

/// Until when something outside of `store` may need a key of `purpose` that was used just now or before, in seconds of Unix
/// time: by `rules`, and by those that were in force before. Blocks.
///
/// # Errors
/// [`VaultError::Store`].
pub fn needed_until_s(store: &Store, rules: &KeyRules, purpose: Purpose) -> Result<u64, VaultError> {
    Ok(Lifetimes::open(store, rules)?.needed_until_s(purpose, now_s()))
}

/// How long keys live, and what ends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRules {
    /// The cryptoperiod of each purpose, in the order of [`Purpose::ALL`], in seconds (SP 800-57 part 1, 5.3.6).
    pub cryptoperiods_s: [u64; Purpose::ALL.len()],
    /// How long before its end a key is warned of, in seconds.
    pub warn_before_s: u64,
    /// The most encryptions under one key (SP 800-38D, 8.3).
    pub max_encryptions: u64,
    /// Whether a key that nears its last encryption is rotated; it refuses to encrypt otherwise.
    pub rotate_when_spent: bool,
    /// How long a JWT that was signed just now may have to be verified, in seconds.
    pub jwt_needed_s: u64,
    /// How long an envelope that was sealed just now may have to be opened, in seconds.
    pub envelope_needed_s: u64,
}

impl KeyRules {
    fn cryptoperiod_s(&self, purpose: Purpose) -> u64 {
        let place = Purpose::ALL.iter().position(|is| *is == purpose);
        place.and_then(|place| self.cryptoperiods_s.get(place)).copied().unwrap_or(u64::MAX)
    }

    /// How long something outside the store may need a key of `purpose` that was used just now, in seconds.
    pub const fn needed_s(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Jwt => self.jwt_needed_s,
            Purpose::Envelope => self.envelope_needed_s,
            Purpose::Record | Purpose::Fingerprint | Purpose::Holder | Purpose::Audit => 0,
        }
    }

    /// From how many encryptions on a key is rotated before it has to refuse: a sixteenth is left for those who are on
    /// their way.
    const fn spent_soon(&self) -> u64 {
        self.max_encryptions - self.max_encryptions / 16
    }
}

/// The keys. Cheap to clone; a change is seen by all clones.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    hsm: Hsm,
    store: Store,
    /// Told of what nobody asked for.
    audit: Audit,
    rules: KeyRules,
    lifetimes: sync::Mutex<Lifetimes>,
    signer: Signer,
    view: ArcSwap<KeyView>,
    /// The public halves of keys, as the token has shown them. Held by whoever looks at the store again: of two looks
    /// the later must count, and none may wait for the token.
    publics: sync::Mutex<Publics>,
    /// Held by whoever changes keys: one at a time. When and why a rotation that nobody asked for failed last.
    changing: Arc<Mutex<Option<(Instant, VaultError)>>>,
    /// Told when a key nears its last encryption.
    spent_soon: Notify,
}

type Publics = BTreeMap<KeyName, RsaPublic>;

impl Keys {
    /// The keys of an HSM and a store that belong together. `audit` is told of changes that nobody asked for.
    ///
    /// # Errors
    /// [`VaultError`] if a purpose has no active key, or a signing key is of no use.
    pub fn new(hsm: Hsm, store: Store, audit: Audit, rules: KeyRules) -> Result<Self, VaultError> {
        let rows = rows(&store)?;
        let view = ArcSwap::from_pointee(KeyView::new(&rows)?);
        let publics = hsm.keys()?.into_iter().filter_map(|info| Some((info.name, info.public?))).collect();
        let signer = Signer::new(hsm.clone(), signing_keys(&publics, &rows)?);
        let (publics, changing, spent_soon) = (sync::Mutex::new(publics), Arc::default(), Notify::new());
        let lifetimes = sync::Mutex::new(Lifetimes::open(&store, &rules)?);
        let inner =
            Inner { hsm, store, audit, rules, lifetimes, signer, view, publics, changing, spent_soon };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// From now on JWTs may be needed for `seconds`, if that is longer than before: those that were signed already are
    /// not cut short. Blocks.
    pub fn allow_jwts(&self, seconds: u64) {
        if let Err(error) = self.lifetimes().allow_jwts(&self.inner.store, seconds) {
            tracing::error!(
                %error,
                "how long JWTs may live is not in the store: reload once more before lifetimes are shortened again"
            );
        }
    }

    /// Until when something outside the store may need a key of `purpose` that was used just now or before, in seconds of Unix
    /// time.
    pub fn needed_until_s(&self, purpose: Purpose) -> u64 {
        self.lifetimes().needed_until_s(purpose, now_s())
    }

    fn lifetimes(&self) -> sync::MutexGuard<'_, Lifetimes> {
        self.inner.lifetimes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most encryptions under one key.
    pub(super) fn max_encryptions(&self) -> u64 {
        self.inner.rules.max_encryptions
    }

    /// What signs JWTs with the active key.
    pub fn signer(&self) -> &Signer {
        &self.inner.signer
    }

    /// The HSM that holds them.
    pub fn hsm(&self) -> &Hsm {
        &self.inner.hsm
    }

    /// The store that knows them.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The keys as they are now.
    pub(super) fn view(&self) -> Arc<KeyView> {
        self.inner.view.load_full()
    }

    /// Looks at the store again.
    pub(super) fn refresh(&self) -> Result<(), VaultError> {
        let Inner { store, signer, view, .. } = &*self.inner;
        let publics = self.publics();
        let rows = rows(store)?;
        let fresh = KeyView::new(&rows)?;
        if **view.load() != fresh {
            view.store(Arc::new(fresh));
        }
        signer.change(signing_keys(&publics, &rows)?);
        Ok(())
    }

    /// Remembers the public half of a key that was made just now, if it has one.
    fn learn(&self, made: KeyInfo) {
        if let Some(public) = made.public {
            self.publics().insert(made.name, public);
        }
    }

    /// The public half of the key `name`, if it is one that signs.
    pub(super) fn public(&self, name: KeyName) -> Option<RsaPublic> {
        self.publics().get(&name).cloned()
    }

    fn publics(&self) -> sync::MutexGuard<'_, Publics> {
        self.inner.publics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `error` only says that keys have changed since the work began: then the view is fresh now, and the work
    /// is worth another try.
    pub fn moved_on(&self, error: &VaultError) -> bool {
        match error {
            VaultError::KeysChanged | VaultError::Hsm(HsmError::NoKey(_)) => self.refresh().is_ok(),
            _ => false,
        }
    }

    /// The key that seals records now.
    pub fn record_key(&self) -> KeyName {
        self.view().record
    }

    /// Seals what is no record, counted as one.
    ///
    /// # Errors
    /// [`VaultError`]; if [`Keys::moved_on`] knows it, the same is worth another try with the key that is active then.
    pub async fn seal_one(&self, request: SealRequest) -> Result<Sealed, VaultError> {
        self.spend(request.key, 1).await?;
        let sealed = self.inner.hsm.seal(vec![request]).await?.into_iter().next();
        Ok(sealed.ok_or_else(|| HsmError::Unavailable("it gave no answer".to_owned()))?)
    }

    /// Counts encryptions under `key` before they are made; rotates a key that cannot make them, if it is to.
    pub(super) async fn spend(&self, key: KeyName, seals: usize) -> Result<(), VaultError> {
        use crate::store::StoreError;
        let Inner { store, rules, spent_soon, .. } = &*self.inner;
        match store.spend_seals(&key.to_string(), seals, rules.max_encryptions).await {
            Ok(used) => {
                if rules.rotate_when_spent && used >= rules.spent_soon() {
                    spent_soon.notify_one();
                }
                Ok(())
            }
            Err(StoreError::SealsSpent(_)) if rules.rotate_when_spent => {
                self.replace(key).await?;
                Err(VaultError::KeysChanged)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The recorded keys whose names this version knows.
fn rows(store: &Store) -> Result<Vec<(KeyName, StoredKey)>, VaultError> {
    let rows = store.keys()?.into_iter();
    Ok(rows.filter_map(|(name, key)| Some((KeyName::parse(&name)?, key))).collect())
}

/// The JWT keys that sign and verify: the active one, and retired ones as long as a JWT of theirs may live.
fn signing_keys(publics: &Publics, rows: &[(KeyName, StoredKey)]) -> Result<SigningKeys, VaultError> {
    let public = |name: &KeyName| publics.get(name).cloned().ok_or_else(|| HsmError::NoKey(name.to_string()));
    let now_s = now_s();
    let mut active = None;
    let mut others = Vec::new();
    for (name, key) in rows.iter().filter(|(name, _)| name.purpose == Purpose::Jwt) {
        match key.state {
            KeyState::Active => active = Some((*name, public(name)?)),
            KeyState::Retired if key.needed_until_s > now_s => others.push(public(name)?),
            KeyState::Pending | KeyState::Retired | KeyState::Destroyed => {}
        }
    }
    let (active, its_public) = active.ok_or_else(|| HsmError::NoKey("active jwt key".to_owned()))?;
    SigningKeys::new(active, its_public, others)
        .map_err(|error| HsmError::Unavailable(format!("the vault's own signing key {error}")).into())
}
