//! One call of the client: as many attempts as it takes and the policy allows.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Method, StatusCode, header::HeaderValue};
use serde::Serialize;

use crate::{
    Error,
    answer::Answer,
    bearer::Bearer,
    retry::{Effect, RetryPolicy, Verdict, verdict},
    transport::Transport,
    wiping::WipingBuffer,
};

/// A request and what the client must know about it.
pub(crate) struct Call {
    method: Method,
    path: Cow<'static, str>,
    body: Option<Bytes>,
    needs_token: bool,
    effect: Effect,
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
            expected: &[StatusCode::OK],
        }
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

    pub(crate) fn expect(mut self, statuses: &'static [StatusCode]) -> Self {
        self.expected = statuses;
        self
    }
}

/// Makes calls: the transport, the token and the client's patience.
pub(crate) struct Caller {
    pub(crate) transport: Transport,
    pub(crate) bearer: Bearer,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryPolicy,
}

impl Caller {
    /// Makes `call` and gives back the answer, whose status is one the call expects.
    pub(crate) async fn make(&self, call: &Call) -> Result<Answer, Error> {
        match tokio::time::timeout(self.timeout, self.attempts(call)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                Err(Error::Timeout { after: self.timeout, socket: self.transport.socket().to_owned() })
            }
        }
    }

    async fn attempts(&self, call: &Call) -> Result<Answer, Error> {
        let started = Instant::now();
        let mut answer_lost = false;
        let mut attempt = 1;
        loop {
            let Failed { error, retry_after } = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            match verdict(call.effect, &error, answer_lost) {
                Verdict::SendAgain if attempt < self.retry.max_attempts => {}
                Verdict::SendAgain | Verdict::GiveUp => return Err(error),
                Verdict::AlreadyDone => return Ok(Answer::already_done()),
            }
            let wait = self.retry.wait(attempt, retry_after);
            if started.elapsed().saturating_add(wait) >= self.timeout {
                // The vault's reason says more than a timeout would.
                return Err(error);
            }
            answer_lost |= matches!(error, Error::Broken);
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt, or two if a token from a file was refused and the file holds another one now.
    async fn attempt(&self, call: &Call) -> Result<Answer, Failed> {
        let token = if call.needs_token { Some(self.bearer.current().map_err(Error::from)?) } else { None };
        let outcome = self.exchange(call, token.as_ref()).await;
        match (outcome, token) {
            (Err(failed), Some(refused)) if failed.is_unauthorized() => match self.bearer.renewed(&refused) {
                Ok(Some(renewed)) => self.exchange(call, Some(&renewed)).await,
                // No other token: the vault's answer says more than a file that has just gone away.
                Ok(None) | Err(_) => Err(failed),
            },
            (outcome, _) => outcome,
        }
    }

    async fn exchange(&self, call: &Call, token: Option<&HeaderValue>) -> Result<Answer, Failed> {
        let answer = self.transport.exchange(&call.method, &call.path, token, call.body.as_ref()).await?;
        match answer.check(call.expected) {
            Ok(()) => Ok(answer),
            Err(error) => Err(Failed { error, retry_after: answer.retry_after }),
        }
    }
}

/// An attempt that failed.
struct Failed {
    error: Error,
    /// How long the vault asks to be left alone.
    retry_after: Option<Duration>,
}

impl Failed {
    fn is_unauthorized(&self) -> bool {
        self.error.code().is_some_and(|code| code.status() == StatusCode::UNAUTHORIZED.as_u16())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None }
    }
}
