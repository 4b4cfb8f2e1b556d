//! The pool: one thread and one session each, fed from one bounded queue.

use std::{sync::Arc, time::Duration};

use crossbeam_channel::{Sender, TrySendError};
use secrecy::SecretString;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{
    HsmError, KeyInfo, KeyName, Library, MAC_BYTES, OpenRequest, Opened, SealRequest, Sealed, SetupError,
    TokenSelector,
    check_value::CheckValue,
    connection::Access,
    crew::{Crew, Size},
    error::Fault,
    link::Link,
    operations::Operator,
    random::{REFILL_BYTES, RandomPool},
    stats::Snapshot,
    worker::{Job, Worker},
};
use crate::metrics::Page;

/// The most operations of a batch that one worker takes on at a time: few enough that others are not kept waiting.
const MAX_CHUNK_CALLS: usize = 64;

/// How to reach the token and how many sessions to use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The PKCS#11 module.
    pub library: Library,
    /// Which token.
    pub token: TokenSelector,
    /// The user PIN; none where the token asks for it by its own means, or wants no login.
    pub pin: Option<SecretString>,
    /// What the labels of the vault's keys start with.
    pub key_prefix: String,
    /// Keys whose making or destruction was cut short: they are not looked at.
    pub unfinished: Vec<KeyName>,
    /// How many sessions, and threads, to run.
    pub sessions: usize,
    /// How many operations may wait.
    pub queue: usize,
    /// How long a caller waits for an operation, and the longest that a call may last.
    pub call_timeout: Duration,
    /// How many threads whose call lasts longer are replaced.
    pub max_written_off: usize,
}

impl Settings {
    pub(super) fn access(&self) -> Access {
        Access {
            library: self.library.clone(),
            token: self.token.clone(),
            pin: self.pin.clone(),
            key_prefix: self.key_prefix.clone(),
            unfinished: self.unfinished.clone(),
        }
    }
}

/// The HSM in service. Cheap to clone; [`Hsm::close`] ends it for all clones.
#[derive(Clone)]
pub struct Hsm {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    queue: Sender<Job>,
    crew: Arc<Crew>,
    random: RandomPool,
    sessions: usize,
    call_timeout: Duration,
}

impl Hsm {
    /// Loads the module, logs in, finds and vets the keys and starts the workers.
    ///
    /// # Errors
    /// [`SetupError`]; the PIN is tried once.
    pub fn open(settings: &Settings) -> Result<Self, SetupError> {
        let link = Arc::new(Link::open(settings.access(), settings.call_timeout)?);
        let (queue, jobs) = crossbeam_channel::bounded(settings.queue);
        let wanted = settings.sessions.max(1);
        let sessions = link.current()?.usable_sessions(wanted)?;
        if sessions < wanted {
            tracing::warn!(sessions, wanted, "the token does not allow hsm.sessions: running with fewer");
        }
        let size = Size {
            workers: sessions,
            written_off: settings.max_written_off,
            call_timeout: settings.call_timeout,
        };
        let crew = Crew::start(Arc::clone(&link), jobs, size)
            .map_err(|error| SetupError::Key(format!("cannot start an HSM thread: {error}")))?;
        let (random, call_timeout) = (RandomPool::default(), settings.call_timeout);
        Ok(Self { inner: Arc::new(Inner { link, queue, crew, random, sessions, call_timeout }) })
    }

    /// The keys in service, by purpose and version.
    ///
    /// # Errors
    /// [`HsmError`] if the token cannot be used.
    pub fn keys(&self) -> Result<Vec<KeyInfo>, HsmError> {
        Ok(self.inner.link.connection()?.key_infos())
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.inner.link
    }

    /// Whether the key `name` is the one `recorded` was made with in the vault `context`.
    ///
    /// # Errors
    /// [`SetupError`] if the token cannot be asked. Blocks; for start-up only.
    pub fn check_key(
        &self,
        name: KeyName,
        recorded: &CheckValue,
        context: &[u8],
    ) -> Result<bool, SetupError> {
        self.inner.link.current()?.check(name, recorded, context)
    }

    /// From now on a connection that is made anew must find exactly the keys that `recorded` names and describes, or
    /// it is not used: a token that comes back with other keys would seal cards that are lost later.
    pub fn hold_to(&self, recorded: Vec<(KeyName, CheckValue)>, context: Vec<u8>) {
        self.inner.link.hold_to(recorded, context);
    }

    /// Seals each request under a fresh nonce. Order is kept.
    ///
    /// # Errors
    /// [`HsmError`]; either all are sealed or none is returned.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the bare method is not general over lifetimes"
    )]
    pub async fn seal(&self, requests: Vec<SealRequest>) -> Result<Vec<Sealed>, HsmError> {
        self.in_chunks("seal", requests, |operator, chunk| operator.seal(chunk)).await
    }

    /// Opens each request. Order is kept; what does not verify is `None`.
    ///
    /// # Errors
    /// [`HsmError`] if the token cannot be used.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the bare method is not general over lifetimes"
    )]
    pub async fn open_sealed(&self, requests: Vec<OpenRequest>) -> Result<Vec<Opened>, HsmError> {
        self.in_chunks("open", requests, |operator, chunk| operator.open(chunk)).await
    }

    /// HMAC-SHA-256 of each message under `key`. Order is kept.
    ///
    /// # Errors
    /// [`HsmError`] if the token cannot be used or holds no such key.
    pub async fn mac(
        &self,
        key: KeyName,
        messages: Vec<Zeroizing<Vec<u8>>>,
    ) -> Result<Vec<[u8; MAC_BYTES]>, HsmError> {
        self.in_chunks("mac", messages, move |operator, chunk| operator.mac(key, chunk)).await
    }

    /// HMAC-SHA-256 of each item's message under each of `keys`, and what `look_up` then asks to have opened, in one wait:
    /// it is given the items with their MACs, in order, on a thread of the HSM's, and answers each. Order is kept; what
    /// it asked for comes with its answer, and is `None` in there if it does not verify.
    ///
    /// # Errors
    /// [`HsmError`] if the token cannot be used or holds no such key. It is counted as one of the MACs.
    pub async fn mac_then_open<T, R>(
        &self,
        keys: Vec<KeyName>,
        items: Vec<(Zeroizing<Vec<u8>>, T)>,
        look_up: impl Fn(Vec<(T, Vec<[u8; MAC_BYTES]>)>) -> Vec<(R, Option<OpenRequest>)> + Clone + Send + 'static,
    ) -> Result<Vec<(R, Option<Opened>)>, HsmError>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let (macs, calls_each) = (items.len() * keys.len(), keys.len() + 1);
        let visit = move |worker: &mut Worker, chunk: Vec<(_, T)>| {
            let (messages, items): (Vec<_>, Vec<_>) = chunk.into_iter().unzip();
            let under =
                |operator: &Operator<'_>| keys.iter().map(|key| operator.mac(*key, &messages)).collect();
            let macs: Vec<Vec<_>> = worker.run("mac", &under)?;
            let of = |place: usize| macs.iter().filter_map(|macs| macs.get(place).copied()).collect();
            let items = items.into_iter().enumerate().map(|(place, item)| (item, of(place))).collect();
            // Between two calls, not during one: the time that the store takes is not the token's.
            let (answers, asked): (Vec<_>, Vec<_>) = look_up(items).into_iter().unzip();
            let is_asked: Vec<_> = asked.iter().map(Option::is_some).collect();
            let asked: Vec<_> = asked.into_iter().flatten().collect();
            let mut opened = Vec::new();
            if !asked.is_empty() {
                opened = worker.run("open", &|operator: &Operator<'_>| operator.open(&asked))?;
            }
            let mut opened = opened.into_iter();
            let opened = is_asked.into_iter().map(|is_asked| is_asked.then(|| opened.next().flatten()));
            Ok(answers.into_iter().zip(opened).collect())
        };
        let result = self.over_the_sessions(items, calls_each, visit).await;
        let stats = self.inner.link.stats();
        stats.told("mac", macs, &result);
        if let Ok(answers) = &result {
            stats.told("open", answers.iter().filter(|(_, opened)| opened.is_some()).count(), &result);
        }
        result
    }

    /// An RS256 signature over `message` by the signing key `key`.
    ///
    /// # Errors
    /// [`HsmError`] if the token cannot be used or holds no such key.
    pub async fn sign(&self, key: KeyName, message: Vec<u8>) -> Result<Vec<u8>, HsmError> {
        self.once("sign", move |operator| operator.sign(key, &message)).await
    }

    /// Fills `out` with bytes of the token's random number generator.
    ///
    /// # Errors
    /// [`HsmError`] if the token cannot be used.
    pub async fn random(&self, out: &mut [u8]) -> Result<(), HsmError> {
        while !self.inner.random.take(out) {
            let bytes = REFILL_BYTES.max(out.len());
            let fresh = self.once("random", move |operator| {
                let mut fresh = Zeroizing::new(vec![0; bytes]);
                operator.random(&mut fresh)?;
                Ok(fresh)
            });
            self.inner.random.add(&fresh.await?);
        }
        Ok(())
    }

    /// Whether the token answers now.
    ///
    /// # Errors
    /// Why it does not.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the bare method is not general over lifetimes"
    )]
    pub async fn probe(&self) -> Result<(), HsmError> {
        self.once("probe", |operator| operator.prove()).await
    }

    /// Ends the workers after the work that is queued, and finalizes the module. Blocks.
    pub fn close(&self) {
        if self.inner.crew.stop(&self.inner.queue) {
            self.inner.link.finalize();
        } else {
            // C_Finalize while another thread is in the module is undefined (PKCS #11 v3.1, 5.4.2).
            tracing::error!("an HSM call does not come back; the process ends without it");
        }
    }

    /// How many operations may wait for a session.
    pub fn room(&self) -> usize {
        self.inner.queue.capacity().unwrap_or(usize::MAX)
    }

    /// Writes how much was done, and how the HSM stands.
    pub fn write_metrics(&self, page: &mut Page) {
        let Inner { link, queue, crew, sessions, .. } = &*self.inner;
        let (written_off, most_written_off) = crew.written_off();
        let now = Snapshot {
            state: link.state(),
            sessions: *sessions,
            written_off,
            most_written_off,
            queued: queue.len(),
            most_queued: queue.capacity().unwrap_or(0),
        };
        link.stats().write(page, &now);
    }

    /// One operation, counted under `name`.
    async fn once<R: Send + 'static>(
        &self,
        name: &'static str,
        operation: impl Fn(&Operator<'_>) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R, HsmError> {
        let result = match self.submit(move |worker| worker.run(name, &operation)) {
            Ok(answer) => self.answer(answer).await,
            Err(error) => Err(error),
        };
        self.inner.link.stats().told(name, 1, &result);
        result
    }

    /// A batch of operations, counted under `name`.
    async fn in_chunks<T, R>(
        &self,
        name: &'static str,
        items: Vec<T>,
        operation: impl Fn(&Operator<'_>, &[T]) -> Result<Vec<R>, Fault> + Clone + Send + 'static,
    ) -> Result<Vec<R>, HsmError>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let count = items.len();
        let work = move |worker: &mut Worker, chunk: Vec<T>| {
            worker.run(name, &|operator: &Operator<'_>| operation(operator, &chunk))
        };
        let result = self.over_the_sessions(items, 1, work).await;
        self.inner.link.stats().told(name, count, &result);
        result
    }

    /// Splits a batch over the sessions and puts the answers together again. An item takes as many as `calls_each`.
    async fn over_the_sessions<T, R>(
        &self,
        mut items: Vec<T>,
        calls_each: usize,
        work: impl Fn(&mut Worker, Vec<T>) -> Result<Vec<R>, HsmError> + Clone + Send + 'static,
    ) -> Result<Vec<R>, HsmError>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let size = items.len().div_ceil(self.inner.sessions).clamp(1, (MAX_CHUNK_CALLS / calls_each).max(1));
        let mut answers = Vec::with_capacity(items.len().div_ceil(size));
        while !items.is_empty() {
            let rest = items.split_off(size.min(items.len()));
            let chunk = std::mem::replace(&mut items, rest);
            let work = work.clone();
            answers.push(self.submit(move |worker| work(worker, chunk))?);
        }
        let mut results = Vec::new();
        for answer in answers {
            results.append(&mut self.answer(answer).await?);
        }
        Ok(results)
    }

    fn submit<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> Result<R, HsmError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<R, HsmError>>, HsmError> {
        self.inner.link.admits()?;
        let (answer, receiver) = oneshot::channel();
        let job = Job::Run(Box::new(move |worker| {
            // Whoever gave up waiting does not want the work done either.
            if !answer.is_closed() {
                let _ = answer.send(work(worker));
            }
        }));
        match self.inner.queue.try_send(job) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(HsmError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(HsmError::Unavailable("shut down".to_owned())),
        }
    }

    async fn answer<R>(&self, receiver: oneshot::Receiver<Result<R, HsmError>>) -> Result<R, HsmError> {
        match tokio::time::timeout(self.inner.call_timeout, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(HsmError::Unavailable("an HSM thread ended".to_owned())),
            Err(_) => Err(HsmError::TimedOut),
        }
    }
}
