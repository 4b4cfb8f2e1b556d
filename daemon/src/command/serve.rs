//! `vaultd serve`: the production entry point. Reads as the order in which the vault comes up and goes down.

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::task::JoinSet;

use super::{
    CommandError,
    boot::{
        hsm_settings, identity, key_objections, module_environment, one_thread, open_audit, open_store,
        recorded_keys, unfinished_keys,
    },
    confinement::confinement,
    deadline::Deadline,
    issuers, logging,
    peers::{self, Names},
    reload::Reloader,
    signals::{Signals, Wish},
    tasks::{keep_keys, sweep, tidy_guards, watch_issuers},
    watchdog::Watchdog,
};
use crate::{
    audit::{Audit, Event},
    auth::{Authenticator, Login},
    config::{Config, Limits},
    guards::Guards,
    hsm::Hsm,
    http::{App, BoundSocket, Callers, Door, Server, SocketError},
    sandbox::{
        Identity, allow_locked_memory, confine, drop_privileges, harden, ignore_hangups, inherited_sockets,
        lock_memory, raise_open_files, refuse_root,
    },
    store::Store,
    vault::{Keys, Notary, Vault, finish_key_changes},
};

/// Descriptors that are not connections: store, module, sockets, event queues, and some to spare.
const OTHER_FILES: usize = 64;
/// Threads at most that wait for files: keys, the audit log, the configuration.
const FILE_THREADS: usize = 16;

/// How long the HSM has for the login and the keys at the start, and the system for the threads.
const START_TIME: Duration = Duration::from_mins(2);
/// How long the end may take beside what requests that have begun and the HSM are given. The unit's `TimeoutStopSec` is more.
const STOP_TIME: Duration = Duration::from_secs(3);

/// Serves the vault that the file at `path` describes until SIGTERM or SIGINT; as `user`, if it is started as root.
///
/// # Errors
/// [`CommandError`] if it cannot come up.
pub fn serve(path: &Path, user: Option<&str>) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    logging::start(&config.log);
    let identity = user.map(identity).transpose()?;
    run_with(&config, identity.as_ref(), open_audit)
}

/// [`serve`] without an audit log, to measure what the log costs. The `vaultd` program has no way to it.
///
/// # Errors
/// [`CommandError`] if it cannot come up.
pub fn serve_unaudited(path: &Path) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    logging::start(&config.log);
    run_with(&config, None, |config, store| Ok(Audit::unkept(config.audit.clone(), &store.vault_id())))
}

/// The work of [`serve`] on a configuration that is loaded.
pub(super) fn run(config: &Config) -> Result<(), CommandError> {
    run_with(config, None, open_audit)
}

fn run_with(config: &Config, identity: Option<&Identity>, open_audit: OpenAudit) -> Result<(), CommandError> {
    for why in &config.warnings {
        tracing::warn!(why, "the configuration contradicts itself");
    }
    let restricted = harden().and_then(|()| ignore_hangups());
    restricted.map_err(|error| CommandError::new("cannot restrict the process", error))?;
    // Before it leaves anything behind.
    refuse_root(identity, config.sandbox.allow_root)?;
    let limits = limits(config)?;
    module_environment(config)?;
    let sockets = Sockets::open(config, identity.map(Identity::ids))?;
    give_up(config, identity)?;
    // From here on there may be threads.
    let deadline = Deadline::new().map_err(|error| CommandError::new("cannot start threads", error))?;
    let engines = Engines::open(config, open_audit, &deadline)?;
    deadline.set("the start of threads", START_TIME);
    let runtime = runtime(config)?;
    deadline.lift();
    let served = runtime.block_on(until_stopped(config, &limits, sockets, &engines, &deadline));
    if served.is_err() {
        stop_by(config, &deadline);
    }
    // Requests that have not ended by now are cut off, which they tell the audit log; what they changed is committed
    // before the process ends.
    drop(runtime);
    let ended = served.and_then(|(app, notary)| {
        app.tell_refusals();
        sign_off(&notary, &engines)
    });
    drop(engines);
    ended
}

/// Has the process end soon, whatever does not come back.
fn stop_by(config: &Config, deadline: &Deadline) {
    deadline.set("stopping", config.limits.shutdown_grace + config.hsm.call_timeout + STOP_TIME);
}

/// Gives up all that serving does not need, before the module is loaded: what its vendor wrote never runs with more.
fn give_up(config: &Config, identity: Option<&Identity>) -> Result<(), CommandError> {
    allow_locked_memory();
    drop_privileges(identity, config.sandbox.allow_root)?;
    if let Err(why) = lock_memory() {
        tracing::warn!(why, "memory is not locked: card data may be swapped to disk");
    }
    Ok(confine(&confinement(config))?)
}

/// How the audit log is opened.
pub(super) type OpenAudit = fn(&Config, &Store) -> Result<Audit, CommandError>;

/// The configured limits, as far as the system has file descriptors for them.
fn limits(config: &Config) -> Result<Limits, CommandError> {
    let mut limits = config.limits.clone();
    let open_files = raise_open_files()
        .map_err(|error| CommandError::new("cannot raise the limit of open files", error))?;
    let per_door = usize::try_from(open_files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES) / 2;
    if limits.connections > per_door {
        tracing::warn!(
            open_files,
            connections = per_door,
            "fewer connections than limits.max_connections fit the limit of open files: raise LimitNOFILE"
        );
        limits.connections = per_door;
    }
    Ok(limits)
}

/// The sockets, opened or inherited from systemd.
struct Sockets {
    api: BoundSocket,
    admin: BoundSocket,
}

impl Sockets {
    fn open(config: &Config, owner: Option<(u32, u32)>) -> Result<Self, CommandError> {
        let inherited = inherited_sockets(&config.server.admin_socket.path)
            .map_err(|error| CommandError::new("socket activation", error))?;
        let open = |inherited: Option<_>, place| match inherited {
            Some(listener) => Ok(BoundSocket::inherited(listener)),
            None => BoundSocket::bind(place, owner).map_err(|error| match error {
                SocketError::NoGroup(_) => config.objection("server.socket_group", error.to_string()).into(),
                error => CommandError::from(error),
            }),
        };
        Ok(Self {
            api: open(inherited.api, &config.server.socket)?,
            admin: open(inherited.admin, &config.server.admin_socket)?,
        })
    }
}

/// The engines, closed in order however the daemon ends.
pub(super) struct Engines {
    pub(super) store: Store,
    pub(super) hsm: Option<Hsm>,
    pub(super) audit: Option<Audit>,
}

impl Engines {
    /// The store comes first: it knows which keys of the token are not finished.
    pub(super) fn open(
        config: &Config,
        open_audit: OpenAudit,
        deadline: &Deadline,
    ) -> Result<Self, CommandError> {
        let mut engines = Self { store: open_store(config)?, hsm: None, audit: None };
        let store = &engines.store;
        let settings = hsm_settings(config, unfinished_keys(store)?)?;
        // To the end of the process, if that is where it leads.
        deadline.set("the HSM's part of the start", START_TIME);
        let hsm = engines.hsm.insert(Hsm::open(&settings)?);
        let objections = key_objections(hsm, store)?;
        deadline.lift();
        if !objections.is_empty() {
            return Err(CommandError::Failed(objections.join("; ")));
        }
        hsm.hold_to(recorded_keys(store)?, store.vault_id().to_vec());
        engines.audit = Some(open_audit(config, store)?);
        Ok(engines)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.store.close();
        if let Some(hsm) = &self.hsm {
            hsm.close();
        }
        if let Some(audit) = &self.audit {
            audit.close();
        }
    }
}

fn runtime(config: &Config) -> Result<tokio::runtime::Runtime, CommandError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("http");
    // Measured: the HSM's threads and the store's writer want the other half; more threads here only wake each other.
    let half = || std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
    builder.worker_threads(config.server.workers.unwrap_or_else(half));
    // What waits for files needs a thread that is there: where the system gives none, tokio panics unless it has one.
    builder.max_blocking_threads(FILE_THREADS).thread_keep_alive(Duration::MAX);
    let runtime = builder.build().map_err(|error| CommandError::new("cannot start threads", error))?;
    runtime
        .block_on(runtime.spawn_blocking(|| ()))
        .map_err(|error| CommandError::new("cannot start threads", error))?;
    Ok(runtime)
}

async fn until_stopped(
    config: &Config,
    limits: &Limits,
    sockets: Sockets,
    engines: &Engines,
    deadline: &Deadline,
) -> Result<(App, Notary), CommandError> {
    let (Some(hsm), Some(audit)) = (&engines.hsm, &engines.audit) else {
        return Err(CommandError::Failed("the token or the audit log is not open".to_owned()));
    };
    let store = &engines.store;
    let version = Some(env!("CARGO_PKG_VERSION"));
    audit.event(&Event { event: "start", detail: version, ..Event::default() });
    finish_key_changes(hsm, store, &config.keys, audit).await?;
    let keys = Keys::new(hsm.clone(), store.clone(), audit.clone(), config.keys.clone())?;
    let notary = Notary::new(keys.clone(), audit.clone());
    let (trusted, watch) = issuers::load(config, &keys)?;
    let (templates, envelopes) = (config.templates.clone(), config.envelopes.clone());
    let vault = Vault::new(keys.clone(), templates, envelopes, config.rewrap_pace);
    vault.load_honey().await?;
    let auth = Arc::new(Authenticator::new(config.auth.clone(), trusted, watch, store.clone()));
    let rules = peers::resolve(config, None)?;
    let names = Names::of(config, &rules);
    let login = Arc::new(Login::new(
        keys.signer().clone(),
        config.self_issuer.name.clone(),
        config.auth.audience.clone(),
        rules,
    ));
    let guards = Guards::open(config.guards.clone(), store.clone())?;
    let mut boot_id = [0; 4];
    hsm.random(&mut boot_id).await?;
    let app = App::new(
        vault.clone(),
        Callers {
            auth: Arc::clone(&auth),
            login: Arc::clone(&login),
            guards: guards.clone(),
            approvals: config.approvals.clone(),
        },
        audit.clone(),
        limits.clone(),
        {
            let reloader =
                Reloader::new(config.clone(), names, keys.clone(), Arc::clone(&auth), login.clone());
            Box::new(move || reloader.reload())
        },
        u32::from_be_bytes(boot_id),
    );

    let mut signals = Signals::new()?;
    let knocked_at = [&sockets.api, &sockets.admin].into_iter().filter_map(BoundSocket::path).collect();
    let doors = vec![
        Door {
            name: "api",
            socket: sockets.api,
            endpoints: app.api_endpoints(),
            asks_for_process: {
                let login = Arc::clone(&login);
                Box::new(move || login.asks_for_units())
            },
        },
        Door {
            name: "admin",
            socket: sockets.admin,
            endpoints: app.admin_endpoints(),
            asks_for_process: Box::new(|| false),
        },
    ];
    guards.settle().await;
    let server = Server::serve(doors, limits)
        .map_err(|error| CommandError::new("cannot listen on the sockets", error))?;
    app.count_connections(&server);
    vault.resume_rewrap()?;
    tokio::spawn({
        let notary = notary.clone();
        async move { notary.serve().await }
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(sweep(vault, config.clone(), audit.clone()));
    tasks.spawn(watch_issuers(Arc::clone(&auth)));
    tasks.spawn(keep_keys(keys.clone()));
    tasks.spawn(tidy_guards(guards.clone()));
    tasks.spawn(Watchdog { doors: knocked_at, store: store.clone(), audit: audit.clone() }.serve());
    announce(config);

    reload_until_stopped(&mut signals, &app, audit).await;
    stop_by(config, deadline);
    tracing::info!("stopping: requests that have begun are ended");
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tasks.abort_all();
    audit.dismiss_readers();
    server.stop().await;
    if let Err(error) = guards.close().await {
        tracing::error!(%error, "what was counted of reveals is not written down: blocks of it count as used up");
    }
    Ok((app, notary))
}

/// Reads issuers and peers anew whenever a signal asks for it, until one asks for the end.
async fn reload_until_stopped(signals: &mut Signals, app: &App, audit: &Audit) {
    let mut wish = signals.next().await;
    while wish == Wish::Reload {
        let _ = NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]));
        let told = |detail| audit.event(&Event { event: "config.reload", detail, ..Event::default() });
        wish = tokio::select! {
            reloaded = app.reload() => {
                told(reloaded.is_err().then_some("failed: what was in force stays"));
                let _ = sd_notify::notify(&[NotifyState::Ready]);
                signals.next().await
            }
            // Heard though a file system hangs.
            wish = signals.next() => {
                told(Some("not waited for any more"));
                wish
            }
        };
    }
}

/// Has the end of the audit log signed, now that nobody writes to it any more.
fn sign_off(notary: &Notary, engines: &Engines) -> Result<(), CommandError> {
    if let Some(audit) = &engines.audit {
        audit.event(&Event { event: "stop", ..Event::default() });
    }
    if let Err(error) = one_thread()?.block_on(notary.finish()) {
        tracing::warn!(%error, "the end of the audit log is not signed");
    }
    Ok(())
}

/// Says that the vault accepts requests: to systemd, and on standard output for whoever waits for it.
fn announce(config: &Config) {
    let socket = config.server.socket.path.display();
    tracing::info!(%socket, "serving");
    let mut out = std::io::stdout().lock();
    // Whoever does not read this does not wait for it either.
    let _ = writeln!(out, "ready: serving on {socket}").and_then(|()| out.flush());
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}
