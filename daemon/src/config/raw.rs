//! The file as it is written. Everything is optional here: what must be there is for `validate` to say.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

/// vaultd's configuration (TOML). Unknown keys are refused.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "vaultd.toml")]
pub(super) struct Raw {
    pub(super) server: Server,
    pub(super) limits: Limits,
    pub(super) guards: super::guards::Guards,
    pub(super) approvals: super::approvals::Approvals,
    pub(super) hsm: Hsm,
    pub(super) keys: Keys,
    pub(super) store: Store,
    pub(super) audit: Audit,
    pub(super) auth: Auth,
    pub(super) tokens: Tokens,
    pub(super) envelopes: Envelopes,
    pub(super) sandbox: super::sandbox::Sandbox,
    pub(super) log: Log,
}

/// Sockets and threads.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Path of the API's socket. Required.
    pub(super) socket: Option<PathBuf>,
    /// Permission bits of the API's socket, octal in quotes. Default "0660".
    pub(super) socket_mode: Option<String>,
    /// Group that owns the API's socket. Default: the daemon's own.
    pub(super) socket_group: Option<String>,
    /// Path of the admin socket, always mode 0600. Required.
    pub(super) admin_socket: Option<PathBuf>,
    /// Threads that serve requests. Default: half as many as there are processors.
    pub(super) workers: Option<u64>,
}

/// What one caller may ask of the daemon.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// The largest request body, in bytes. Default 1048576.
    pub(super) max_body_bytes: Option<u64>,
    /// The largest request head, in bytes. Default 16384.
    pub(super) max_header_bytes: Option<u64>,
    /// The most header fields of a request. Default 64.
    pub(super) max_headers: Option<u64>,
    /// The most items of a batch, 1000 at most. Default 1000.
    pub(super) max_batch_items: Option<u64>,
    /// How long a request head may take to arrive and a connection may be idle. Default 30.
    pub(super) header_timeout_seconds: Option<u64>,
    /// How long a request body may take to arrive. Default 10.
    pub(super) body_timeout_seconds: Option<u64>,
    /// How long a request may take from its head to its answer. Default 30.
    pub(super) request_timeout_seconds: Option<u64>,
    /// How long a caller may leave an answer unread. Default 30.
    pub(super) answer_timeout_seconds: Option<u64>,
    /// The most open connections. Default 1024.
    pub(super) max_connections: Option<u64>,
    /// The most open connections of one user id. Default 512.
    pub(super) max_connections_per_uid: Option<u64>,
    /// The most requests a second of one tenant: more are 429 `rate_limited`. Default: any number.
    pub(super) max_requests_per_second_per_tenant: Option<u64>,
    /// How long requests may take to end once the daemon is told to stop. Default 20.
    pub(super) shutdown_grace_seconds: Option<u64>,
}

/// The PKCS#11 token that holds the keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Hsm {
    /// Path of the PKCS#11 module. Required.
    pub(super) module: Option<PathBuf>,
    /// Label of the token. This or `token_serial` is required.
    pub(super) token_label: Option<String>,
    /// Serial number of the token.
    pub(super) token_serial: Option<String>,
    /// File that holds the user PIN, readable by the daemon alone. `$CREDENTIALS_DIRECTORY/NAME` names a systemd
    /// credential. Left out: the token asks for the PIN by its own means (PIN pad), or wants none.
    pub(super) pin_file: Option<PathBuf>,
    /// What the labels of the vault's keys start with. Default "vaultd".
    pub(super) key_prefix: Option<String>,
    /// Sessions to open, each with a thread. Default 1, which suits software tokens; a network HSM wants many.
    pub(super) sessions: Option<u64>,
    /// Operations that may wait for a session. Default 4096.
    pub(super) queue: Option<u64>,
    /// How long a caller waits for an operation, and the longest that a call to the module may last. Default 5.
    pub(super) call_timeout_seconds: Option<u64>,
    /// Threads whose call lasts longer and that are replaced; more, and the HSM counts as unavailable until one comes
    /// back. Default 8.
    pub(super) max_written_off_threads: Option<u64>,
    /// Text that is passed to the module with `C_Initialize`. NSS softokn wants one; most modules want none.
    pub(super) init_parameters: Option<String>,
    /// Environment variables the module reads its own configuration from.
    pub(super) environment: BTreeMap<String, String>,
}

/// The life of keys. Rotation itself is asked for on the admin socket.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Keys {
    /// How long a key of each purpose is to be used, in days.
    pub(super) cryptoperiod_days: CryptoperiodDays,
    /// How many days before its end a key is warned of. Default 30.
    pub(super) warn_before_days: Option<u64>,
    /// The most encryptions under one key. Default and most 2147483648, half of what SP 800-38D allows.
    pub(super) max_encryptions: Option<u64>,
    /// What becomes of a key that nears its last encryption. Default `rotate`.
    pub(super) when_spent: WhenSpent,
    /// The most records a second that the rewrap job works on. Default 1000.
    pub(super) rewrap_records_per_second: Option<u64>,
}

/// Days by purpose.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CryptoperiodDays {
    /// Keys that seal records. Default 365.
    pub(super) record: Option<u64>,
    /// Keys that fingerprint PANs. Default 1095.
    pub(super) fingerprint: Option<u64>,
    /// Keys that hash holders. Default 1095.
    pub(super) holder: Option<u64>,
    /// Keys that seal envelopes. Default 365.
    pub(super) envelope: Option<u64>,
    /// Keys that sign JWTs. Default 365.
    pub(super) jwt: Option<u64>,
    /// Keys that sign the audit log. Default 1095.
    pub(super) audit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum WhenSpent {
    #[default]
    Rotate,
    Refuse,
}

/// The token store.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Store {
    /// Its directory, mode 0700. Required.
    pub(super) dir: Option<PathBuf>,
    /// Page cache in MiB. Default 64.
    pub(super) cache_mib: Option<u64>,
    /// Changes that may wait for a commit. Default 8192.
    pub(super) queue: Option<u64>,
    /// From which size in MiB the store opens at once after a crash, for commits that take up to twice as long. Default 512.
    pub(super) quick_recovery_mib: Option<u64>,
    /// How often tokens that ended are removed. Default 60.
    pub(super) sweep_interval_seconds: Option<u64>,
    /// How long a token that ended still answers `token_expired` before it is removed. Default 300.
    pub(super) expired_grace_seconds: Option<u64>,
}

/// The audit log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Audit {
    /// Its directory, mode 0700. Required.
    pub(super) dir: Option<PathBuf>,
    /// Entries that may wait to be written. Default 8192.
    pub(super) queue: Option<u64>,
    /// Entries after which the HSM signs how far the log goes. Default 10000.
    pub(super) checkpoint_entries: Option<u64>,
    /// Seconds after which it does so if there are new entries. Default 10.
    pub(super) checkpoint_seconds: Option<u64>,
    /// A file of this size is finished, and the next one begun. Default 256.
    pub(super) rotate_mib: Option<u64>,
    /// A file of this age is. Default 24.
    pub(super) rotate_hours: Option<u64>,
    /// A file of so many lines is. Default: any number.
    pub(super) rotate_entries: Option<u64>,
}

/// Who may call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    /// What the `aud` of a JWT must name. Default "vaultd".
    pub(super) audience: Option<String>,
    /// How far the clocks of issuers may be off. Default 30.
    pub(super) leeway_seconds: Option<u64>,
    /// The `iss` of JWTs the vault itself signs. Default "vaultd".
    pub(super) self_issuer: Option<String>,
    /// The longest lifetime of JWTs the vault itself signs. Default 3600.
    pub(super) self_max_lifetime_seconds: Option<u64>,
    /// Verified JWTs that are remembered. Default 10000.
    pub(super) cache_entries: Option<u64>,
    /// Scopes that take a fresh JWT, with a `jti`, for each request. Default none.
    pub(super) single_use_scopes: Vec<String>,
    /// Used `jti` that are remembered until they expire, and as many of approvals. Default 100000.
    pub(super) replay_entries: Option<u64>,
    /// Issuers whose JWTs are accepted.
    pub(super) issuers: Vec<Issuer>,
    /// Local services that may log in. The first that fits counts.
    pub(super) peers: Vec<Peer>,
}

/// A local service that may log in by the kernel's word: every condition that is given must hold, and one of `uid`,
/// `user` and `unit` must be given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Peer {
    /// Its name: the `sub` of its JWTs. Required.
    pub(super) name: Option<String>,
    /// Its user id.
    pub(super) uid: Option<u32>,
    /// Its user's name, instead of `uid`.
    pub(super) user: Option<String>,
    /// Its group id.
    pub(super) gid: Option<u32>,
    /// Its group's name, instead of `gid`.
    pub(super) group: Option<String>,
    /// Its systemd unit, as in `checkout.service`. Needs Linux 6.5.
    pub(super) unit: Option<String>,
    /// The tenant it acts for where it names no client. This or `clients` is required.
    pub(super) tenant: Option<String>,
    /// The tenants of the clients it may name, by their coordinates.
    pub(super) clients: BTreeMap<String, String>,
    /// The scopes it may have. Required.
    pub(super) scopes: Option<Vec<String>>,
    /// The longest lifetime of its JWTs. Default 900.
    pub(super) max_lifetime_seconds: Option<u64>,
}

/// Payment envelopes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Envelopes {
    /// The `iss` of envelopes. Default "payment-service".
    pub(super) issuer: Option<String>,
    /// The `aud` of envelopes whose caller names none. Default "payment-gateway".
    pub(super) audience: Option<String>,
    /// Lifetime of envelopes whose caller names none. Default 1800.
    pub(super) expires_in: Option<u64>,
    /// The longest lifetime. Default 86400.
    pub(super) max_expires_in: Option<u64>,
    /// Openings of single-use envelopes that are remembered until they expire. Default 1000000.
    pub(super) replay_entries: Option<u64>,
}

/// An issuer of JWTs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Issuer {
    /// Its `iss`. Required.
    pub(super) name: Option<String>,
    /// File with its public keys: PEM or a JWK set. Read again on SIGHUP. Required.
    pub(super) keys: Option<PathBuf>,
    /// The longest lifetime of its JWTs. Default 3600.
    pub(super) max_lifetime_seconds: Option<u64>,
    /// The scopes it may give. Default: all.
    pub(super) scopes: Option<Vec<String>>,
    /// The tenants it may speak for. Default: any.
    pub(super) tenants: Option<Vec<String>>,
}

/// What tokens look like.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tokens {
    /// The template of requests that name none. Default "default".
    pub(super) default_template: Option<String>,
    /// Templates by name. Default: one named "default", `uuid`.
    pub(super) templates: BTreeMap<String, Template>,
}

/// A template.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Template {
    /// The form of the token. Default `uuid`.
    pub(super) format: Format,
    /// `numeric`: leading digits of the PAN to keep. With `keep_last` at most 10; 9 where `luhn` is `valid`, so that a
    /// million tokens remain of a 16-digit PAN. Default 0.
    pub(super) keep_first: Option<u64>,
    /// `numeric`: trailing digits of the PAN to keep. Default 0.
    pub(super) keep_last: Option<u64>,
    /// `numeric`: whether the token passes a Luhn check. Default `invalid`.
    pub(super) luhn: Option<Luhn>,
    /// Whether a PAN that fails its check digit is refused. Default true.
    pub(super) require_luhn: Option<bool>,
    /// Whether the same PAN gets the same token. Default `tenant`.
    pub(super) reuse: Reuse,
    /// Lifetime of tokens in seconds. Default: none, they do not end.
    pub(super) expires_in: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    #[default]
    Uuid,
    Numeric,
    Opaque,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Luhn {
    Invalid,
    Valid,
    Any,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reuse {
    #[default]
    Tenant,
    Never,
}

/// What is logged, to standard error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub(super) level: Option<String>,
    /// `auto`, `text` or `json`. Default `auto`.
    pub(super) format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Entries with fields if standard error is the systemd journal, lines of text if not.
    #[default]
    Auto,
    /// Lines of text.
    Text,
    /// Lines of JSON.
    Json,
}

/// The JSON Schema of the file, as pretty JSON with a newline at its end.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Raw);
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}
