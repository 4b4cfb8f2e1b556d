//! Validation of `[auth]`: who may call.

use vault_api::Scope;

use super::{Issuer, raw, validate::Validator};
use crate::auth::{self, ScopeSet};

impl Validator {
    pub(super) fn auth(&mut self, raw: &raw::Auth) -> auth::Settings {
        auth::Settings {
            audience: raw.audience.clone().unwrap_or_else(|| "vaultd".to_owned()),
            leeway_s: self.number("auth.leeway_seconds", raw.leeway_seconds, 30, 0..=600),
            cache_entries: self.count("auth.cache_entries", raw.cache_entries, 10_000, 1..=10_000_000),
            single_use: self.scopes("auth.single_use_scopes", &raw.single_use_scopes),
            replay_entries: self.count("auth.replay_entries", raw.replay_entries, 100_000, 1..=100_000_000),
        }
    }

    pub(super) fn scopes(&mut self, key: &str, names: &[String]) -> ScopeSet {
        let mut scopes = Vec::new();
        for name in names {
            if let Ok(scope) = name.parse::<Scope>() {
                scopes.push(scope);
            } else {
                let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
                self.error(key, format!("{name:?} is no scope; there are {}", known.join(", ")));
            }
        }
        scopes.into_iter().collect()
    }

    pub(super) fn tenants<'t>(&mut self, key: &str, names: impl Iterator<Item = &'t String>) {
        for name in names.filter(|name| !auth::is_tenant_name(name)) {
            self.error(key, format!("{name:?} is no tenant: 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`"));
        }
    }

    pub(super) fn issuers(&mut self, raw: Vec<raw::Issuer>, self_issuer: &str) -> Vec<Issuer> {
        let mut issuers: Vec<Issuer> = Vec::new();
        for (number, raw) in raw.into_iter().enumerate() {
            let key = |name: &str| format!("auth.issuers.{number}.{name}");
            let name = self.required(&key("name"), raw.name);
            let keys = self.required(&key("keys"), raw.keys);
            let lifetime = key("max_lifetime_seconds");
            let max_lifetime_s = self.seconds(&lifetime, raw.max_lifetime_seconds, 3_600);
            let scopes = match &raw.scopes {
                Some(names) => self.scopes(&key("scopes"), names),
                None => ScopeSet::all(),
            };
            let (Some(name), Some(keys)) = (name, keys) else { continue };
            if name == self_issuer || issuers.iter().any(|issuer| issuer.name == name) {
                self.error(
                    &key("name"),
                    "is the name of another issuer, or of the vault itself (auth.self_issuer)",
                );
            }
            if name.is_empty() {
                self.error(&key("name"), "must not be empty");
            }
            self.tenants(&key("tenants"), raw.tenants.iter().flatten());
            issuers.push(Issuer { name, keys, max_lifetime_s, scopes, tenants: raw.tenants });
        }
        issuers
    }
}
