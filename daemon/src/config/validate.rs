//! From [`Raw`] to [`Config`]: defaults, ranges, and what must be there.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use vault_api::MAX_BATCH_ITEMS;

use super::{
    Config, ConfigError, Hsm, Limits, Log, SelfIssuer, Server, SocketPlace, Store,
    keys::Lifetimes,
    parse::Document,
    raw::{self, Raw},
};
use crate::vault::EnvelopeRules;

/// The longest path of a Unix socket on Linux (unix(7): `sun_path` less its final zero), in bytes.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
const MAX_SECONDS: u64 = 10 * 365 * 86_400;
const ADMIN_SOCKET_MODE: u32 = 0o600;
const DEFAULT_SOCKET_MODE: u32 = 0o660;
const MIB: u64 = 1_048_576;

/// Validates everything, and says everything that is wrong.
pub(super) fn validate(path: &Path, raw: Raw, document: Document) -> Result<Config, Vec<ConfigError>> {
    let mut v = Validator { document };
    let server = v.server(raw.server);
    let limits = v.limits(&raw.limits);
    let guards = v.guards(&raw.guards, limits.batch_items);
    let approvals = v.approvals(&raw.approvals, limits.batch_items);
    let hsm = v.hsm(raw.hsm);
    let store = v.store(raw.store);
    let audit = v.audit(raw.audit);
    let self_issuer = SelfIssuer {
        name: raw.auth.self_issuer.clone().unwrap_or_else(|| "vaultd".to_owned()),
        max_lifetime_s: v.seconds(
            "auth.self_max_lifetime_seconds",
            raw.auth.self_max_lifetime_seconds,
            3_600,
        ),
    };
    let auth = v.auth(&raw.auth);
    let issuers = v.issuers(raw.auth.issuers, &self_issuer.name);
    let peers = v.peers(raw.auth.peers, self_issuer.max_lifetime_s);
    let envelopes = v.envelopes(raw.envelopes);
    // A signature may be made as late as a request may last, and be verified as late as clocks may differ.
    let late_s = limits.request_timeout.as_secs() + auth.leeway_s;
    let lifetimes = Lifetimes {
        jwt_s: self_issuer.max_lifetime_s + late_s,
        envelope_s: envelopes.max_expires_in_s + late_s,
    };
    let (keys, rewrap_pace) = v.keys(&raw.keys, &lifetimes);
    let templates = v.templates(raw.tokens);
    v.sandbox(&raw.sandbox);
    let log = v.log(raw.log);
    let mut warnings = hsm.as_ref().map(|hsm| contradictions(hsm, &limits)).unwrap_or_default();
    warnings.extend(approvals.way_round());

    let Document { mut errors, lines, .. } = v.document;
    errors.sort_by_key(|error| error.line);
    match (server, hsm, store, audit, templates) {
        (Some(server), Some(hsm), Some(store), Some(audit), Some(templates)) if errors.is_empty() => {
            Ok(Config {
                path: path.to_owned(),
                server,
                limits,
                guards,
                approvals,
                hsm,
                keys,
                rewrap_pace,
                store,
                audit,
                auth,
                self_issuer,
                issuers,
                peers,
                envelopes,
                templates,
                sandbox: raw.sandbox,
                log,
                warnings,
                lines,
            })
        }
        _ => Err(errors),
    }
}

/// Limits that are good one by one and are not together. No errors: a vault that was served with them is served on.
fn contradictions(hsm: &Hsm, limits: &Limits) -> Vec<String> {
    let (call, body) = (hsm.call_timeout.as_secs(), limits.body_timeout.as_secs());
    let request = limits.request_timeout.as_secs();
    let mut found = Vec::new();
    if call >= request {
        found.push(format!(
            "hsm.call_timeout_seconds is {call}, and a request ends after {request}: an HSM that hangs is answered as \
             store_unavailable; make it less than {request}, or limits.request_timeout_seconds more than {call}"
        ));
    }
    if body > request {
        found.push(format!(
            "limits.body_timeout_seconds is {body}, and a request ends after {request}: a body that does not come is \
             answered as store_unavailable; make it {request} or less, or limits.request_timeout_seconds {body} or more"
        ));
    }
    found
}

/// The document on its way to a [`Config`], and what is wrong with it so far.
pub(super) struct Validator {
    document: Document,
}

impl Validator {
    pub(super) fn error(&mut self, key: &str, message: impl Into<String>) {
        let line = Some(self.document.lines.of(key));
        self.document.errors.push(ConfigError { line, key: key.to_owned(), message: message.into() });
    }

    pub(super) fn required<T>(&mut self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.document.refused.iter().any(|refused| refused == key) {
            self.error(key, "is required");
        }
        value
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        value: Option<u64>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let value = value.unwrap_or(default);
        if !range.contains(&value) {
            self.error(key, format!("must be {} to {}", range.start(), range.end()));
        }
        value
    }

    pub(super) fn count(
        &mut self,
        key: &str,
        value: Option<u64>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> usize {
        usize::try_from(self.number(key, value, default, range)).unwrap_or(usize::MAX)
    }

    pub(super) fn seconds(&mut self, key: &str, value: Option<u64>, default: u64) -> u64 {
        self.number(key, value, default, 1..=MAX_SECONDS)
    }

    pub(super) fn duration(&mut self, key: &str, value: Option<u64>, default: u64) -> Duration {
        Duration::from_secs(self.seconds(key, value, default))
    }

    fn server(&mut self, raw: raw::Server) -> Option<Server> {
        let socket = self.required("server.socket", raw.socket);
        let admin = self.required("server.admin_socket", raw.admin_socket);
        for (key, path) in [("server.socket", &socket), ("server.admin_socket", &admin)] {
            let bytes = path.as_ref().map_or(0, |path| path.as_os_str().len());
            if bytes > MAX_SOCKET_PATH_BYTES {
                self.error(
                    key,
                    format!("has {bytes} bytes; a socket's path may have {MAX_SOCKET_PATH_BYTES}"),
                );
            }
        }
        if socket.is_some() && socket == admin {
            self.error("server.admin_socket", "must not be the API's socket");
        }
        let mode = match raw.socket_mode.as_deref().map(|text| u32::from_str_radix(text, 8)) {
            None => DEFAULT_SOCKET_MODE,
            Some(Ok(mode)) if mode <= 0o777 => mode,
            Some(_) => {
                self.error("server.socket_mode", "must be octal permission bits in quotes, as in \"0660\"");
                DEFAULT_SOCKET_MODE
            }
        };
        let workers = raw.workers.map(|n| self.count("server.workers", Some(n), n, 1..=1_024));
        Some(Server {
            socket: SocketPlace { path: socket?, mode, group: raw.socket_group },
            admin_socket: SocketPlace { path: admin?, mode: ADMIN_SOCKET_MODE, group: None },
            workers,
        })
    }

    fn limits(&mut self, raw: &raw::Limits) -> Limits {
        let most_items = u64::try_from(MAX_BATCH_ITEMS).unwrap_or(u64::MAX);
        Limits {
            body_bytes: self.count("limits.max_body_bytes", raw.max_body_bytes, MIB, 1_024..=64 * MIB),
            // hyper takes no buffer below 8 KiB.
            header_bytes: self.count("limits.max_header_bytes", raw.max_header_bytes, 16_384, 8_192..=MIB),
            headers: self.count("limits.max_headers", raw.max_headers, 64, 8..=1_024),
            batch_items: self.count(
                "limits.max_batch_items",
                raw.max_batch_items,
                most_items,
                1..=most_items,
            ),
            header_timeout: self.duration("limits.header_timeout_seconds", raw.header_timeout_seconds, 30),
            body_timeout: self.duration("limits.body_timeout_seconds", raw.body_timeout_seconds, 10),
            request_timeout: self.duration("limits.request_timeout_seconds", raw.request_timeout_seconds, 30),
            answer_timeout: self.duration("limits.answer_timeout_seconds", raw.answer_timeout_seconds, 30),
            connections: self.count("limits.max_connections", raw.max_connections, 1_024, 1..=100_000),
            connections_per_uid: self.count(
                "limits.max_connections_per_uid",
                raw.max_connections_per_uid,
                512,
                1..=100_000,
            ),
            requests_per_second_per_tenant: raw.max_requests_per_second_per_tenant.map(|most| {
                let key = "limits.max_requests_per_second_per_tenant";
                u32::try_from(self.number(key, Some(most), most, 1..=10_000_000)).unwrap_or(u32::MAX)
            }),
            shutdown_grace: self.duration("limits.shutdown_grace_seconds", raw.shutdown_grace_seconds, 20),
        }
    }

    fn store(&mut self, raw: raw::Store) -> Option<Store> {
        let dir = self.required("store.dir", raw.dir);
        let cache_mib = self.number("store.cache_mib", raw.cache_mib, 64, 1..=1_048_576);
        let queue = self.count("store.queue", raw.queue, 8_192, 1..=1_000_000);
        let quick_recovery_mib =
            self.number("store.quick_recovery_mib", raw.quick_recovery_mib, 512, 0..=1_073_741_824);
        let sweep_interval = self.duration("store.sweep_interval_seconds", raw.sweep_interval_seconds, 60);
        let grace =
            self.number("store.expired_grace_seconds", raw.expired_grace_seconds, 300, 0..=MAX_SECONDS);
        Some(Store {
            dir: dir?,
            cache_bytes: usize::try_from(cache_mib.saturating_mul(MIB)).unwrap_or(usize::MAX),
            queue,
            quick_recovery_bytes: quick_recovery_mib.saturating_mul(MIB),
            sweep_interval,
            expired_grace: Duration::from_secs(grace),
        })
    }

    fn envelopes(&mut self, raw: raw::Envelopes) -> EnvelopeRules {
        let issuer = raw.issuer.unwrap_or_else(|| "payment-service".to_owned());
        let audience = raw.audience.unwrap_or_else(|| "payment-gateway".to_owned());
        for (key, text) in [("envelopes.issuer", &issuer), ("envelopes.audience", &audience)] {
            if text.is_empty() {
                self.error(key, "must not be empty");
            }
        }
        let max_expires_in_s = self.seconds("envelopes.max_expires_in", raw.max_expires_in, 86_400);
        let default = max_expires_in_s.min(1_800);
        let expires_in_s = self.number("envelopes.expires_in", raw.expires_in, default, 1..=max_expires_in_s);
        let replay_entries =
            self.count("envelopes.replay_entries", raw.replay_entries, 1_000_000, 1..=100_000_000);
        EnvelopeRules { issuer, audience, expires_in_s, max_expires_in_s, replay_entries }
    }

    fn log(&mut self, raw: raw::Log) -> Log {
        let level = raw.level.unwrap_or_else(|| "info".to_owned());
        if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
            self.error("log.level", "must be error, warn, info, debug or trace");
        }
        Log { level, format: raw.format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [server]
        socket = "/run/vaultd/vaultd.sock"
        admin_socket = "/run/vaultd/admin.sock"
        [hsm]
        module = "/usr/lib/m.so"
        token_label = "vault"
        pin_file = "/etc/vaultd/pin"
        [store]
        dir = "/var/lib/vaultd/store"
        [audit]
        dir = "/var/lib/vaultd/audit"
    "#;

    fn errors(text: &str) -> Vec<(usize, String)> {
        let errors = Config::parse(Path::new("vaultd.toml"), text).err().unwrap();
        errors.errors().iter().map(|error| (error.line.unwrap(), error.key.clone())).collect()
    }

    #[test]
    fn defaults_fill_what_is_left_out() {
        let config = Config::parse(Path::new("vaultd.toml"), GOOD).unwrap();
        assert_eq!(config.server.socket.mode, 0o660);
        assert_eq!(config.limits.body_bytes, 1_048_576);
        assert_eq!(config.auth.leeway_s, 30);
        assert_eq!(config.warnings, [""; 0]);
    }

    #[test]
    fn every_error_is_reported_with_its_line_and_key() {
        let text = "[server]\n\
            socket = 7\n\
            sockets = \"x\"\n\
            [limits]\n\
            max_headers = 1\n\
            body_timeout_seconds = \"soon\"\n\
            [[auth.issuers]]\n\
            name = \"a\"\n\
            keyz = \"k\"\n\
            [tokens.templates.n]\n\
            format = \"numeric\"\n\
            keep_first = 6\n\
            keep_last = 6\n";
        let found = errors(text);
        for expected in [
            (2, "server.socket"),
            (3, "server.sockets"),
            (1, "server.admin_socket"),
            (5, "limits.max_headers"),
            (6, "limits.body_timeout_seconds"),
            (9, "auth.issuers.0.keyz"),
            (7, "auth.issuers.0.keys"),
            (10, "tokens.templates.n"),
            (1, "hsm.module"),
            (1, "store.dir"),
            (1, "audit.dir"),
        ] {
            assert!(found.contains(&(expected.0, expected.1.to_owned())), "{expected:?} in {found:?}");
        }
        assert!(
            !found.iter().any(|(line, key)| *line == 1 && key == "server.socket"),
            "read once: {found:?}"
        );
    }

    #[test]
    fn syntax_errors_have_their_line() {
        assert_eq!(errors("[server]\nsocket = \n")[0].0, 2);
    }

    #[test]
    fn limits_that_contradict_each_other_are_warned_of() {
        let warned = |call: u64, body: u64, request: u64| {
            let hsm = format!("[hsm]\n        call_timeout_seconds = {call}");
            let limits = format!(
                "[limits]\nbody_timeout_seconds = {body}\nrequest_timeout_seconds = {request}\n{}",
                GOOD.replace("[hsm]", &hsm)
            );
            let warnings = Config::parse(Path::new("vaultd.toml"), &limits).unwrap().warnings;
            warnings.iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(warned(29, 30, 30), [""; 0]);
        assert_eq!(warned(30, 10, 30), ["hsm.call_timeout_seconds"]);
        assert_eq!(warned(29, 31, 30), ["limits.body_timeout_seconds"]);
        assert_eq!(warned(5, 10, 1), ["hsm.call_timeout_seconds", "limits.body_timeout_seconds"]);
    }

    #[test]
    fn approvals_that_one_person_can_get_round_are_warned_of() {
        let warned = |operations: &str, free: usize| {
            let approvals =
                format!("{GOOD}\n[approvals]\noperations = [{operations}]\nfree_batch_items = {free}\n");
            Config::parse(Path::new("vaultd.toml"), &approvals).unwrap().warnings
        };
        assert_eq!(warned("\"detokenize.batch\"", 9), [""; 0]);
        assert_eq!(warned("\"detokenize\", \"detokenize.batch\"", 0), [""; 0]);
        assert!(warned("\"detokenize\"", 0)[0].ends_with("add `detokenize.batch`"));
        assert!(warned("\"detokenize\", \"detokenize.batch\"", 9)[0].ends_with("it is 9"));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for line in [
            "[hsm]\nsessions = 0",
            "[store]\ncache_mib = 0",
            "[limits]\nmax_batch_items = 1001",
            "[auth]\nleeway_seconds = 601",
            "[log]\nlevel = \"loud\"",
            "[server]\nsocket_mode = \"999\"",
        ] {
            assert!(errors(line).iter().any(|(at, _)| *at == 2), "{line}");
        }
    }
}
