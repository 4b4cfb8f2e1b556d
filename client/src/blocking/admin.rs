//! The operator's client without an async runtime.

use std::{fmt, path::PathBuf, sync::Arc};

use secrecy::SecretString;
use tokio::runtime::Runtime;
use vault_api::{AuditAnswer, AuditQuery, HoneyToken, Key, Lock, PlantRequest, Reloaded, Rewrap, Status};

use super::VaultClient;
use crate::Error;

/// An [`Admin`](crate::Admin) whose methods block until the answer is there. What is said of
/// [`VaultClient`] holds for it too.
///
/// # Errors
/// Every method fails as the async method of the same name, and is sent again as that is.
#[derive(Clone)]
pub struct Admin {
    admin: crate::Admin,
    runtime: Arc<Runtime>,
}

impl VaultClient {
    /// As the async [`admin`](crate::VaultClient::admin).
    ///
    /// # Errors
    /// As that.
    pub fn admin(&self, socket: impl Into<PathBuf>) -> Result<Admin, Error> {
        Ok(Admin { admin: self.client.admin(socket)?, runtime: Arc::clone(&self.runtime) })
    }

    /// As the async [`admin_from_env`](crate::VaultClient::admin_from_env).
    ///
    /// # Errors
    /// As that.
    pub fn admin_from_env(&self) -> Result<Admin, Error> {
        Ok(Admin { admin: self.client.admin_from_env()?, runtime: Arc::clone(&self.runtime) })
    }
}

impl Admin {
    /// As the async [`approved`](crate::Admin::approved).
    ///
    /// # Errors
    /// As that.
    pub fn approved(&self, approval: &SecretString) -> Result<Self, Error> {
        Ok(Self { admin: self.admin.approved(approval)?, runtime: Arc::clone(&self.runtime) })
    }

    /// As the async [`status`](crate::Admin::status).
    ///
    /// # Errors
    /// As that.
    pub fn status(&self) -> Result<Status, Error> {
        self.runtime.block_on(self.admin.status())
    }

    /// As the async [`reload`](crate::Admin::reload).
    ///
    /// # Errors
    /// As that.
    pub fn reload(&self) -> Result<Reloaded, Error> {
        self.runtime.block_on(self.admin.reload())
    }

    /// As the async [`keys`](crate::Admin::keys).
    ///
    /// # Errors
    /// As that.
    pub fn keys(&self) -> Result<Vec<Key>, Error> {
        self.runtime.block_on(self.admin.keys())
    }

    /// As the async [`rotate`](crate::Admin::rotate).
    ///
    /// # Errors
    /// As that.
    pub fn rotate(&self, purpose: &str) -> Result<Key, Error> {
        self.runtime.block_on(self.admin.rotate(purpose))
    }

    /// As the async [`destroy_key`](crate::Admin::destroy_key).
    ///
    /// # Errors
    /// As that.
    pub fn destroy_key(&self, purpose: &str, version: u32) -> Result<Key, Error> {
        self.runtime.block_on(self.admin.destroy_key(purpose, version))
    }

    /// As the async [`rewrap`](crate::Admin::rewrap).
    ///
    /// # Errors
    /// As that.
    pub fn rewrap(&self) -> Result<Rewrap, Error> {
        self.runtime.block_on(self.admin.rewrap())
    }

    /// As the async [`start_rewrap`](crate::Admin::start_rewrap).
    ///
    /// # Errors
    /// As that.
    pub fn start_rewrap(&self) -> Result<Rewrap, Error> {
        self.runtime.block_on(self.admin.start_rewrap())
    }

    /// As the async [`audit`](crate::Admin::audit).
    ///
    /// # Errors
    /// As that.
    pub fn audit(&self, query: &AuditQuery) -> Result<AuditAnswer, Error> {
        self.runtime.block_on(self.admin.audit(query))
    }

    /// As the async [`locks`](crate::Admin::locks).
    ///
    /// # Errors
    /// As that.
    pub fn locks(&self) -> Result<Vec<Lock>, Error> {
        self.runtime.block_on(self.admin.locks())
    }

    /// As the async [`unlock`](crate::Admin::unlock).
    ///
    /// # Errors
    /// As that.
    pub fn unlock(&self, issuer: &str, subject: &str) -> Result<bool, Error> {
        self.runtime.block_on(self.admin.unlock(issuer, subject))
    }

    /// As the async [`honey`](crate::Admin::honey).
    ///
    /// # Errors
    /// As that.
    pub fn honey(&self) -> Result<Vec<HoneyToken>, Error> {
        self.runtime.block_on(self.admin.honey())
    }

    /// As the async [`plant_honey`](crate::Admin::plant_honey).
    ///
    /// # Errors
    /// As that.
    pub fn plant_honey(&self, request: &PlantRequest) -> Result<HoneyToken, Error> {
        self.runtime.block_on(self.admin.plant_honey(request))
    }

    /// As the async [`remove_honey`](crate::Admin::remove_honey).
    ///
    /// # Errors
    /// As that.
    pub fn remove_honey(&self, tenant: &str, token: &str) -> Result<(), Error> {
        self.runtime.block_on(self.admin.remove_honey(tenant, token))
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("blocking").field(&self.admin).finish()
    }
}
