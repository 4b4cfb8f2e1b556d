//! The store's door: opening, reading, and handing changes to the writer.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::Sender;
use redb::ReadableDatabase;
use tokio::sync::oneshot;

use super::{
    Inserted, KeyMove, KeyMoved, NewRecord, OpenError, Record, Replaced, StoreError, StoredKey, TokenKey,
    budget::{SealBudget, Spent},
    change::{self, Change, Incoming},
    error::failed,
    handle::Handle,
    layout::{
        META_SCHEMA, OLDEST_READ_AS_IT_IS, VAULT_ID_BYTES, lay_out, read_keys, read_meta, read_schema,
        upgrade,
    },
    schema::{TenantId, USE_ID_BYTES},
    tables::{Encoded, KEYS, META},
    uses::{Use, UseKind},
    writer,
};

/// The database's file name in the store's directory.
const FILE_NAME: &str = "vault.redb";
/// Its name while it is made.
const DRAFT_NAME: &str = "vault.redb.new";
/// No tenant has this number: looking under it finds nothing, and takes as long as finding nothing elsewhere.
const NO_TENANT: TenantId = 0;

/// An open store. Cheap to clone; [`Store::close`] ends it for all clones.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) handle: Arc<Handle>,
    vault_id: [u8; VAULT_ID_BYTES],
    tenants: Arc<RwLock<HashMap<String, TenantId>>>,
    seals: SealBudget,
    pub(super) queue: Sender<Change>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Makes a store in `dir` with the id `vault_id`, or opens the one that is there (whose id stays).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(
        dir: &Path,
        vault_id: [u8; VAULT_ID_BYTES],
        cache_bytes: usize,
        queue: usize,
    ) -> Result<Self, OpenError> {
        let path = Self::file(dir);
        if is_missing(&path)? {
            // Under its name only when it is whole: a power failure leaves no store, or one that opens.
            let draft = dir.join(DRAFT_NAME);
            remove_leftover(&draft).map_err(|error| failed(&path, &error))?;
            let database = Handle::create(&draft, cache_bytes)?;
            lay_out(&database, vault_id).map_err(|error| failed(&path, &error))?;
            drop(database);
            give_name(&draft, &path, dir).map_err(|error| failed(&path, &error))?;
        }
        Self::open(dir, cache_bytes, queue)
    }

    /// Opens the store in `dir` and starts its writer.
    ///
    /// `cache_bytes` bounds the page cache, `queue` how many changes may wait.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path, cache_bytes: usize, queue: usize) -> Result<Self, OpenError> {
        Self::open_after(dir, cache_bytes, queue, |handle| {
            upgrade(handle).map_err(|error| failed(handle.path(), &error))
        })
    }

    /// Opens the store in `dir` as [`Store::open`] does, but leaves an older schema as it is: for whoever only looks, so
    /// that an older vaultd still opens it.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::OlderSchema`] if its rows must be brought forward to be read.
    pub fn open_as_it_is(dir: &Path, cache_bytes: usize, queue: usize) -> Result<Self, OpenError> {
        Self::open_after(dir, cache_bytes, queue, |handle| {
            let path = handle.path();
            match handle.with(read_schema).map_err(|error| failed(path, &error))? {
                found if found < OLDEST_READ_AS_IT_IS => {
                    Err(OpenError::OlderSchema { path: path.to_owned(), found })
                }
                _ => Ok(()),
            }
        })
    }

    fn open_after(
        dir: &Path,
        cache_bytes: usize,
        queue: usize,
        vet_schema: impl FnOnce(&Handle) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        let path = Self::file(dir);
        if is_missing(&path)? {
            return Err(OpenError::Missing(path));
        }
        let handle = Arc::new(Handle::open(&path, cache_bytes)?);
        let (vault_id, tenants) = read_meta(&handle)?;
        vet_schema(&handle)?;
        let keys = handle.with(read_keys).map_err(|error| failed(&path, &error))?;
        let seals = SealBudget::new(keys.into_iter().map(|(name, key)| (name, key.reserved_seals)));

        let tenants = Arc::new(RwLock::new(tenants));
        let (queue, changes) = crossbeam_channel::bounded(queue);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn({
                let (handle, tenants) = (Arc::clone(&handle), Arc::clone(&tenants));
                move || {
                    writer::serve(&handle, &changes, |new| {
                        let mut known = tenants.write().unwrap_or_else(PoisonError::into_inner);
                        known.extend(new.iter().map(|(name, id)| (name.clone(), *id)));
                    });
                }
            })
            .map_err(|error| failed(&path, &error))?;
        let writer = Mutex::new(Some(writer));
        Ok(Self { inner: Arc::new(Inner { handle, vault_id, tenants, seals, queue, writer }) })
    }

    /// The file of a store in `dir`.
    pub fn file(dir: &Path) -> PathBuf {
        dir.join(FILE_NAME)
    }

    /// The id of the vault the store belongs to: random, made with the store.
    pub fn vault_id(&self) -> [u8; VAULT_ID_BYTES] {
        self.inner.vault_id
    }

    /// Its schema: [`SCHEMA_VERSION`](super::SCHEMA_VERSION), unless it was opened as it is.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn schema(&self) -> Result<u32, StoreError> {
        self.inner.handle.with(read_schema)
    }

    /// The names of all tenants.
    pub fn tenants(&self) -> Vec<String> {
        self.inner.tenants.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        self.inner.handle.path()
    }

    /// From which size of its file, in bytes, each commit also keeps what lets the store open at once after a crash; no
    /// size unless this is called. Below it, commits are up to twice as fast, and opening after a crash walks the file.
    pub fn recover_quickly_from(&self, bytes: u64) {
        self.inner.handle.recover_quickly_from(bytes);
    }

    /// The keys that are recorded, by name.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn keys(&self) -> Result<Vec<(String, StoredKey)>, StoreError> {
        self.inner.handle.with(read_keys)
    }

    /// Records a key under `name`. Blocks; for provisioning only.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn put_key(&self, name: &str, key: &StoredKey) -> Result<(), StoreError> {
        self.inner.handle.change(|transaction| {
            transaction.open_table(KEYS)?.insert(name, key.encode().as_slice())?;
            Ok(())
        })
    }

    /// Uses up `id`, which is remembered until `until_s`; at most `most` uses of its kind are remembered at a time.
    ///
    /// Durable when it returns, so that a use holds across restarts.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not known whether it was used up.
    pub async fn use_up(
        &self,
        kind: UseKind,
        id: [u8; USE_ID_BYTES],
        until_s: u64,
        now_s: u64,
        most: usize,
    ) -> Result<Use, StoreError> {
        self.change(|answer| Change::UseUp { kind, id, until_s, now_s, most, answer }).await
    }

    /// Stores new records, and says of each what became of it once that is durable.
    ///
    /// `now_s` (seconds of Unix time) decides whether an earlier record of the same card has ended.
    ///
    /// # Errors
    /// [`StoreError`]; then none is stored.
    pub async fn insert(
        &self,
        tenant: &str,
        records: Vec<NewRecord>,
        now_s: u64,
    ) -> Result<Vec<Inserted>, StoreError> {
        let tenant = tenant.to_owned();
        let records = records
            .into_iter()
            .map(|NewRecord { token, record, older }| {
                Ok(Incoming { token, new: Encoded::new(record)?, older })
            })
            .collect::<Result<_, StoreError>>()?;
        self.change(|answer| Change::Insert { tenant, records, now_s, answer }).await
    }

    /// Replaces the record `old` of `token` by `new`.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn replace(
        &self,
        tenant: &str,
        token: TokenKey,
        old: Record,
        new: Record,
    ) -> Result<Replaced, StoreError> {
        let (tenant, old, new) = (self.tenant(tenant), Box::new(old), Box::new(Encoded::new(new)?));
        self.change(|answer| Change::Replace { tenant, token, old, new, answer }).await
    }

    /// Removes `token`, its ciphertext and its index rows; false if there was none.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn remove(&self, tenant: &str, token: TokenKey) -> Result<bool, StoreError> {
        let tenant = self.tenant(tenant);
        self.change(|answer| Change::Remove { tenant, token, answer }).await
    }

    /// Removes up to `most` tokens that ended before `ended_before_s` (seconds of Unix time); says how many.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn sweep(&self, ended_before_s: u64, most: usize) -> Result<usize, StoreError> {
        self.change(|answer| Change::Sweep { ended_before_s, most, answer }).await
    }

    /// Makes `step` in the life of the key `name`, at `now_ms` (milliseconds of Unix time).
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn move_key(&self, name: &str, step: KeyMove, now_ms: u64) -> Result<KeyMoved, StoreError> {
        let name = name.to_owned();
        self.change(|answer| Change::MoveKey { name, step, now_ms, answer }).await
    }

    /// Counts `seals` encryptions under the recorded key `key`, which may make `limit` in all, before they are made;
    /// says how many that are.
    ///
    /// # Errors
    /// [`StoreError::SealsSpent`] if the key has done its share, or another [`StoreError`].
    pub async fn spend_seals(&self, key: &str, seals: usize, limit: u64) -> Result<u64, StoreError> {
        let seals = u64::try_from(seals).unwrap_or(u64::MAX);
        loop {
            match self.inner.seals.spend(key, seals, limit) {
                Spent::Granted(used) => return Ok(used),
                Spent::Exhausted => return Err(StoreError::SealsSpent(key.to_owned())),
                Spent::Reserve(reserved) => {
                    let key_name = key.to_owned();
                    self.change(|answer| Change::ReserveSeals { key_name, reserved, answer }).await?;
                    self.inner.seals.reserved(key, reserved);
                }
            }
        }
    }

    /// How many encryptions were counted under the key `key`, those that were reserved and lost in a restart included.
    pub fn seals_used(&self, key: &str) -> u64 {
        self.inner.seals.used(key)
    }

    /// Whether the store can be read and its writer takes changes.
    ///
    /// # Errors
    /// Why not.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.inner.handle.with(|database| {
            database.begin_read()?.open_table(META)?.get(META_SCHEMA)?;
            Ok(())
        })?;
        if self.inner.handle.failing() {
            return Err(StoreError::Failed("the last commit failed".to_owned()));
        }
        let writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match &*writer {
            Some(thread) if !thread.is_finished() => Ok(()),
            _ => Err(StoreError::Failed("the writer has ended".to_owned())),
        }
    }

    /// Whether the writer takes a change and answers it, be it with an error. Waits for as long as it does not.
    pub async fn writer_lives(&self) -> bool {
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            let (answer, answered) = oneshot::channel();
            match change::submit(&self.inner.queue, Change::Nothing { answer }) {
                Ok(()) => return answered.await.is_ok(),
                // It may only have much to do.
                Err(StoreError::Busy) => tokio::time::sleep(PAUSE).await,
                Err(_) => return false,
            }
        }
    }

    /// Commits what is waiting and ends the writer. Blocks.
    pub fn close(&self) {
        let writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = self.inner.queue.send(Change::Stop);
            if writer.join().is_err() {
                tracing::error!("the store's writer ended with a panic");
            }
        }
    }

    pub(super) fn tenant(&self, name: &str) -> TenantId {
        let tenants = self.inner.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(name).copied().unwrap_or(NO_TENANT)
    }

    pub(super) async fn change<T>(
        &self,
        change: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Change,
    ) -> Result<T, StoreError> {
        let (answer, receiver) = oneshot::channel();
        change::submit(&self.inner.queue, change(answer))?;
        receiver.await.unwrap_or_else(|_| Err(StoreError::Failed("the writer has ended".to_owned())))
    }
}

/// A file that cannot be looked at is not a missing one: making it anew would hide what is wrong.
fn is_missing(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map(|exists| !exists).map_err(|error| failed(path, &error))
}

/// Removes what is left of a store whose making was interrupted.
fn remove_leftover(draft: &Path) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives `draft` its name in `dir`, and waits for the disk: what is committed to a file without a name is lost.
fn give_name(draft: &Path, path: &Path, dir: &Path) -> io::Result<()> {
    fs::rename(draft, path)?;
    File::open(dir)?.sync_all()
}
