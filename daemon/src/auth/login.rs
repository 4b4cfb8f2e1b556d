//! Login: from the kernel's word about a peer to a JWT bound to it.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use serde::Serialize;
use vault_api::Scope;

use super::{Peer, ScopeSet, is_approval_digest};
use crate::{hsm::HsmError, jose::Signer};

/// The type of a JWT that is an access token (RFC 9068, 2.1).
const ACCESS_TOKEN: &str = "at+jwt";

/// A local service that may log in: every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRule {
    /// The service's name: the `sub` of its JWTs.
    pub name: String,
    /// Its user id.
    pub uid: Option<u32>,
    /// Its group id.
    pub gid: Option<u32>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// The tenant it acts for where it names no client.
    pub tenant: Option<String>,
    /// The tenants of the clients it may name, by their coordinates.
    pub clients: BTreeMap<String, String>,
    /// The scopes it may have.
    pub scopes: ScopeSet,
    /// The longest lifetime of its JWTs, in seconds.
    pub max_lifetime_s: u64,
}

/// What a peer asks for.
#[derive(Clone, Debug, Default)]
pub struct LoginWish {
    /// The client it acts for.
    pub client: Option<String>,
    /// The scopes it wants; all it may have if `None`.
    pub scopes: Option<Vec<Scope>>,
    /// The lifetime it wants, in seconds; the longest if `None`.
    pub expires_in_s: Option<u64>,
    /// The digest of the one request that it wants to approve, and nothing else.
    pub approves: Option<String>,
}

/// A login that is granted: what its JWT will say.
#[derive(Debug)]
pub struct LoginGrant {
    /// The JWT's `iss`.
    pub issuer: String,
    /// Its `sub`.
    pub subject: String,
    /// Its lifetime in seconds.
    pub expires_in_s: u64,
    /// Its scopes, space-separated.
    pub scope: String,
    /// Its tenant.
    pub tenant: String,
    uid: u32,
    client: Option<String>,
    approves: Option<String>,
}

/// Why a login is refused. What is configured is not told to whom it does not concern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No rule fits the peer.
    #[error("no login is configured for this caller")]
    NotConfigured,
    /// The client is not one of the peer's.
    #[error("this caller may not act for the client it names")]
    Client,
    /// The peer serves several clients and names none.
    #[error("name the client that is acted for in `client`")]
    ClientNeeded,
    /// The peer may not have the scope.
    #[error("this caller may not have the scope `{0}`")]
    Scope(Scope),
    /// A lifetime of nothing.
    #[error("expires_in must be 1 second or more")]
    Lifetime,
    /// What is to be approved is no digest of a request.
    #[error("approves must be the digest of a request: SHA-256 in base64url")]
    Digest,
}

/// Logs peers in.
pub struct Login {
    signer: Signer,
    issuer: String,
    audience: String,
    rules: ArcSwap<Vec<PeerRule>>,
}

#[derive(Serialize)]
struct Claims<'c> {
    iss: &'c str,
    sub: &'c str,
    aud: &'c str,
    iat: u64,
    exp: u64,
    jti: String,
    scope: &'c str,
    tenant: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approves: Option<&'c str>,
    cnf: Binding,
}

#[derive(Serialize)]
struct Binding {
    uid: u32,
}

impl Login {
    /// Signs with `signer` as `issuer` for `audience`.
    pub fn new(signer: Signer, issuer: String, audience: String, rules: Vec<PeerRule>) -> Self {
        Self { signer, issuer, audience, rules: ArcSwap::from_pointee(rules) }
    }

    /// Goes by `rules` from now on.
    pub fn set_rules(&self, rules: Vec<PeerRule>) {
        self.rules.store(Arc::new(rules));
    }

    /// Whether a rule asks for the peer's unit.
    pub fn asks_for_units(&self) -> bool {
        self.rules.load().iter().any(|rule| rule.unit.is_some())
    }

    /// What `peer`, whose systemd unit is `unit` if it is known, is granted. Nothing is signed yet.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn grant(&self, peer: Peer, unit: Option<&str>, wish: LoginWish) -> Result<LoginGrant, LoginError> {
        let rules = self.rules.load();
        let rule = rules.iter().find(|rule| rule.fits(peer, unit)).ok_or(LoginError::NotConfigured)?;
        let LoginWish { client, scopes, expires_in_s, approves } = wish;
        let tenant = rule.tenant(client.as_deref())?.to_owned();
        if approves.as_deref().is_some_and(|digest| !is_approval_digest(digest)) {
            return Err(LoginError::Digest);
        }
        let approving = approves.is_some().then_some([Scope::Approve].as_slice());
        let scope = rule.scope(approving.or(scopes.as_deref()))?;
        let expires_in_s = expires_in_s.map_or(rule.max_lifetime_s, |wanted| wanted.min(rule.max_lifetime_s));
        if expires_in_s == 0 {
            return Err(LoginError::Lifetime);
        }
        let (issuer, subject) = (self.issuer.clone(), rule.name.clone());
        Ok(LoginGrant { issuer, subject, expires_in_s, scope, tenant, uid: peer.uid, client, approves })
    }

    /// The JWT for what was granted, signed in the HSM at `now_s`.
    ///
    /// # Errors
    /// [`HsmError`].
    pub async fn sign(&self, grant: &LoginGrant, now_s: u64) -> Result<String, HsmError> {
        let claims = Claims {
            iss: &grant.issuer,
            sub: &grant.subject,
            aud: &self.audience,
            iat: now_s,
            exp: now_s + grant.expires_in_s,
            jti: self.signer.jti().await?,
            scope: &grant.scope,
            tenant: &grant.tenant,
            client: grant.client.as_deref(),
            approves: grant.approves.as_deref(),
            cnf: Binding { uid: grant.uid },
        };
        self.signer.sign(ACCESS_TOKEN, &claims).await
    }
}

impl PeerRule {
    fn fits(&self, peer: Peer, unit: Option<&str>) -> bool {
        let holds = |wanted: Option<u32>, is: u32| wanted.is_none_or(|wanted| wanted == is);
        holds(self.uid, peer.uid)
            && holds(self.gid, peer.gid)
            && self.unit.as_deref().is_none_or(|wanted| unit == Some(wanted))
    }

    fn tenant(&self, client: Option<&str>) -> Result<&str, LoginError> {
        match client {
            Some(client) => self.clients.get(client).map(String::as_str).ok_or(LoginError::Client),
            None => self.tenant.as_deref().ok_or(LoginError::ClientNeeded),
        }
    }

    fn scope(&self, wanted: Option<&[Scope]>) -> Result<String, LoginError> {
        let scopes = match wanted {
            None => self.scopes,
            Some(wanted) => {
                if let Some(refused) = wanted.iter().find(|scope| !self.scopes.contains(**scope)) {
                    return Err(LoginError::Scope(*refused));
                }
                wanted.iter().copied().collect()
            }
        };
        Ok(scopes.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> PeerRule {
        PeerRule {
            name: "checkout".to_owned(),
            uid: Some(7),
            unit: Some("checkout.service".to_owned()),
            tenant: Some("shop".to_owned()),
            clients: [("cih".to_owned(), "bank-cih".to_owned())].into(),
            scopes: [Scope::Tokenize, Scope::TokensRead].into_iter().collect(),
            max_lifetime_s: 60,
            ..PeerRule::default()
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let peer = |uid| Peer { uid, gid: 1, pid: None };
        assert!(rule().fits(peer(7), Some("checkout.service")));
        assert!(!rule().fits(peer(8), Some("checkout.service")));
        assert!(!rule().fits(peer(7), Some("other.service")));
        assert!(!rule().fits(peer(7), None));
        assert!(!PeerRule { gid: Some(2), ..rule() }.fits(peer(7), Some("checkout.service")));
    }

    #[test]
    fn a_client_stands_for_its_tenant() {
        assert_eq!(rule().tenant(None), Ok("shop"));
        assert_eq!(rule().tenant(Some("cih")), Ok("bank-cih"));
        assert_eq!(rule().tenant(Some("shop")), Err(LoginError::Client));
        assert_eq!(PeerRule { tenant: None, ..rule() }.tenant(None), Err(LoginError::ClientNeeded));
    }

    #[test]
    fn scopes_can_be_fewer_but_not_others() {
        assert_eq!(rule().scope(None).unwrap(), "tokenize tokens:read");
        assert_eq!(rule().scope(Some(&[Scope::TokensRead])).unwrap(), "tokens:read");
        assert_eq!(rule().scope(Some(&[Scope::Detokenize])), Err(LoginError::Scope(Scope::Detokenize)));
    }
}
