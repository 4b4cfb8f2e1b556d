//! Who may issue JWTs, and for what.

use std::collections::BTreeMap;

use super::{
    AuthError, ScopeSet, Stranger,
    caller::Grant,
    jwt::{Claims, Expected, Jwt},
};
use crate::jose::{KeySet, Signer, VerifyingKey};

const MAX_TENANT_BYTES: usize = 64;

/// Where the public keys of an issuer come from.
#[derive(Clone)]
pub enum IssuerKeys {
    /// From its file.
    File(KeySet),
    /// They are the vault's own.
    Own(Signer),
}

impl IssuerKeys {
    fn key(&self, kid: &str) -> Option<VerifyingKey> {
        match self {
            Self::File(keys) => keys.key(kid).cloned(),
            Self::Own(signer) => signer.key(kid),
        }
    }
}

/// An issuer of JWTs.
#[derive(Clone)]
pub struct Issuer {
    /// Its public keys.
    pub keys: IssuerKeys,
    /// The longest `exp` − `iat` it may give, in seconds.
    pub max_lifetime_s: u64,
    /// What ends by then may live longer: it was allowed to when it was made. In seconds of Unix time.
    pub older_until_s: u64,
    /// The scopes it may give; others in its JWTs do not count.
    pub scopes: ScopeSet,
    /// The tenants it may speak for; any if `None`.
    pub tenants: Option<Vec<String>>,
}

/// All issuers by the `iss` of their JWTs.
#[derive(Clone, Default)]
pub struct Issuers {
    /// The issuers.
    pub by_name: BTreeMap<String, Issuer>,
}

impl Issuers {
    /// Verifies `text` and says what it grants.
    pub(super) fn verify(
        &self,
        text: &str,
        audience: &str,
        leeway_s: u64,
        now_s: u64,
    ) -> Result<Grant, AuthError> {
        let jwt = Jwt::parse(text)?;
        let issuer = self
            .by_name
            .get(&jwt.claims.iss)
            .ok_or(AuthError::Invalid("the JWT's issuer is not configured here"))?;
        let key = issuer.keys.key(jwt.kid()).ok_or(AuthError::UnknownKey)?;
        jwt.verify(&key)?;
        let Issuer { max_lifetime_s, older_until_s, .. } = *issuer;
        jwt.claims.check(&Expected { audience, max_lifetime_s, older_until_s, leeway_s, now_s })?;
        issuer.grant(jwt.claims)
    }
}

impl Issuer {
    fn grant(&self, claims: Claims) -> Result<Grant, AuthError> {
        let tenant = match (claims.tenant, self.tenants.as_deref()) {
            (Some(tenant), None) => tenant,
            (Some(tenant), Some(allowed)) if allowed.contains(&tenant) => tenant,
            (Some(tenant), Some(_)) => {
                let tenant = Some(tenant).filter(|tenant| is_tenant_name(tenant));
                let stranger = Stranger { issuer: claims.iss, subject: claims.sub, tenant };
                return Err(AuthError::Tenant(Box::new(stranger)));
            }
            // An issuer of one tenant need not name it.
            (None, Some([only])) => only.clone(),
            (None, _) => return Err(AuthError::Invalid("the JWT names no tenant")),
        };
        if !is_tenant_name(&tenant) {
            return Err(AuthError::Invalid(
                "the JWT's `tenant` must be 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`",
            ));
        }
        Ok(Grant {
            issuer: claims.iss,
            subject: claims.sub,
            tenant,
            scopes: ScopeSet::parse(&claims.scope).intersection(self.scopes),
            bound_uid: claims.cnf.map(|cnf| cnf.uid),
            jti: claims.jti,
            issued_at_s: claims.iat,
            expires_at_s: claims.exp,
            approves: claims.approves,
        })
    }
}

/// Whether `name` may be a tenant's: 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`.
pub fn is_tenant_name(name: &str) -> bool {
    (1..=MAX_TENANT_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
