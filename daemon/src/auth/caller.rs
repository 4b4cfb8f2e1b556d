//! What is known about a caller once it is authorized.

use std::{fmt, sync::Arc};

use vault_api::Scope;

/// The kernel's word about the process at the other end of a Unix socket (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id at the time it connected, if it had one.
    pub pid: Option<i32>,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Reads a space-separated list (RFC 8693, 4.2); scopes of other services are passed over.
    pub fn parse(text: &str) -> Self {
        text.split(' ').filter_map(|name| name.parse::<Scope>().ok()).collect()
    }

    /// Whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & bit(scope) != 0
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Display for ScopeSet {
    /// The scopes, space-separated (RFC 8693, 4.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Scope::ALL.iter().filter(|scope| self.contains(**scope)).map(|scope| scope.as_str());
        f.write_str(names.next().unwrap_or_default())?;
        names.try_for_each(|name| write!(f, " {name}"))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | bit(scope)))
    }
}

fn bit(scope: Scope) -> u32 {
    let place = Scope::ALL.iter().position(|known| *known == scope).unwrap_or_default();
    1 << place
}

/// What a verified JWT grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) tenant: String,
    pub(super) scopes: ScopeSet,
    pub(super) bound_uid: Option<u32>,
    pub(super) jti: Option<String>,
    pub(super) issued_at_s: u64,
    pub(super) expires_at_s: u64,
    /// The digest of the one request that it approves; then it allows nothing else.
    pub(super) approves: Option<String>,
}

/// An authorized caller.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) grant: Arc<Grant>,
    /// The process that called.
    pub peer: Peer,
}

impl Caller {
    /// The JWT's `iss`.
    pub fn issuer(&self) -> &str {
        &self.grant.issuer
    }

    /// The JWT's `sub`.
    pub fn subject(&self) -> &str {
        &self.grant.subject
    }

    /// The tenant it acts for.
    pub fn tenant(&self) -> &str {
        &self.grant.tenant
    }

    /// Whether it may do what needs `scope`.
    pub fn may(&self, scope: Scope) -> bool {
        self.grant.scopes.contains(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_scopes_is_read_and_foreign_ones_are_passed_over() {
        let scopes = ScopeSet::parse("openid tokenize  detokenize:masked tokenizer");
        let granted: Vec<_> = Scope::ALL.iter().copied().filter(|scope| scopes.contains(*scope)).collect();
        assert_eq!(granted, [Scope::Tokenize, Scope::DetokenizeMasked]);
    }

    #[test]
    fn all_scopes_fit_into_the_set() {
        assert!(Scope::ALL.len() <= 32);
        assert!(Scope::ALL.iter().all(|scope| ScopeSet::all().contains(*scope)));
    }
}
