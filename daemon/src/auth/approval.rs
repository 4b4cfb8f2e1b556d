//! Two pairs of eyes: a second person's word for one request.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use vault_api::Scope;

use super::{AuthError, Authenticator, Caller};
use crate::store::UseKind;

/// Operations that can be made to need an approval. None whose body holds a card number: a digest of it would be as good
/// as the number to whoever can count.
pub const APPROVABLE: [&str; 17] = [
    "detokenize",
    "detokenize.batch",
    "tokens.read",
    "tokens.change",
    "tokens.delete",
    "envelopes.open",
    "keys.list",
    "keys.rotate",
    "keys.destroy",
    "rewrap.start",
    "config.reload",
    "locks.list",
    "locks.unlock",
    "honey.list",
    "honey.plant",
    "honey.remove",
    "audit.read",
];

/// What needs a second person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovalRules {
    /// Names of [`APPROVABLE`] operations.
    pub operations: Vec<&'static str>,
    /// How old an approval may be, in seconds.
    pub max_age_s: u64,
    /// The most tokens of a `detokenize.batch` that need no approval.
    pub free_batch_items: usize,
}

impl ApprovalRules {
    /// Whether `operation` needs an approval.
    pub fn name(&self, operation: &str) -> bool {
        self.operations.contains(&operation)
    }
}

/// What an approval names as `approves`: one request, whole. SHA-256 in base64url without padding (RFC 4648, 5) over
/// method, a space, path and query as sent, a line feed, and the body's bytes.
pub fn approval_digest(method: &str, target: &str, body: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(method)
        .chain_update(b" ")
        .chain_update(target)
        .chain_update(b"\n")
        .chain_update(body);
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Whether `text` can be an [`approval_digest`].
pub fn is_approval_digest(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == <Sha256 as Digest>::output_size())
}

/// Why a request is not approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// The JWT is not valid as such.
    #[error("the approval is not valid: {0}")]
    Jwt(AuthError),
    /// A rule is broken; the text says which.
    #[error("{0}")]
    Rule(&'static str),
}

/// A second person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// The `iss` of its JWT.
    pub issuer: String,
    /// Its `sub`.
    pub subject: String,
}

impl Authenticator {
    /// Who approves with `jwt` that `caller` does what `digest` stands for. The approval is used up.
    ///
    /// The JWT may be bound (`cnf`) to anybody else: it is the caller who presents it, and it is good for nothing but this
    /// request.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub async fn approval(
        &self,
        jwt: &str,
        caller: &Caller,
        digest: &str,
        max_age_s: u64,
        now_s: u64,
    ) -> Result<Approver, ApprovalError> {
        let rule = |holds: bool, broken| if holds { Ok(()) } else { Err(ApprovalError::Rule(broken)) };
        let grant = self.verified(jwt, now_s).await.map_err(ApprovalError::Jwt)?;
        rule(grant.scopes.contains(Scope::Approve), "the approval lacks the scope `approve`")?;
        rule(
            grant.subject != caller.subject(),
            "the approval is of the caller: another person has to approve",
        )?;
        // One account may log in under two names. What the caller's own JWT is bound to is its peer's.
        rule(
            grant.bound_uid != Some(caller.peer.uid),
            "the approval is of the caller's own account: another person has to approve from another account",
        )?;
        rule(grant.tenant == caller.tenant(), "the approval is for another tenant")?;
        rule(grant.approves.as_deref() == Some(digest), "the approval is for another request")?;
        rule(
            now_s <= grant.issued_at_s.saturating_add(max_age_s),
            "the approval is too old: have it issued anew",
        )?;
        let jti = grant.jti.as_deref().ok_or(ApprovalError::Rule("the approval has no `jti`"))?;
        match self.use_up(UseKind::Approval, &grant, jti).await {
            Err(AuthError::Replayed) => Err(ApprovalError::Rule("the approval was used before")),
            used => used.map_err(ApprovalError::Jwt),
        }?;
        Ok(Approver { issuer: grant.issuer.clone(), subject: grant.subject.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_method_path_and_body() {
        // printf 'POST /v1/locks/unlock\n{}' | openssl dgst -sha256 -binary | basenc --base64url | tr -d =
        let digest = approval_digest("POST", "/v1/locks/unlock", b"{}");
        assert_eq!(digest, "zHSSCUlu4YVCVVbKqFM_r-8Qy2d56S6URvozBiD6cJ0");
        assert!(is_approval_digest(&digest));
        for other in [
            approval_digest("PUT", "/v1/locks/unlock", b"{}"),
            approval_digest("POST", "/v1/locks/unlock?a", b"{}"),
            approval_digest("POST", "/v1/locks/unlock", b"{} "),
        ] {
            assert_ne!(other, digest);
        }
        for text in ["", "abc", &digest[1..], "not base64url, which has no blanks or commas"] {
            assert!(!is_approval_digest(text));
        }
    }
}
