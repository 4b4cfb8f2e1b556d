//! The operator's face: one method for each endpoint of the admin socket.

use std::{fmt, sync::Arc, time::Duration};

use hyper::{Method, StatusCode};
use secrecy::SecretString;
use vault_api::{
    AuditAnswer, AuditQuery, HoneyToken, HoneyTokens, Key, Keys, Lock, Locks, PlantRequest, Reloaded, Rewrap,
    Status, UnlockRequest, Unlocked,
};

use crate::{
    Error,
    call::{Call, Caller},
    path,
    retry::Effect,
};

/// A client of one vault's admin socket; made by [`VaultClient::admin`](crate::VaultClient::admin). Clones are cheap and
/// share connections and token.
///
/// # Errors
/// As those of [`VaultClient`](crate::VaultClient).
///
/// # What is sent again
/// As in the table of [`VaultClient`](crate::VaultClient#what-is-sent-again): [`rotate`](Self::rotate) and
/// [`plant_honey`](Self::plant_honey) as `tokenize` without `retry_tokenize`, for the second time would make a second key
/// or token; the others as "all others".
#[derive(Clone)]
pub struct Admin(pub(crate) Arc<Caller>);

impl Admin {
    /// As [`VaultClient::approved`](crate::VaultClient::approved).
    ///
    /// # Errors
    /// As that.
    pub fn approved(&self, approval: &SecretString) -> Result<Self, Error> {
        Ok(Self(Arc::new(self.0.approved(approval)?)))
    }

    /// How the vault is: its checks, its keys, its records, the rewrap job. Needs the scope `keys:read`.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn status(&self) -> Result<Status, Error> {
        self.0.make(&Call::new(Method::GET, "/v1/status")).await?.json()
    }

    /// Has issuers and peers read anew, as on SIGHUP. Needs the scope `config:reload`.
    ///
    /// # Errors
    /// `config_invalid`, after which nothing has changed, and what the [type](Self#errors) says.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.0.make(&Call::new(Method::POST, "/v1/reload")).await?.json()
    }

    /// Every key there is or was. Needs the scope `keys:read`.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn keys(&self) -> Result<Vec<Key>, Error> {
        let Keys { keys } = self.0.make(&Call::new(Method::GET, "/v1/keys")).await?.json()?;
        Ok(keys)
    }

    /// Makes a new key for `purpose`, which is active at once; the one before it is retired. Needs the scope `keys:rotate`.
    ///
    /// # Errors
    /// `not_found` for a purpose that does not exist, and what the [type](Self#errors) says. After [`Error::Broken`] or
    /// [`Error::Timeout`] the key may exist.
    pub async fn rotate(&self, purpose: &str) -> Result<Key, Error> {
        let path = path::under("/v1/keys", [purpose, "rotate"]);
        let call = Call::new(Method::POST, path).effect(Effect::Creates).expect(&[StatusCode::CREATED]);
        self.0.make(&call).await?.json()
    }

    /// Destroys a retired key that nothing depends on any more. There is no way back. Needs the scope `keys:destroy`.
    ///
    /// # Errors
    /// `key_in_use`, which says what depends on it, `not_found`, and what the [type](Self#errors) says.
    pub async fn destroy_key(&self, purpose: &str, version: u32) -> Result<Key, Error> {
        let path = path::under("/v1/keys", [purpose, &version.to_string()]);
        self.0.make(&Call::new(Method::DELETE, path)).await?.json()
    }

    /// How the rewrap job stands. Needs the scope `keys:read`.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn rewrap(&self) -> Result<Rewrap, Error> {
        self.0.make(&Call::new(Method::GET, "/v1/rewrap")).await?.json()
    }

    /// Starts the job that brings every record to the active keys; one that runs goes on. Needs the scope `keys:rotate`.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn start_rewrap(&self) -> Result<Rewrap, Error> {
        let call = Call::new(Method::POST, "/v1/rewrap").expect(&[StatusCode::ACCEPTED]);
        self.0.make(&call).await?.json()
    }

    /// Entries of the audit log. Needs the scope `audit:read`. For what follows, ask again with the answer's `next` as
    /// `after`; with [`AuditQuery::wait`] the vault waits for an entry, and the client's timeout is that much longer.
    ///
    /// # Errors
    /// `invalid_request` and what the [type](Self#errors) says.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditAnswer, Error> {
        let pause = Duration::from_secs(query.wait.unwrap_or_default());
        let call = Call::new(Method::GET, path::query("/v1/audit", query)?).pause(pause);
        self.0.make(&call).await?.json()
    }

    /// Every subject that is locked. Needs the scope `locks:read`.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn locks(&self) -> Result<Vec<Lock>, Error> {
        let Locks { locks } = self.0.make(&Call::new(Method::GET, "/v1/locks")).await?.json()?;
        Ok(locks)
    }

    /// Unlocks a subject; false if it was not locked, or no more when asked again after a connection broke. Needs the scope
    /// `locks:remove`.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn unlock(&self, issuer: &str, subject: &str) -> Result<bool, Error> {
        let request = UnlockRequest { issuer: issuer.to_owned(), subject: subject.to_owned() };
        let call = Call::new(Method::POST, "/v1/locks/unlock").json(&request)?;
        let Unlocked { unlocked } = self.0.make(&call).await?.json()?;
        Ok(unlocked)
    }

    /// Every honey token. Needs the scope `honey:read`.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn honey(&self) -> Result<Vec<HoneyToken>, Error> {
        let HoneyTokens { tokens } = self.0.make(&Call::new(Method::GET, "/v1/honey")).await?.json()?;
        Ok(tokens)
    }

    /// Makes a token that stands for no card, to be put where only a thief would find it. Needs the scope `honey:plant`.
    ///
    /// # Errors
    /// `invalid_request` and what the [type](Self#errors) says. After [`Error::Broken`] or [`Error::Timeout`] the token may
    /// exist.
    pub async fn plant_honey(&self, request: &PlantRequest) -> Result<HoneyToken, Error> {
        let call = Call::new(Method::POST, "/v1/honey")
            .json(request)?
            .effect(Effect::Creates)
            .expect(&[StatusCode::CREATED]);
        self.0.make(&call).await?.json()
    }

    /// Removes a honey token. Needs the scope `honey:plant`.
    ///
    /// If the connection broke and the token is gone at the next attempt, that is success.
    ///
    /// # Errors
    /// `unknown_token` and what the [type](Self#errors) says.
    pub async fn remove_honey(&self, tenant: &str, token: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, path::under("/v1/honey", [tenant, token]))
            .effect(Effect::Removes)
            .expect(&[StatusCode::NO_CONTENT]);
        self.0.make(&call).await?;
        Ok(())
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("socket", &self.0.transport.socket()).finish_non_exhaustive()
    }
}
