//! `vaultd serve`: the production entry point. Reads as the order in which the vault comes up and goes down.

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    CommandError,
    boot::{hsm_settings, key_objections, module_environment, open_audit, open_store, recorded_keys},
    issuers, logging, peers,
};
use crate::{
    audit::AuditDir,
    auth::{Authenticator, Login},
    config::{Config, Limits},
    hsm::Hsm,
    http::{App, BoundSocket, Door, Server, jwk_set},
    jose::{KeySet, Signer},
    sandbox::{harden, ignore_hangups, inherited_sockets, raise_open_files},
    store::Store,
    vault::Vault,
};

/// Descriptors that are not connections: store, module, sockets, event queues, and some to spare.
const OTHER_FILES: usize = 64;

/// Serves the vault that the file at `path` describes until SIGTERM or SIGINT.
///
/// # Errors
/// [`CommandError`] if it cannot come up.
pub fn serve(path: &Path) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    logging::start(&config.log_filter);
    run(&config)
}

/// The work of [`serve`] on a configuration that is loaded.
pub(super) fn run(config: &Config) -> Result<(), CommandError> {
    let restricted = harden().and_then(|()| ignore_hangups());
    restricted.map_err(|error| CommandError::new("cannot restrict the process", error))?;
    let limits = limits(config)?;
    module_environment(config)?;
    let sockets = Sockets::open(config)?;
    let settings = hsm_settings(config)?;
    let engines = Engines::open(config, Hsm::open(&settings)?)?;
    let runtime = runtime(config)?;
    let served = runtime.block_on(until_stopped(config, &limits, sockets, &engines));
    // Requests have ended; what they changed is committed before the process ends.
    drop(runtime);
    drop(engines);
    served
}

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
    fn open(config: &Config) -> Result<Self, CommandError> {
        let inherited = inherited_sockets().map_err(|error| CommandError::new("socket activation", error))?;
        let open = |inherited: Option<_>, place| match inherited {
            Some(listener) => Ok(BoundSocket::inherited(listener)),
            None => BoundSocket::bind(place),
        };
        Ok(Self {
            api: open(inherited.api, &config.server.socket)?,
            admin: open(inherited.admin, &config.server.admin_socket)?,
        })
    }
}

/// The engines, closed in order however the daemon ends.
struct Engines {
    hsm: Hsm,
    store: Option<Store>,
    audit: Option<AuditDir>,
}

impl Engines {
    fn open(config: &Config, hsm: Hsm) -> Result<Self, CommandError> {
        let mut engines = Self { hsm, store: None, audit: None };
        let store = engines.store.insert(open_store(config)?);
        let objections = key_objections(&engines.hsm, store)?;
        if !objections.is_empty() {
            return Err(CommandError::Failed(objections.join("; ")));
        }
        let recorded = recorded_keys(engines.hsm.keys(), store)?;
        engines.hsm.hold_to(recorded, store.vault_id().to_vec());
        engines.audit = Some(open_audit(config)?);
        Ok(engines)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            store.close();
        }
        self.hsm.close();
    }
}

fn runtime(config: &Config) -> Result<tokio::runtime::Runtime, CommandError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("http");
    // Measured: the HSM's threads and the store's writer want the other half; more threads here only wake each other.
    let half = || std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
    builder.worker_threads(config.server.workers.unwrap_or_else(half));
    builder.build().map_err(|error| CommandError::new("cannot start threads", error))
}

async fn until_stopped(
    config: &Config,
    limits: &Limits,
    sockets: Sockets,
    engines: &Engines,
) -> Result<(), CommandError> {
    let (Some(store), Some(audit)) = (&engines.store, &engines.audit) else {
        return Err(CommandError::Failed("the store or the audit log is not open".to_owned()));
    };
    let hsm = &engines.hsm;
    let own_keys = Signer::own_keys(hsm);
    let own_keys = own_keys.map_err(|error| CommandError::new("the vault's own signing key", error))?;
    let (templates, envelopes) = (config.templates.clone(), config.envelopes.clone());
    let signer = Signer::new(hsm.clone())?;
    let (trusted, watch) = issuers::load(config, &own_keys)?;
    let vault =
        Vault::new(hsm.clone(), store.clone(), templates, envelopes, signer.clone(), own_keys.clone())?;
    let auth = Arc::new(Authenticator::new(config.auth.clone(), trusted, watch, store.clone()));
    let login = Arc::new(Login::new(
        signer,
        config.self_issuer.name.clone(),
        config.auth.audience.clone(),
        peers::resolve(config)?,
    ));
    let mut boot_id = [0; 4];
    hsm.random(&mut boot_id).await?;
    let key_set = serde_json::to_vec(&jwk_set(hsm.keys())).unwrap_or_default().into();
    let app = App::new(
        vault.clone(),
        Arc::clone(&auth),
        Arc::clone(&login),
        audit.clone(),
        limits.clone(),
        key_set,
        u32::from_be_bytes(boot_id),
    );

    let mut signals = Signals::new()?;
    let doors = vec![
        Door {
            socket: sockets.api,
            router: app.api_router(),
            asks_for_process: {
                let login = Arc::clone(&login);
                Box::new(move || login.asks_for_units())
            },
        },
        Door { socket: sockets.admin, router: app.admin_router(), asks_for_process: Box::new(|| false) },
    ];
    let server = Server::serve(doors, limits)
        .map_err(|error| CommandError::new("cannot listen on the sockets", error))?;
    let sweeper = tokio::spawn(sweep(vault, config.clone()));
    let watcher = tokio::spawn(watch_issuers(Arc::clone(&auth)));
    announce(config);

    while signals.reload_or_stop().await == Wish::Reload {
        reload(config, &own_keys, &auth, &login);
    }
    tracing::info!("stopping: requests that have begun are ended");
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    sweeper.abort();
    watcher.abort();
    server.stop().await;
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

/// Reads issuers and peers anew. If anything is wrong, the last good ones stay.
fn reload(config: &Config, own_keys: &KeySet, auth: &Authenticator, login: &Login) {
    let loaded = Config::load(&config.path).map_err(CommandError::from);
    match loaded.and_then(|fresh| Ok((issuers::load(&fresh, own_keys)?, peers::resolve(&fresh)?))) {
        Ok(((issuers, watch), rules)) => {
            tracing::info!(
                issuers = issuers.by_name.len(),
                peers = rules.len(),
                "reloaded issuers and peers"
            );
            auth.trust(issuers, watch);
            login.set_rules(rules);
        }
        Err(error) => tracing::error!(%error, "not reloaded: issuers and peers stay as they were"),
    }
}

async fn sweep(vault: Vault, config: Config) {
    let mut ticks = tokio::time::interval(config.store.sweep_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match vault.sweep(config.store.expired_grace).await {
            Ok(0) => {}
            Ok(tokens) => tracing::info!(tokens, "removed tokens that have ended"),
            Err(error) => tracing::error!(%error, "cannot remove tokens that have ended"),
        }
    }
}

/// Takes over changed key files of issuers without being told: a key that is removed must stop working.
async fn watch_issuers(auth: Arc<Authenticator>) {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        tokio::time::sleep(PAUSE).await;
        auth.refresh().await;
    }
}

#[derive(PartialEq, Eq)]
enum Wish {
    Reload,
    Stop,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, CommandError> {
        let listen =
            |kind| signal(kind).map_err(|error| CommandError::new("cannot listen for signals", error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn reload_or_stop(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}
