//! The same client for programs without an async runtime.
//!
//! ```no_run
//! # fn example() -> Result<(), vault_client::Error> {
//! use vault_client::{TokenizeRequest, blocking::VaultClient};
//!
//! let vault = VaultClient::from_env()?;
//! let answer = vault.tokenize(&TokenizeRequest::new("4111 1111 1111 1111"))?;
//! let card = vault.detokenize(&answer.token)?;
//! assert_eq!(card.pan.expose(), "4111111111111111");
//! # Ok(())
//! # }
//! ```

mod admin;

use std::{fmt, path::PathBuf, sync::Arc};

use secrecy::SecretString;
use tokio::runtime::{Builder, Runtime};
use vault_api::{
    Health, JwkSet, LoginAnswer, LoginRequest, OpenEnvelopeAnswer, Readiness, SealEnvelopeAnswer,
    SealEnvelopeRequest, SearchAnswer, SearchRequest, Sensitive, TokenPatch, TokenRecord, TokenizeAnswer,
    TokenizeRequest,
};

pub use self::admin::Admin;
use crate::{ClientBuilder, Detokenized, Error, ItemError, RateLimit};

/// A [`VaultClient`](crate::VaultClient) whose methods block until the answer is there. Clones are cheap and share
/// connections and token; threads may call them at once.
///
/// It owns a runtime that lives in the calling threads and starts none of its own. For the same reason it must be
/// neither used nor dropped inside an async task: Tokio panics there. Use the async client in such programs.
///
/// # Errors
/// Every method fails as the async method of the same name, and is sent again as that is.
#[derive(Clone)]
pub struct VaultClient {
    client: crate::VaultClient,
    runtime: Arc<Runtime>,
}

impl VaultClient {
    /// Sets up a client of the vault that listens on the Unix socket `socket`; ends with
    /// [`ClientBuilder::build_blocking`].
    pub fn builder(socket: impl Into<PathBuf>) -> ClientBuilder {
        ClientBuilder::new(socket)
    }

    /// As the async [`from_env`](crate::VaultClient::from_env).
    ///
    /// # Errors
    /// As that, and [`Error::Config`] if the runtime cannot be set up.
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env()?.build_blocking()
    }

    /// As the async [`approved`](crate::VaultClient::approved).
    ///
    /// # Errors
    /// As that.
    pub fn approved(&self, approval: &SecretString) -> Result<Self, Error> {
        Ok(Self { client: self.client.approved(approval)?, runtime: Arc::clone(&self.runtime) })
    }

    /// As the async [`rate_limit`](crate::VaultClient::rate_limit).
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.client.rate_limit()
    }

    /// As the async [`tokenize`](crate::VaultClient::tokenize).
    ///
    /// # Errors
    /// As that.
    pub fn tokenize(&self, request: &TokenizeRequest) -> Result<TokenizeAnswer, Error> {
        self.wait(self.client.tokenize(request))
    }

    /// As the async [`tokenize_batch`](crate::VaultClient::tokenize_batch).
    ///
    /// # Errors
    /// As that.
    pub fn tokenize_batch(
        &self,
        items: &[TokenizeRequest],
    ) -> Result<Vec<Result<TokenizeAnswer, ItemError>>, Error> {
        self.wait(self.client.tokenize_batch(items))
    }

    /// As the async [`detokenize`](crate::VaultClient::detokenize).
    ///
    /// # Errors
    /// As that.
    pub fn detokenize(&self, token: &str) -> Result<Detokenized, Error> {
        self.wait(self.client.detokenize(token))
    }

    /// As the async [`detokenize_masked`](crate::VaultClient::detokenize_masked).
    ///
    /// # Errors
    /// As that.
    pub fn detokenize_masked(&self, token: &str) -> Result<String, Error> {
        self.wait(self.client.detokenize_masked(token))
    }

    /// As the async [`detokenize_batch`](crate::VaultClient::detokenize_batch).
    ///
    /// # Errors
    /// As that.
    pub fn detokenize_batch(
        &self,
        tokens: &[impl AsRef<str>],
    ) -> Result<Vec<Result<Detokenized, ItemError>>, Error> {
        self.wait(self.client.detokenize_batch(tokens))
    }

    /// As the async [`token`](crate::VaultClient::token).
    ///
    /// # Errors
    /// As that.
    pub fn token(&self, token: &str) -> Result<TokenRecord, Error> {
        self.wait(self.client.token(token))
    }

    /// As the async [`update`](crate::VaultClient::update).
    ///
    /// # Errors
    /// As that.
    pub fn update(&self, token: &str, patch: &TokenPatch) -> Result<TokenRecord, Error> {
        self.wait(self.client.update(token, patch))
    }

    /// As the async [`delete`](crate::VaultClient::delete).
    ///
    /// # Errors
    /// As that.
    pub fn delete(&self, token: &str) -> Result<(), Error> {
        self.wait(self.client.delete(token))
    }

    /// As the async [`search`](crate::VaultClient::search).
    ///
    /// # Errors
    /// As that.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchAnswer, Error> {
        self.wait(self.client.search(request))
    }

    /// As the async [`compare`](crate::VaultClient::compare).
    ///
    /// # Errors
    /// As that.
    pub fn compare(&self, token: &str, pan: &Sensitive) -> Result<bool, Error> {
        self.wait(self.client.compare(token, pan))
    }

    /// As the async [`seal_envelope`](crate::VaultClient::seal_envelope).
    ///
    /// # Errors
    /// As that.
    pub fn seal_envelope(&self, request: &SealEnvelopeRequest) -> Result<SealEnvelopeAnswer, Error> {
        self.wait(self.client.seal_envelope(request))
    }

    /// As the async [`open_envelope`](crate::VaultClient::open_envelope).
    ///
    /// # Errors
    /// As that.
    pub fn open_envelope(&self, jwt: &str) -> Result<OpenEnvelopeAnswer, Error> {
        self.wait(self.client.open_envelope(jwt))
    }

    /// As the async [`login`](crate::VaultClient::login).
    ///
    /// # Errors
    /// As that.
    pub fn login(&self, request: &LoginRequest) -> Result<LoginAnswer, Error> {
        self.wait(self.client.login(request))
    }

    /// As the async [`jwks`](crate::VaultClient::jwks).
    ///
    /// # Errors
    /// As that.
    pub fn jwks(&self) -> Result<JwkSet, Error> {
        self.wait(self.client.jwks())
    }

    /// As the async [`health`](crate::VaultClient::health).
    ///
    /// # Errors
    /// As that.
    pub fn health(&self) -> Result<Health, Error> {
        self.wait(self.client.health())
    }

    /// As the async [`readiness`](crate::VaultClient::readiness).
    ///
    /// # Errors
    /// As that.
    pub fn readiness(&self) -> Result<Readiness, Error> {
        self.wait(self.client.readiness())
    }

    /// As the async [`openapi`](crate::VaultClient::openapi).
    ///
    /// # Errors
    /// As that.
    pub fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.wait(self.client.openapi())
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(call)
    }
}

impl ClientBuilder {
    /// The client for programs without an async runtime. Neither connects nor logs in nor reads the token file yet.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`], and [`Error::Config`] if the runtime cannot be set up.
    pub fn build_blocking(self) -> Result<VaultClient, Error> {
        let client = self.build()?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime =
            runtime.map_err(|error| Error::Config(format!("cannot set up its runtime: {error}")))?;
        Ok(VaultClient { client, runtime: Arc::new(runtime) })
    }
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("blocking").field(&self.client).finish()
    }
}
