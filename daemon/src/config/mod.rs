//! The configuration: parsed, then validated, every error at once and each with its line.
//!
//! The door is [`Config::load`]. `raw` is the file as TOML and as JSON Schema; `validate` turns it into types that
//! cannot be wrong. Secrets are never in it: the PIN is in a file of its own. Whether the files it names exist and
//! may be used is not asked here but at start-up.

mod approvals;
mod audit;
mod guards;
mod hsm;
mod issuers;
mod keys;
mod parse;
mod peers;
mod raw;
mod sandbox;
mod templates;
mod validate;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

pub use raw::{LogFormat, schema};
pub use sandbox::{Sandbox, Seccomp};
pub use validate::MAX_SOCKET_PATH_BYTES;

use crate::{
    audit::Settings as AuditSettings,
    auth::{self, ScopeSet},
    guards::GuardRules,
    hsm::{Library, TokenSelector},
    vault::{EnvelopeRules, KeyRules, Templates},
};

/// A configuration that is valid in itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Sockets and threads.
    pub server: Server,
    /// What one caller may ask of the daemon.
    pub limits: Limits,
    /// How many cards callers may take.
    pub guards: GuardRules,
    /// What needs a second person.
    pub approvals: auth::ApprovalRules,
    /// The PKCS#11 token.
    pub hsm: Hsm,
    /// How long keys live, and what ends them.
    pub keys: KeyRules,
    /// How long a record that is rewrapped takes, so that callers do not feel it.
    pub rewrap_pace: Duration,
    /// The store.
    pub store: Store,
    /// The audit log.
    pub audit: AuditSettings,
    /// Rules for JWTs.
    pub auth: auth::Settings,
    /// The vault as an issuer of JWTs.
    pub self_issuer: SelfIssuer,
    /// Issuers whose JWTs are accepted.
    pub issuers: Vec<Issuer>,
    /// Local services that may log in.
    pub peers: Vec<Peer>,
    /// How envelopes are made.
    pub envelopes: EnvelopeRules,
    /// Templates of tokens.
    pub templates: Templates,
    /// How the daemon is confined.
    pub sandbox: Sandbox,
    /// What is logged, and how.
    pub log: Log,
    /// What is accepted and was hardly meant, with what to change: a line each.
    pub warnings: Vec<String>,
    lines: parse::Lines,
}

/// `[server]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// The API's socket.
    pub socket: SocketPlace,
    /// The socket of health and administration.
    pub admin_socket: SocketPlace,
    /// Threads that serve requests; half as many as there are processors if `None`.
    pub workers: Option<usize>,
}

/// Where a socket is and who may connect.
#[derive(Clone, Debug)]
pub struct SocketPlace {
    /// Its path.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// The group that owns it, if not the daemon's own.
    pub group: Option<String>,
}

/// `[limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request body.
    pub body_bytes: usize,
    /// The largest request head.
    pub header_bytes: usize,
    /// The most header fields.
    pub headers: usize,
    /// The most items in a batch.
    pub batch_items: usize,
    /// How long a request head may take to arrive, and how long a connection may be idle.
    pub header_timeout: Duration,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
    /// How long the vault may work on a request, the arrival of its body included.
    pub request_timeout: Duration,
    /// How long a caller may leave an answer unread.
    pub answer_timeout: Duration,
    /// The most open connections.
    pub connections: usize,
    /// The most open connections of one user id.
    pub connections_per_uid: usize,
    /// The most requests a second of one tenant; any number if `None`.
    pub requests_per_second_per_tenant: Option<u32>,
    /// How long requests may take to end once the daemon is told to stop.
    pub shutdown_grace: Duration,
}

/// `[hsm]`.
#[derive(Clone, Debug)]
pub struct Hsm {
    /// The PKCS#11 module.
    pub library: Library,
    /// Which token.
    pub token: TokenSelector,
    /// The file that holds the user PIN, if the token does not ask for it itself.
    pub pin_file: Option<PathBuf>,
    /// What the labels of the vault's keys start with.
    pub key_prefix: String,
    /// Sessions, and threads, to run.
    pub sessions: usize,
    /// Operations that may wait.
    pub queue: usize,
    /// How long a caller waits for an operation, and the longest that a call may last.
    pub call_timeout: Duration,
    /// How many threads whose call lasts longer are replaced.
    pub max_written_off: usize,
    /// Environment variables the module reads.
    pub environment: BTreeMap<String, String>,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its directory.
    pub dir: PathBuf,
    /// Bytes of page cache.
    pub cache_bytes: usize,
    /// Changes that may wait.
    pub queue: usize,
    /// From which size of its file in bytes it opens at once after a crash.
    pub quick_recovery_bytes: u64,
    /// How often tokens that ended are looked for.
    pub sweep_interval: Duration,
    /// How long a token that ended is kept, to say "expired" rather than "unknown".
    pub expired_grace: Duration,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// What is logged, in the syntax of `tracing`'s filters.
    pub level: String,
    /// In which form.
    pub format: LogFormat,
}

/// The vault as an issuer.
#[derive(Clone, Debug)]
pub struct SelfIssuer {
    /// Its `iss`.
    pub name: String,
    /// The longest lifetime of its JWTs, in seconds.
    pub max_lifetime_s: u64,
}

/// `[[auth.issuers]]`.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its `iss`.
    pub name: String,
    /// PEM file or JWK set with its public keys.
    pub keys: PathBuf,
    /// The longest lifetime of its JWTs, in seconds.
    pub max_lifetime_s: u64,
    /// The scopes it may give.
    pub scopes: ScopeSet,
    /// The tenants it may speak for; any if `None`.
    pub tenants: Option<Vec<String>>,
}

/// `[[auth.peers]]`: the rule, and the names that the system's user database is still to be asked for.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The rule, without the ids of named users and groups.
    pub rule: auth::PeerRule,
    /// Name of its user.
    pub user: Option<String>,
    /// Name of its group.
    pub group: Option<String>,
}

/// Everything that is wrong with a configuration file.
#[derive(Debug)]
pub struct ConfigErrors {
    path: PathBuf,
    errors: Vec<ConfigError>,
}

/// One thing that is wrong: where, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line in the file, counted from 1; `None` if the file cannot be read.
    pub line: Option<usize>,
    /// The key, with its tables; empty for an error in the TOML itself.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let failed = |errors| ConfigErrors { path: path.to_owned(), errors };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot be read: {error}");
            failed(vec![ConfigError { line: None, key: String::new(), message }])
        })?;
        let mut config = Self::parse(path, &text)?;
        // Its directory is what is needed to read it again.
        config.path = std::path::absolute(path).unwrap_or(config.path);
        Ok(config)
    }

    /// What is wrong with `key`, which only the system can tell.
    pub fn objection(&self, key: &str, message: String) -> ConfigErrors {
        let (line, key) = (Some(self.lines.of(key)), key.to_owned());
        ConfigErrors { path: self.path.clone(), errors: vec![ConfigError { line, key, message }] }
    }

    /// Validates `text` as if it were the file at `path`; nothing is read.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        parse::parse(text)
            .and_then(|(raw, document)| validate::validate(path, raw, document))
            .map_err(|errors| ConfigErrors { path: path.to_owned(), errors })
    }
}

impl ConfigErrors {
    /// The errors, by line.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl fmt::Display for ConfigErrors {
    /// One line for each: file, line, key, message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.errors.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.path.display())?;
            if let Some(line) = error.line {
                write!(f, "{line}:")?;
            }
            if !error.key.is_empty() {
                write!(f, " {}:", error.key)?;
            }
            write!(f, " {}", error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
