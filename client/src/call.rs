//! One call of the client: as many attempts as it takes and the policy allows.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Method, StatusCode, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use vault_api::{Code, LoginRequest};

use crate::{
    Error, TokenError,
    answer::Answer,
    bearer::{self, Bearer},
    limit::Latest,
    login::{Endpoint, Grant},
    retry::{Effect, RetryPolicy, Verdict, leaves_open, verdict},
    transport::{Credentials, Transport},
    wiping::WipingBuffer,
};

/// A request and what the client must know about it.
pub(crate) struct Call {
    method: Method,
    path: Cow<'static, str>,
    body: Option<Bytes>,
    needs_token: bool,
    effect: Effect,
    /// How long the vault may take on purpose.
    pause: Duration,
    /// The statuses that are answers and not errors.
    expected: &'static [StatusCode],
}

impl Call {
    /// A request without a body that is idempotent, needs a token and is answered with 200, unless said otherwise.
    pub(crate) fn new(method: Method, path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
            needs_token: true,
            effect: Effect::Idempotent,
            pause: Duration::ZERO,
            expected: &[StatusCode::OK],
        }
    }

    /// A login.
    pub(crate) fn login(request: &LoginRequest) -> Result<Self, Error> {
        Self::new(Method::POST, "/v1/login").public().json(request)
    }

    /// With `value` as its JSON body, in memory that is wiped after the last attempt.
    pub(crate) fn json(mut self, value: &impl Serialize) -> Result<Self, Error> {
        let mut body = WipingBuffer::default();
        // serde's message is dropped: it may repeat a value.
        serde_json::to_writer(&mut body, value)
            .map_err(|_| Error::Config("the request cannot be written as JSON".into()))?;
        self.body = Some(Bytes::from_owner(body));
        Ok(self)
    }

    /// Without a token.
    pub(crate) fn public(mut self) -> Self {
        self.needs_token = false;
        self
    }

    pub(crate) fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// With `pause` on top of the client's timeout.
    pub(crate) fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    pub(crate) fn expect(mut self, statuses: &'static [StatusCode]) -> Self {
        self.expected = statuses;
        self
    }

    /// What is called, whichever token, key or entry it is about: a path that names one is cut down to its first two
    /// segments.
    fn endpoint(&self) -> Endpoint {
        let path = match &self.path {
            Cow::Borrowed(path) => path,
            Cow::Owned(path) => {
                let path = path.split('?').next().unwrap_or_default();
                path.match_indices('/').nth(2).map_or(path, |(at, _)| path.split_at(at).0)
            }
        };
        (self.method.clone(), path.to_owned())
    }
}

/// Makes calls: the transport, the token and the client's patience. Clones share connections and token.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) transport: Arc<Transport>,
    /// Where a login goes: the API's socket, also for a client of the admin socket.
    pub(crate) login: Arc<Transport>,
    pub(crate) bearer: Arc<Bearer>,
    /// The `X-Vault-Approval` header.
    pub(crate) approval: Option<HeaderValue>,
    pub(crate) limit: Arc<Latest>,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryPolicy,
}

impl Caller {
    /// Makes `call` and gives back the answer, whose status is one the call expects.
    pub(crate) async fn make(&self, call: &Call) -> Result<Answer, Error> {
        let timeout = self.timeout.saturating_add(call.pause);
        let is_sent = AtomicBool::new(false);
        match tokio::time::timeout(timeout, self.attempts(call, timeout, &is_sent)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let is_sent = is_sent.into_inner();
                let asked = if is_sent { &self.transport } else { &self.login };
                let error = Error::Timeout { after: timeout, socket: asked.socket().to_owned() };
                Err(if is_sent { error } else { error.at_login() })
            }
        }
    }

    /// A caller with the same token and patience that sends its calls through `transport`.
    pub(crate) fn over(&self, transport: Transport) -> Self {
        Self { transport: Arc::new(transport), ..self.clone() }
    }

    /// A caller whose calls carry the second JWT `approval`.
    pub(crate) fn approved(&self, approval: &SecretString) -> Result<Self, TokenError> {
        let approval = bearer::approval(approval.expose_secret())?;
        Ok(Self { approval: Some(approval), ..self.clone() })
    }

    /// Tells `is_sent` as soon as the vault may have got the request, and not the login before it alone.
    async fn attempts(&self, call: &Call, timeout: Duration, is_sent: &AtomicBool) -> Result<Answer, Error> {
        let started = Instant::now();
        let mut may_be_done = false;
        // Why the first attempt failed that the vault may have got.
        let mut reached = None;
        let mut attempt = 1;
        loop {
            let Failed { error, retry_after, sent } = match self.attempt(call, is_sent).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let effect = match (sent, &self.approval) {
                // A login that failed has no effect that the request could have had.
                (false, _) => Effect::Idempotent,
                (true, Some(_)) => Effect::Approved,
                (true, None) => call.effect,
            };
            match verdict(effect, &error, may_be_done) {
                Verdict::SendAgain if attempt < self.retry.max_attempts => {}
                // It was that attempt that used the JWT up: this says what went wrong, and what may be done.
                Verdict::GiveUp if error.code() == Some(Code::ReplayedJwt) => {
                    return Err(reached.unwrap_or(error));
                }
                Verdict::SendAgain | Verdict::GiveUp => return Err(error),
                Verdict::AlreadyDone => return Ok(Answer::already_done()),
            }
            let wait = self.retry.wait(attempt, retry_after);
            if started.elapsed().saturating_add(wait) >= timeout {
                // The vault's reason says more than a timeout would.
                return Err(error);
            }
            may_be_done |= sent && leaves_open(&error);
            if sent && !matches!(error, Error::Connect { .. }) {
                reached = reached.or(Some(error));
            }
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt, or two if the token was refused and there is another one now: after a 401 the vault has done
    /// nothing, so this is safe whatever the call does.
    async fn attempt(&self, call: &Call, is_sent: &AtomicBool) -> Result<Answer, Failed> {
        if !call.needs_token {
            is_sent.store(true, Ordering::Relaxed);
            return self.exchange(call, None).await;
        }
        let token = self.token(call).await?;
        is_sent.store(true, Ordering::Relaxed);
        let failed = match self.exchange(call, Some(&token)).await {
            Err(failed) if failed.is_unauthorized() => failed,
            outcome => return outcome,
        };
        match self.renewed_token(&token, call, failed.error.code()).await {
            Ok(Some(renewed)) => self.exchange(call, Some(&renewed)).await,
            // No other token: the vault's answer says more than a file that has just gone away.
            Ok(None) => Err(failed),
            Err(login_failed) => Err(login_failed),
        }
    }

    async fn token(&self, call: &Call) -> Result<HeaderValue, Failed> {
        match &*self.bearer {
            Bearer::None => Err(TokenError::Missing.into()),
            Bearer::Fixed(header) => Ok(header.clone()),
            Bearer::File(file) => Ok(file.current()?),
            Bearer::Login(session, login) => session.current(&call.endpoint(), self.log_in(login)).await,
        }
    }

    /// Another token than `refused`, which the vault answered with `code` in `call`; `None` if there is no other.
    async fn renewed_token(
        &self,
        refused: &HeaderValue,
        call: &Call,
        code: Option<Code>,
    ) -> Result<Option<HeaderValue>, Failed> {
        match &*self.bearer {
            Bearer::None | Bearer::Fixed(_) => Ok(None),
            Bearer::File(file) => Ok(file.renewed(refused).unwrap_or(None)),
            Bearer::Login(session, login) => {
                let endpoint = call.endpoint();
                if code == Some(Code::ReplayedJwt) {
                    session.never_share(endpoint.clone());
                }
                session.renewed(refused, &endpoint, self.log_in(login)).await.map(Some)
            }
        }
    }

    async fn log_in(&self, call: &Call) -> Result<Grant, Failed> {
        let asked_at = tokio::time::Instant::now();
        let at_login = |failed: Failed| Failed { error: failed.error.at_login(), sent: false, ..failed };
        let answer =
            exchange(&self.login, call, Credentials::default(), &self.limit).await.map_err(at_login)?;
        let grant = answer.json().and_then(|answer| Grant::new(&answer, asked_at));
        grant.map_err(|error| at_login(error.into()))
    }

    async fn exchange(&self, call: &Call, token: Option<&HeaderValue>) -> Result<Answer, Failed> {
        let credentials = Credentials { authorization: token, approval: self.approval.as_ref() };
        exchange(&self.transport, call, credentials, &self.limit).await
    }
}

async fn exchange(
    transport: &Transport,
    call: &Call,
    credentials: Credentials<'_>,
    limit: &Latest,
) -> Result<Answer, Failed> {
    let mut answer = transport.exchange(&call.method, &call.path, credentials, call.body.as_ref()).await?;
    limit.keep(answer.limit.take());
    match answer.check(call.expected) {
        Ok(()) => Ok(answer),
        Err(error) => Err(Failed { error, retry_after: answer.retry_after, sent: true }),
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    error: Error,
    /// How long the vault asks to be left alone.
    retry_after: Option<Duration>,
    /// Whether it was the request itself that failed, and not the login before it.
    sent: bool,
}

impl Failed {
    fn is_unauthorized(&self) -> bool {
        self.error.code().is_some_and(|code| code.status() == StatusCode::UNAUTHORIZED.as_u16())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, sent: true }
    }
}

impl From<TokenError> for Failed {
    fn from(error: TokenError) -> Self {
        Self::from(Error::from(error))
    }
}
