//! The audit log: who did what with which card, in a form that nobody can quietly edit.
//!
//! Entries are JSON lines (`docs/audit-log.md`), each with the SHA-256 of the one before; from time to time the HSM signs how
//! far they go. The door is [`Audit`]: [`Audit::record`] returns when an entry is on the disk, and until then nothing
//! that it tells of may leave the daemon. One thread writes, in groups. If the log cannot be written, or is not what
//! was left behind, everything is refused until it is put right.
//!
//! [`verify`] checks a log offline. Nothing here knows the HSM or the store: whoever has both signs [`Statement`]s and
//! remembers [`Mark`]s.

mod checkpoint;
mod current;
mod dir;
mod entry;
mod error;
mod gather;
mod line;
mod log;
mod read;
mod recover;
mod stats;
mod writer;

pub mod verify;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};
use vault_api::{AuditAnswer, AuditQuery};

pub use checkpoint::Statement;
pub use dir::Mark;
pub use entry::{Access, Entry, Event, FailedItem, Outcome};
pub use error::{AuditError, OpenError};
pub use gather::Begun;
pub use log::Rotation;
pub use stats::AuditStats;

use line::Kind;
use log::{Line, Log};
use writer::{Job, Queue, Shared};

/// How long an entry may take to the disk, after all other work on its request is over.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the log for whoever waits for something that fits.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How an entry about reading the log is told from others: inside of a text, the quotes would be escaped.
const OP_READ: &str = r#""op":"audit.read""#;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its directory.
    pub dir: PathBuf,
    /// How many entries may wait to be written, or are to come.
    pub queue: usize,
    /// After how many entries a checkpoint is due.
    pub checkpoint_entries: u64,
    /// After how long a checkpoint is due, if there are new entries.
    pub checkpoint_interval: Duration,
    /// When a file is finished.
    pub rotation: Rotation,
}

/// The audit log in service. Cheap to clone; [`Audit::close`] ends it for all clones.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    vault: String,
    /// None if nothing is kept.
    queue: Option<Queue>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Whether readers are to wait no longer.
    dismissed: watch::Sender<bool>,
}

impl Audit {
    /// Opens the log of the vault `vault_id` and starts its thread. The log must go at least as far as `mark`, the last
    /// checkpoint that was remembered.
    ///
    /// # Errors
    /// [`OpenError`], if it does not or cannot be written.
    pub fn open(settings: Settings, vault_id: &[u8; 16], mark: Option<Mark>) -> Result<Self, OpenError> {
        let log = Log::open(&settings.dir, vault_id, mark, settings.rotation)?;
        Self::start(settings, vault_id, log)
    }

    fn start(settings: Settings, vault_id: &[u8; 16], log: Log) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new(log.last()));
        // As many again, for what has not begun as a request does: see `begin`.
        let (queue, jobs) = crossbeam_channel::bounded(settings.queue.saturating_mul(2));
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || writer::serve(log, &jobs, &shared)
        });
        let thread = Mutex::new(Some(thread.map_err(error::io_error(&settings.dir))?));
        let queue = Some(Queue::new(queue, Arc::clone(&shared)));
        let vault = line::vault_name(vault_id);
        let dismissed = watch::Sender::default();
        Ok(Self { inner: Arc::new(Inner { settings, vault, queue, shared, thread, dismissed }) })
    }

    /// A log that keeps nothing, to measure what the log costs. The `vaultd` program has no way to it.
    pub fn unkept(settings: Settings, vault_id: &[u8; 16]) -> Self {
        let (shared, thread) = (Arc::new(Shared::new(Mark::default())), Mutex::default());
        let (vault, dismissed) = (line::vault_name(vault_id), watch::Sender::default());
        Self { inner: Arc::new(Inner { settings, vault, queue: None, shared, thread, dismissed }) }
    }

    /// Goes on with a log of which some is lost, on the word of somebody who says why; gives the place from which on it can
    /// be relied on again.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn resume(
        settings: &Settings,
        vault_id: &[u8; 16],
        mark: Option<Mark>,
        reason: &str,
    ) -> Result<Mark, OpenError> {
        Log::resume(&settings.dir, vault_id, mark, reason, settings.rotation).map(|log| log.last())
    }

    /// Whether the log in `dir` goes as far as `mark` and can be followed from there. Changes nothing.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn inspect(dir: &Path, vault_id: &[u8; 16], mark: Option<Mark>) -> Result<(), OpenError> {
        recover::read(dir, &line::vault_name(vault_id), mark).map(drop)
    }

    /// To be called before anything is done that needs an entry: whether the log could be written when it was last tried, and
    /// has room. What it gives is to be kept until there is an entry, or will be none.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`], [`AuditError::Busy`].
    pub fn begin(&self) -> Result<Begun<'_>, AuditError> {
        self.inner.shared.usable()?;
        let waiting = self.inner.queue.as_ref().map_or(0, Queue::waiting);
        // Whoever has begun will want room: an entry that finds none is lost.
        if waiting.max(self.inner.shared.bell.begun()) >= self.inner.settings.queue {
            return Err(AuditError::Busy);
        }
        Ok(self.inner.shared.bell.begin())
    }

    /// Writes the entry of a request. When this returns it is on the disk. How long to wait for a disk that does not answer
    /// is for the caller to say; the entry is written even if nobody waits any more.
    ///
    /// # Errors
    /// [`AuditError`]; then what it tells of must not leave the daemon.
    pub async fn record(&self, entry: impl FnOnce() -> Entry) -> Result<(), AuditError> {
        let Some(queue) = &self.inner.queue else { return Ok(()) };
        let line = Line { kind: Kind::Access, tail: entry().0 };
        let (answer, written) = oneshot::channel();
        queue.hand_over(Job::Write(line, Some(answer)))?;
        written.await.unwrap_or_else(|_| Err(writer::ended())).map(drop)
    }

    /// Writes the entry of a request that nobody waits for any more; if the log cannot be written, as soon as it can.
    pub fn note(&self, entry: Entry) {
        self.send(Kind::Access, entry.0);
    }

    /// Writes an event without waiting; if the log cannot be written, as soon as it can.
    pub fn event(&self, event: &Event<'_>) {
        self.send(Kind::Event, entry::tail(event));
    }

    fn send(&self, kind: Kind, tail: Vec<u8>) {
        let line = Line { kind, tail };
        let Some(queue) = &self.inner.queue else { return };
        if queue.hand_over(Job::Write(line, None)).is_err() {
            tracing::error!("an entry for the audit log is lost: too many are waiting");
        }
    }

    /// Whether the log can be written now.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), AuditError> {
        self.look(Job::Probe).await
    }

    /// Whether the log can be written now; one that could not be is tried at once. For the end, after which it is too late.
    ///
    /// # Errors
    /// Why not.
    pub async fn retry(&self) -> Result<(), AuditError> {
        self.look(Job::Retry).await
    }

    async fn look(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<(), AuditError>>) -> Job,
    ) -> Result<(), AuditError> {
        let Some(queue) = &self.inner.queue else { return Ok(()) };
        // The rest of the room is for what has been done.
        if queue.waiting() >= self.inner.settings.queue {
            return Err(AuditError::Busy);
        }
        let (answer, looked) = oneshot::channel();
        queue.ask(job(answer), looked).await
    }

    /// Whether the thread that writes takes work and answers, be it with an error. Waits for as long as it does not.
    pub async fn writer_lives(&self) -> bool {
        const PAUSE: Duration = Duration::from_millis(10);
        let Some(queue) = &self.inner.queue else { return true };
        loop {
            let (answer, answered) = oneshot::channel();
            match queue.hand_over(Job::Probe(answer)) {
                Ok(()) => return answered.await.is_ok(),
                // It may only have much to do.
                Err(AuditError::Busy) => tokio::time::sleep(PAUSE).await,
                Err(_) => return false,
            }
        }
    }

    /// Waits until a checkpoint is due; gives the number of entries up to it, for the next call, and the last line.
    pub async fn due(&self, signed: u64) -> (u64, Mark) {
        let Settings { checkpoint_entries, checkpoint_interval, .. } = self.inner.settings;
        let mut progress = self.inner.shared.progress.subscribe();
        let deadline = Instant::now() + checkpoint_interval;
        let enough = progress.wait_for(|progress| progress.others >= signed + checkpoint_entries);
        if timeout_at(deadline, enough).await.is_err() {
            // The sender is as old as this handle: there is nothing to fail.
            let _ = progress.wait_for(|progress| progress.others > signed).await;
        }
        let progress = *progress.borrow();
        (progress.others, progress.last)
    }

    /// The last line that is durable.
    pub fn last(&self) -> Mark {
        self.inner.shared.progress.borrow().last
    }

    /// That the log goes up to `upto`, for the key `kid` to sign.
    pub fn statement(&self, upto: Mark, kid: &str, is_final: bool) -> Statement {
        Statement::new(&self.inner.vault, upto, kid, is_final)
    }

    /// Writes a signed checkpoint; when this returns it is on the disk.
    ///
    /// # Errors
    /// [`AuditError`].
    pub async fn checkpoint(&self, statement: &Statement, signature: &[u8]) -> Result<(), AuditError> {
        let Some(queue) = &self.inner.queue else { return Ok(()) };
        let line = Line { kind: Kind::Checkpoint, tail: statement.tail(signature) };
        let (answer, written) = oneshot::channel();
        queue.ask(Job::Write(line, Some(answer)), written).await?;
        let now_s = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        self.inner.shared.stats.checkpoint(statement.upto.seq, now_s);
        Ok(())
    }

    /// Puts the public keys, a JWK set (RFC 7517), beside the log.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn publish_keys(&self, keys: &[u8]) -> std::io::Result<()> {
        dir::write_keys(&self.inner.settings.dir, keys)
    }

    /// What `query` asks of the log; waits as long as it says for something that fits and is more than a look at the log.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn read(&self, query: &AuditQuery) -> std::io::Result<AuditAnswer> {
        let deadline = Instant::now() + Duration::from_secs(query.wait.unwrap_or(0));
        let mut progress = self.inner.shared.progress.subscribe();
        let mut dismissed = self.inner.dismissed.subscribe();
        let mut query = query.clone();
        loop {
            let looked = Instant::now();
            let end = progress.borrow_and_update().last.seq;
            let (dir, asked) = (self.inner.settings.dir.clone(), query.clone());
            let read = tokio::task::spawn_blocking(move || read::read(&dir, &asked, end)).await;
            let answer = read.map_err(std::io::Error::other)??;
            // Each read has an entry of its own: whoever follows the log would follow itself, as fast as it can.
            let has_news = query.last.is_some() && !answer.entries.is_empty()
                || answer.entries.iter().any(|entry| !entry.get().contains(OP_READ));
            let has_grown = async {
                // Each look costs the more, the larger the file.
                sleep_until((looked + LOOK_PAUSE).min(deadline)).await;
                timeout_at(deadline, progress.changed()).await.is_ok()
            };
            let goes_on = !has_news
                && !answer.more
                && tokio::select! {
                    has_grown = has_grown => has_grown,
                    _ = dismissed.wait_for(|dismissed| *dismissed) => false,
                };
            if !goes_on {
                return Ok(answer);
            }
            if answer.entries.is_empty() {
                query.last = None;
                query.after = Some(answer.next);
            }
        }
    }

    /// Has readers wait no longer, from now on: the daemon is to stop.
    pub fn dismiss_readers(&self) {
        self.inner.dismissed.send_replace(true);
    }

    /// What is counted of the log.
    pub fn stats(&self) -> &AuditStats {
        &self.inner.shared.stats
    }

    /// Writes what is waiting and ends the thread. Blocks.
    pub fn close(&self) {
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((thread, queue)) = thread.zip(self.inner.queue.as_ref()) {
            queue.end();
            if thread.join().is_err() {
                tracing::error!("the audit log's thread ended with a panic");
            }
        }
    }
}
