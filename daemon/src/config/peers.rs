//! Validation of `[[auth.peers]]`: who may log in.

use super::{Peer, raw, validate::Validator};
use crate::auth::PeerRule;

const DEFAULT_LIFETIME_S: u64 = 900;
const MAX_CLIENT_BYTES: usize = 64;

impl Validator {
    /// `longest_s`: the longest lifetime that is accepted of the vault's own JWTs.
    pub(super) fn peers(&mut self, raw: Vec<raw::Peer>, longest_s: u64) -> Vec<Peer> {
        raw.into_iter().enumerate().filter_map(|(number, raw)| self.peer(number, raw, longest_s)).collect()
    }

    fn peer(&mut self, number: usize, raw: raw::Peer, longest_s: u64) -> Option<Peer> {
        let key = |name: &str| format!("auth.peers.{number}.{name}");
        let name = self.required(&key("name"), raw.name);
        let scopes = self.required(&key("scopes"), raw.scopes);
        let scopes = scopes.map(|names| self.scopes(&key("scopes"), &names));
        if name.as_deref() == Some("") {
            self.error(&key("name"), "must not be empty");
        }
        if raw.uid.is_none() && raw.user.is_none() && raw.unit.is_none() {
            self.error(&key("uid"), "this, user or unit is required: who may log in?");
        }
        for (one, other, both) in [
            ("uid", "user", raw.uid.is_some() && raw.user.is_some()),
            ("gid", "group", raw.gid.is_some() && raw.group.is_some()),
        ] {
            if both {
                self.error(&key(other), format!("leave out this or {one}"));
            }
        }
        if raw.unit.as_deref().is_some_and(|unit| !unit.ends_with(".service")) {
            self.error(&key("unit"), "must be a service, as in \"checkout.service\"");
        }
        if raw.tenant.is_none() && raw.clients.is_empty() {
            self.error(&key("tenant"), "this or clients is required");
        }
        self.tenants(&key("tenant"), raw.tenant.iter().chain(raw.clients.values()));
        if raw.clients.keys().any(|client| client.is_empty() || client.len() > MAX_CLIENT_BYTES) {
            self.error(&key("clients"), format!("a client must have 1 to {MAX_CLIENT_BYTES} bytes"));
        }
        let max_lifetime_s = self.seconds(
            &key("max_lifetime_seconds"),
            raw.max_lifetime_seconds,
            DEFAULT_LIFETIME_S.min(longest_s),
        );
        if max_lifetime_s > longest_s {
            self.error(&key("max_lifetime_seconds"), "is longer than auth.self_max_lifetime_seconds");
        }
        let rule = PeerRule {
            name: name?,
            uid: raw.uid,
            gid: raw.gid,
            unit: raw.unit,
            tenant: raw.tenant,
            clients: raw.clients,
            scopes: scopes?,
            max_lifetime_s,
        };
        Some(Peer { rule, user: raw.user, group: raw.group })
    }
}
