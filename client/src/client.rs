//! The client's public face: one method for each endpoint.

use std::{fmt, path::PathBuf, sync::Arc};

use hyper::{Method, StatusCode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use vault_api::{
    CompareAnswer, DetokenizeBatchRequest, DetokenizeRequest, Health, JwkSet, LoginAnswer, LoginRequest,
    OpenEnvelopeAnswer, Readiness, Reveal, SealEnvelopeAnswer, SealEnvelopeRequest, SearchAnswer,
    SearchRequest, Sensitive, TokenPatch, TokenRecord, TokenizeAnswer, TokenizeRequest,
};

use crate::{
    Admin, ClientBuilder, Detokenized, Error, ItemError, RateLimit, batch,
    call::{Call, Caller},
    path,
    retry::Effect,
    transport::Transport,
};

/// The name of the admin socket, beside the API's.
pub const ADMIN_SOCKET_NAME: &str = "admin.sock";

/// Operators come one by one.
const ADMIN_MAX_IDLE: usize = 1;

/// A client of one vault. Clones are cheap and share connections and token; use it within a Tokio runtime with
/// I/O and time enabled.
///
/// # Errors
/// Every method fails with [`Error::Api`] when the vault refuses, and with the other variants of [`Error`] when it
/// cannot be asked or understood. Dropping a method's future abandons the request; the vault may still carry it out.
///
/// # What is sent again
/// After a wait, at most [`RetryPolicy::max_attempts`](crate::RetryPolicy) times and never past the timeout:
///
/// | what happened | `tokenize`, `tokenize_batch` | `open_envelope` | all others |
/// |---|---|---|---|
/// | no connection | again | again | again |
/// | the connection broke | only with [`ClientBuilder::retry_tokenize`] | error | again |
/// | `rate_limited`, `overloaded`, `hsm_unavailable` | again | again | again |
/// | `store_unavailable`, `audit_unavailable` | only with [`ClientBuilder::retry_tokenize`] | error | again |
/// | anything else | error | error | error |
///
/// With an [approval](Self::approved) only what found no connection is sent again: the vault takes an approval once. And
/// where the vault takes a JWT once, a call that was sent again with a spent one fails with what the first attempt met.
#[derive(Clone)]
pub struct VaultClient(pub(crate) Arc<Inner>);

/// What the clones of a client share.
pub(crate) struct Inner {
    pub(crate) caller: Caller,
    pub(crate) retry_tokenize: bool,
}

impl VaultClient {
    /// Sets up a client of the vault that listens on the Unix socket `socket`.
    pub fn builder(socket: impl Into<PathBuf>) -> ClientBuilder {
        ClientBuilder::new(socket)
    }

    /// A client with the defaults of [`ClientBuilder`], the socket from `VAULT_SOCKET` and the token from
    /// `VAULT_TOKEN` or `VAULT_TOKEN_FILE`; with neither it logs in. See [`ClientBuilder::from_env`].
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Token`] if one of them cannot be used.
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env()?.build()
    }

    /// The operator's client of the same vault, over its admin socket `socket`. It has this client's patience and its token;
    /// if this client logs in, that does.
    ///
    /// # Errors
    /// [`Error::Config`] if the socket's path cannot be one.
    pub fn admin(&self, socket: impl Into<PathBuf>) -> Result<Admin, Error> {
        let transport = Transport::new(socket.into(), ADMIN_MAX_IDLE)?;
        Ok(Admin(Arc::new(self.0.caller.over(transport))))
    }

    /// As [`VaultClient::admin`], with the socket from `VAULT_ADMIN_SOCKET`, or else [`ADMIN_SOCKET_NAME`] beside the
    /// API's socket.
    ///
    /// # Errors
    /// As that.
    pub fn admin_from_env(&self) -> Result<Admin, Error> {
        let named = std::env::var_os("VAULT_ADMIN_SOCKET").filter(|value| !value.is_empty());
        let beside = || self.0.caller.transport.socket().with_file_name(ADMIN_SOCKET_NAME);
        self.admin(named.map_or_else(beside, PathBuf::from))
    }

    /// A client whose calls carry a second JWT, of another subject, in `X-Vault-Approval`: for one of the operations that
    /// the vault does for two people only.
    ///
    /// # Errors
    /// [`Error::Token`] if it cannot be a JWT.
    pub fn approved(&self, approval: &SecretString) -> Result<Self, Error> {
        let caller = self.0.caller.approved(approval)?;
        Ok(Self(Arc::new(Inner { caller, retry_tokenize: self.0.retry_tokenize })))
    }

    /// What the last answer that spoke of limits said, be it a refusal; `None` before the first. The vault says it of what
    /// reveals cards, where its configuration has limits. Clones share it.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.0.caller.limit.get()
    }

    /// Swaps a PAN for a token. Needs the scope `tokenize`.
    ///
    /// # Errors
    /// `invalid_pan`, `invalid_request`, `token_space_exhausted` and what the [type](Self#errors) says. After
    /// [`Error::Broken`] or [`Error::Timeout`] the token may exist.
    pub async fn tokenize(&self, request: &TokenizeRequest) -> Result<TokenizeAnswer, Error> {
        let call = Call::new(Method::POST, "/v1/tokenize")
            .json(request)?
            .effect(self.tokenize_effect())
            .expect(&[StatusCode::OK, StatusCode::CREATED]);
        self.0.caller.make(&call).await?.json()
    }

    /// Swaps 1 to 1,000 PANs for tokens. Needs the scope `tokenize`. The results are in the order of `items`; one bad
    /// item fails alone.
    ///
    /// # Errors
    /// As the [type](Self#errors) says, for the batch as a whole.
    pub async fn tokenize_batch(
        &self,
        items: &[TokenizeRequest],
    ) -> Result<Vec<Result<TokenizeAnswer, ItemError>>, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            items: &'a [TokenizeRequest],
        }

        let call = Call::new(Method::POST, "/v1/tokenize/batch")
            .json(&Body { items })?
            .effect(self.tokenize_effect());
        batch::results(&self.0.caller.make(&call).await?, items.len())
    }

    /// Swaps a token back for its PAN. Needs the scope `detokenize`.
    ///
    /// # Errors
    /// `unknown_token`, `token_expired` and what the [type](Self#errors) says.
    pub async fn detokenize(&self, token: &str) -> Result<Detokenized, Error> {
        let request = DetokenizeRequest { token: token.to_owned(), reveal: None };
        let call = Call::new(Method::POST, "/v1/detokenize").json(&request)?;
        self.0.caller.make(&call).await?.json()
    }

    /// The masked PAN of a token: first six and last four digits, the others as `*`. The scope `detokenize:masked` is
    /// enough.
    ///
    /// # Errors
    /// As [`VaultClient::detokenize`].
    pub async fn detokenize_masked(&self, token: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Masked {
            masked_pan: String,
        }

        let request = DetokenizeRequest { token: token.to_owned(), reveal: Some(Reveal::Masked) };
        let call = Call::new(Method::POST, "/v1/detokenize").json(&request)?;
        let Masked { masked_pan } = self.0.caller.make(&call).await?.json()?;
        Ok(masked_pan)
    }

    /// Swaps 1 to 1,000 tokens back for their PANs. Needs the scope `detokenize`. The results are in the order of
    /// `tokens`; one bad token fails alone.
    ///
    /// # Errors
    /// As the [type](Self#errors) says, for the batch as a whole.
    pub async fn detokenize_batch(
        &self,
        tokens: &[impl AsRef<str>],
    ) -> Result<Vec<Result<Detokenized, ItemError>>, Error> {
        let request =
            DetokenizeBatchRequest { tokens: tokens.iter().map(|token| token.as_ref().to_owned()).collect() };
        let call = Call::new(Method::POST, "/v1/detokenize/batch").json(&request)?;
        batch::cards(&self.0.caller.make(&call).await?, request.tokens.len())
    }

    /// The record of a token, without the PAN. Needs the scope `tokens:read`.
    ///
    /// # Errors
    /// `unknown_token`, `token_expired` and what the [type](Self#errors) says.
    pub async fn token(&self, token: &str) -> Result<TokenRecord, Error> {
        let call = Call::new(Method::GET, path::under("/v1/tokens", [token]));
        self.0.caller.make(&call).await?.json()
    }

    /// Changes the metadata or the lifetime of a token and gives back its record. Needs the scope `tokens:write`.
    ///
    /// # Errors
    /// `unknown_token`, `token_expired`, `invalid_request` and what the [type](Self#errors) says.
    pub async fn update(&self, token: &str, patch: &TokenPatch) -> Result<TokenRecord, Error> {
        let call = Call::new(Method::PATCH, path::under("/v1/tokens", [token])).json(patch)?;
        self.0.caller.make(&call).await?.json()
    }

    /// Deletes a token and its PAN. Needs the scope `tokens:delete`.
    ///
    /// If the connection broke and the token is gone at the next attempt, that is success.
    ///
    /// # Errors
    /// `unknown_token` and what the [type](Self#errors) says.
    pub async fn delete(&self, token: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, path::under("/v1/tokens", [token]))
            .effect(Effect::Removes)
            .expect(&[StatusCode::NO_CONTENT]);
        self.0.caller.make(&call).await?;
        Ok(())
    }

    /// One page of the records of a holder or a PAN. Needs the scope `tokens:search`. The rest comes with the `cursor` of
    /// the answer and the same search.
    ///
    /// # Errors
    /// `invalid_request`, `invalid_pan` and what the [type](Self#errors) says.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchAnswer, Error> {
        let call = Call::new(Method::POST, "/v1/tokens/search").json(request)?;
        self.0.caller.make(&call).await?.json()
    }

    /// Whether a token stands for a PAN. Needs the scope `tokens:compare`, and shows no card data.
    ///
    /// # Errors
    /// `unknown_token`, `token_expired`, `invalid_pan` and what the [type](Self#errors) says.
    pub async fn compare(&self, token: &str, pan: &Sensitive) -> Result<bool, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            token: &'a str,
            pan: &'a Sensitive,
        }

        let call = Call::new(Method::POST, "/v1/tokens/compare").json(&Body { token, pan })?;
        let CompareAnswer { equal } = self.0.caller.make(&call).await?.json()?;
        Ok(equal)
    }

    /// Seals card data into a signed JWT. Needs the scope `envelopes:seal`. The vault stores nothing.
    ///
    /// # Errors
    /// `invalid_pan`, `invalid_request` and what the [type](Self#errors) says.
    pub async fn seal_envelope(&self, request: &SealEnvelopeRequest) -> Result<SealEnvelopeAnswer, Error> {
        let call = Call::new(Method::POST, "/v1/envelopes").json(request)?;
        self.0.caller.make(&call).await?.json()
    }

    /// Opens an envelope: verifies the JWT and gives back the card data in it. Needs the scope `envelopes:open`.
    ///
    /// It is not sent again once the vault may have opened it: a single-use envelope would be spent, and the answer a
    /// misleading `envelope_replayed`. For an envelope that may be opened again, call it again.
    ///
    /// # Errors
    /// `envelope_invalid`, `envelope_expired`, `envelope_replayed` and what the [type](Self#errors) says. After
    /// [`Error::Broken`] or [`Error::Timeout`] a single-use envelope may be spent.
    pub async fn open_envelope(&self, jwt: &str) -> Result<OpenEnvelopeAnswer, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            jwt: &'a str,
        }

        let call = Call::new(Method::POST, "/v1/envelopes/open").json(&Body { jwt })?.effect(Effect::Spends);
        self.0.caller.make(&call).await?.json()
    }

    /// A JWT by the kernel's word: the vault knows the caller by its user and its systemd unit. Needs no token.
    ///
    /// A client that is to use the JWT itself need not call this: see [`ClientBuilder::login`].
    ///
    /// # Errors
    /// `sender_mismatch` if no rule lets the caller log in, `wrong_tenant` if none does for this client,
    /// `insufficient_scope`, `caller_locked`, `invalid_request` and what the [type](Self#errors) says.
    pub async fn login(&self, request: &LoginRequest) -> Result<LoginAnswer, Error> {
        self.0.caller.make(&Call::login(request)?).await?.json()
    }

    /// The vault's public keys (RFC 7517). Needs no token.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn jwks(&self) -> Result<JwkSet, Error> {
        let call = Call::new(Method::GET, "/.well-known/jwks.json").public();
        self.0.caller.make(&call).await?.json()
    }

    /// Whether the process runs and answers. Needs no token.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn health(&self) -> Result<Health, Error> {
        self.0.caller.make(&Call::new(Method::GET, "/healthz").public()).await?.json()
    }

    /// Whether HSM, store and audit log can be used. A vault that says no is an answer, not an error. Needs no token.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn readiness(&self) -> Result<Readiness, Error> {
        let call = Call::new(Method::GET, "/readyz")
            .public()
            .expect(&[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
        self.0.caller.make(&call).await?.json()
    }

    /// The OpenAPI 3.1 document of the vault. Needs no token.
    ///
    /// # Errors
    /// As the [type](Self#errors) says.
    pub async fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.0.caller.make(&Call::new(Method::GET, "/v1/openapi.json").public()).await?.json()
    }

    fn tokenize_effect(&self) -> Effect {
        if self.0.retry_tokenize { Effect::Idempotent } else { Effect::Creates }
    }
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient")
            .field("socket", &self.0.caller.transport.socket())
            .finish_non_exhaustive()
    }
}
