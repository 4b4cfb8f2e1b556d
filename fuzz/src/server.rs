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

use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use vault_api::{Metadata, Reloaded, Sensitive};
use vaultd::{
    audit::Audit,
    auth::{
        ApprovalRules, Authenticator, Issuer, IssuerKeys, Issuers, Login, PeerRule, ScopeSet, approval_digest,
    },
    card::Pan,
    config::{Limits, SocketPlace},
    guards::Guards,
    http::{App, BoundSocket, Callers, Door, Server as Http},
    vault::{Keys, NewCard, Vault, now_s},
};

use crate::{
    issuer::Signer,
    world::{scratch, world},
};

/// Whoever waits so long waits for ever.
const HANG: Duration = Duration::from_secs(20);
/// Old parts of the audit log are removed after so many connections.
const TIDY_EVERY: usize = 1_000;
/// More new keys than these are approved to nobody: they would fill the token.
const MOST_ROTATIONS: usize = 10;
/// A second person, who approves whatever is asked.
const SECOND: &str = "second";
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
    second: Signer,
    connections: AtomicUsize,
    approvals: AtomicUsize,
    rotations: AtomicUsize,
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
        let (second, issuer) = Signer::new();
        let (vault, server) = runtime.block_on(serve(dir.path(), logs_in, issuer, &limits));
        let [connections, approvals, rotations] = [const { AtomicUsize::new(0) }; 3];
        Self { dir, runtime, vault, second, connections, approvals, rotations, _http: server }
    }

    /// The second person's approval of a request that begins with `line`, a method and a target.
    pub(crate) fn approval(&self, line: &str, body: &str) -> String {
        let (method, target) = line.split_once(' ').unwrap_or((line, ""));
        if target.contains("/rotate") && self.rotations.fetch_add(1, Ordering::Relaxed) >= MOST_ROTATIONS {
            return String::new();
        }
        let (number, now_s) = (self.approvals.fetch_add(1, Ordering::Relaxed), now_s());
        let claims = json!({
            "iss": SECOND,
            "sub": SECOND,
            "aud": world().config.auth.audience,
            "iat": now_s,
            "exp": now_s + 1,
            "tenant": TENANT,
            "scope": "approve",
            "jti": number.to_string(),
            "approves": approval_digest(method, target, body.as_bytes()),
        });
        self.second.sign(br#"{"alg":"RS256","kid":"k"}"#, claims.to_string().as_bytes())
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
        self.runtime.block_on(self.vault.sweep(now_s(), |_| {})).expect("the store is swept");
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

async fn serve(dir: &Path, logs_in: bool, second: Issuer, limits: &Limits) -> (Vault, Http) {
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
    let issuers =
        Issuers { by_name: [(config.self_issuer.name.clone(), own), (SECOND.to_owned(), second)].into() };
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
        approvals: ApprovalRules {
            operations: vec!["keys.rotate", "keys.destroy", "detokenize.batch"],
            max_age_s: 60,
            free_batch_items: 3,
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
