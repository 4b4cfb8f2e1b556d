//! The real server behind its real sockets, in the process of the fuzzer.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use vault_api::{Metadata, Reloaded, Sensitive};
use vaultd::{
    audit::Audit,
    auth::{ApprovalRules, Authenticator, Issuer, IssuerKeys, Issuers, Login, PeerRule, ScopeSet},
    card::Pan,
    config::{Limits, SocketPlace},
    guards::Guards,
    http::{App, BoundSocket, Callers, Door, Server as Http},
    vault::{Keys, NewCard, Vault},
};

use crate::world::{scratch, world};

/// Whoever waits so long waits for ever.
const HANG: Duration = Duration::from_secs(20);
/// Old parts of the audit log are removed after so many connections.
const TIDY_EVERY: usize = 1_000;
pub(crate) const PAN: &str = "4000056655665556";
pub(crate) const TENANT: &str = "north";

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Api,
    Admin,
}

/// A server that runs until the process ends.
pub(crate) struct Server {
    dir: TempDir,
    runtime: Runtime,
    vault: Vault,
    connections: AtomicUsize,
    _http: Http,
}

impl Server {
    /// A server; local services may log in if `logs_in`. `limits` are its own, changed.
    pub(crate) fn start(logs_in: bool, change: impl FnOnce(&mut Limits)) -> Self {
        let dir = scratch("server");
        // As in the daemon, others work beside whoever calls.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut limits = world().config.limits.clone();
        limits.connections = 10_000;
        limits.connections_per_uid = 10_000;
        change(&mut limits);
        let (vault, server) = runtime.block_on(serve(dir.path(), logs_in, &limits));
        let connections = AtomicUsize::new(0);
        Self { dir, runtime, vault, connections, _http: server }
    }

    /// The token of [`PAN`], which is made anew if somebody has removed it.
    pub(crate) fn token(&self) -> String {
        let card = NewCard {
            pan: Pan::parse(PAN).expect("a card number"),
            template: None,
            holder: Some(Sensitive::from("Ada Lovelace")),
            expiry: None,
            expires_in_s: None,
            metadata: Metadata::default(),
        };
        let made = self.runtime.block_on(self.vault.tokenize(TENANT, vec![card])).pop().expect("an answer");
        made.unwrap_or_else(|error| panic!("{error}")).token.to_string()
    }

    /// Sends `pieces` on a connection of its own and gives all that comes back until the server closes it.
    pub(crate) fn talk<'p>(&self, via: Via, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<u8> {
        if self.connections.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.tidy();
        }
        let mut stream = UnixStream::connect(socket(self.dir.path(), via)).expect("the server listens");
        stream.set_read_timeout(Some(HANG)).expect("a stream has timeouts");
        stream.set_write_timeout(Some(HANG)).expect("a stream has timeouts");
        for piece in pieces {
            match stream.write_all(piece) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server reads no more"),
                // It has said what it had to say.
                Err(_) => break,
                Ok(()) => {}
            }
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server does not answer"),
            _ => answer,
        }
    }

    /// Removes expired records and all of the audit log but what is written to.
    fn tidy(&self) {
        self.runtime.block_on(self.vault.sweep(vaultd::vault::now_s(), |_| {})).expect("the store is swept");
        let files = fs::read_dir(audit_dir(self.dir.path())).expect("the log is there");
        let mut parts: Vec<_> =
            files.flatten().map(|file| file.path()).filter(|path| is_part(path)).collect();
        parts.sort();
        parts.pop();
        for part in parts {
            let _ = fs::remove_file(part);
        }
    }
}

fn is_part(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("audit-"))
}

fn socket(dir: &Path, via: Via) -> PathBuf {
    dir.join(match via {
        Via::Api => "vaultd.sock",
        Via::Admin => "admin.sock",
    })
}

fn audit_dir(dir: &Path) -> PathBuf {
    dir.join("audit")
}

async fn serve(dir: &Path, logs_in: bool, limits: &Limits) -> (Vault, Http) {
    let world = world();
    let (config, hsm) = (&world.config, &world.hsm);
    let store = world.new_store(dir).await;
    let mut settings = config.audit.clone();
    settings.dir = audit_dir(dir);
    settings.rotation.bytes = 1 << 20;
    fs::create_dir(&settings.dir).expect("a place for the log");
    let audit = Audit::open(settings, &store.vault_id(), None).expect("a new log");
    let keys =
        Keys::new(hsm.clone(), store.clone(), audit.clone(), config.keys.clone()).expect("the keys serve");
    let signer = keys.signer().clone();
    let vault = Vault::new(keys, config.templates.clone(), config.envelopes.clone(), config.rewrap_pace);
    let own = Issuer {
        keys: IssuerKeys::Own(signer.clone()),
        max_lifetime_s: u64::MAX,
        older_until_s: 0,
        scopes: ScopeSet::all(),
        tenants: None,
    };
    let issuers = Issuers { by_name: [(config.self_issuer.name.clone(), own)].into() };
    let auth = Authenticator::new(config.auth.clone(), issuers, Box::new(|| None), store.clone());
    let rule = PeerRule {
        name: "fuzzer".to_owned(),
        tenant: Some(TENANT.to_owned()),
        scopes: ScopeSet::all(),
        max_lifetime_s: 86_400,
        ..PeerRule::default()
    };
    let rules = if logs_in { vec![rule] } else { Vec::new() };
    let login = Login::new(signer, config.self_issuer.name.clone(), config.auth.audience.clone(), rules);
    let callers = Callers {
        auth: Arc::new(auth),
        login: Arc::new(login),
        guards: Guards::open(config.guards.clone(), store).expect("the store is read"),
        // What would fill the token with keys.
        approvals: ApprovalRules {
            operations: vec!["keys.rotate", "keys.destroy", "detokenize.batch"],
            max_age_s: 60,
            free_batch_items: 1,
        },
    };
    let reload = Box::new(|| Ok(Reloaded { issuers: 1, peers: 1 }));
    let app = App::new(vault.clone(), callers, audit, limits.clone(), reload, 7);
    let door = |name, via, endpoints| {
        let place = SocketPlace { path: socket(dir, via), mode: 0o600, group: None };
        let socket = BoundSocket::bind(&place, None).expect("the socket is free");
        Door { name, asks_for_process: Box::new(|| false), socket, endpoints }
    };
    let doors =
        vec![door("api", Via::Api, app.api_endpoints()), door("admin", Via::Admin, app.admin_endpoints())];
    (vault, Http::serve(doors, limits).expect("the server serves"))
}
