//! What every handler needs, and the steps that begin every request.

use std::{
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, Request, Response, header},
    response::IntoResponse,
};
use serde::de::DeserializeOwned;
use vault_api::{Reloaded, Scope};
use zeroize::Zeroizing;

use super::{
    approval::{Approvable, go_on},
    batch::FailedItems,
    body,
    metrics::HttpStats,
    problem::Failure,
    router::{openapi, route_name},
    server::Server,
    tenants::{TenantOf, Tenants},
    trail::{Abandoned, Call, Trail, operation},
    turned_away::TurnedAway,
};
use crate::{
    audit::{Audit, AuditError, PATIENCE},
    auth::{ApprovalRules, AuthError, Authenticator, Caller, Login, Peer},
    config::Limits,
    guards::Guards,
    vault::{Vault, now_s},
};

/// What stands for a code in logs and counts where there is none: done, or refused without one.
const OK: &str = "ok";
const NONE: &str = "none";
const WORDLESS: [&str; 2] = [OK, NONE];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Reads issuers and peers anew; says what is in force now, or why nothing has changed.
pub type Reload = Box<dyn Fn() -> Result<Reloaded, String> + Send + Sync>;

/// The application behind the sockets. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    vault: Vault,
    auth: Arc<Authenticator>,
    login: Arc<Login>,
    audit: Audit,
    guards: Guards,
    approvals: ApprovalRules,
    /// The `RateLimit-Policy` of reveals.
    reveal_policy: Option<HeaderValue>,
    tenants: Tenants,
    turned_away: TurnedAway,
    stats: HttpStats,
    limits: Limits,
    /// Made when somebody asks for it: few vaults are ever asked, and it takes 2 MiB to make.
    openapi: OnceLock<Bytes>,
    reload: Reload,
    started: Instant,
    request_prefix: String,
    requests: AtomicU64,
}

/// What decides about callers.
pub struct Callers {
    /// Who they are.
    pub auth: Arc<Authenticator>,
    /// Logs local services in.
    pub login: Arc<Login>,
    /// How many cards they may take.
    pub guards: Guards,
    /// What they may do only if somebody else approves.
    pub approvals: ApprovalRules,
}

impl App {
    /// An application. `boot_id` makes request ids unique across restarts.
    pub fn new(
        vault: Vault,
        callers: Callers,
        audit: Audit,
        limits: Limits,
        reload: Reload,
        boot_id: u32,
    ) -> Self {
        let request_prefix = format!("{boot_id:08x}");
        let requests = AtomicU64::new(1);
        let tenants = Tenants::new(limits.requests_per_second_per_tenant);
        let Callers { auth, login, guards, approvals } = callers;
        let reveal_policy = HeaderValue::try_from(guards.policy()).ok().filter(|policy| !policy.is_empty());
        let inner = Inner {
            vault,
            auth,
            login,
            guards,
            approvals,
            reveal_policy,
            audit,
            tenants,
            turned_away: TurnedAway::default(),
            stats: HttpStats::new(),
            limits,
            openapi: OnceLock::new(),
            reload,
            started: Instant::now(),
            request_prefix,
            requests,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    pub(super) fn login(&self) -> &Login {
        &self.inner.login
    }

    pub(super) fn guards(&self) -> &Guards {
        &self.inner.guards
    }

    pub(super) fn approvals(&self) -> &ApprovalRules {
        &self.inner.approvals
    }

    pub(super) fn reveal_policy(&self) -> Option<HeaderValue> {
        self.inner.reveal_policy.clone()
    }

    pub(super) fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    pub(super) fn turned_away(&self) -> &TurnedAway {
        &self.inner.turned_away
    }

    pub(super) fn tenants(&self) -> &Tenants {
        &self.inner.tenants
    }

    pub(super) fn auth(&self) -> &Authenticator {
        &self.inner.auth
    }

    pub(super) fn stats(&self) -> &HttpStats {
        &self.inner.stats
    }

    /// Shows the connections of `server` among its metrics.
    pub fn count_connections(&self, server: &Server) {
        self.inner.stats.watch(server.connections());
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Reads issuers and peers anew; goes on to its end even if nobody waits for it any more.
    ///
    /// # Errors
    /// What is wrong with them; those that were in force stay.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        let inner = Arc::clone(&self.inner);
        // From files: not for a thread of the runtime.
        let reloaded = tokio::task::spawn_blocking(move || (inner.reload)()).await;
        reloaded.unwrap_or_else(|_| Err("they were not read to the end".to_owned()))
    }

    pub(super) fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    pub(super) fn openapi_json(&self) -> Bytes {
        let make = || openapi(self.vault().envelope_rules().max_expires_in_s);
        self.inner.openapi.get_or_init(|| serde_json::to_vec(&make()).unwrap_or_default().into()).clone()
    }

    /// Who calls, whatever it may do.
    pub(super) fn identify(
        &self,
        request: &Request<Body>,
    ) -> impl Future<Output = Result<Caller, AuthError>> + Send + use<'_> {
        let mut headers = request.headers().get_all(header::AUTHORIZATION).iter();
        let (value, another) = (headers.next().cloned(), headers.next().is_some());
        let peer = request.extensions().get::<Peer>().copied();
        let trail = request.extensions().get::<Trail>().cloned();
        async move {
            if another {
                return Err(AuthError::Invalid("there are two Authorization headers"));
            }
            let (value, peer) = (value.as_ref().map(HeaderValue::as_bytes), peer.ok_or(AuthError::Sender)?);
            let identified = self.inner.auth.identify(value, peer, now_s()).await;
            if let (Err(AuthError::Tenant(stranger) | AuthError::Approval(stranger)), Some(trail)) =
                (&identified, trail)
            {
                trail.stranger(stranger);
            }
            identified
        }
    }

    /// Who calls, if it may do what needs one of `scopes`.
    ///
    /// What is needed of `request` is taken before the first await: a request cannot be shared between threads.
    pub(super) fn authorize<'a>(
        &'a self,
        request: &Request<Body>,
        scopes: &'a [Scope],
    ) -> impl Future<Output = Result<Call, Failure>> + Send + use<'a> {
        let identified = self.identify(request);
        let tenant_of = request.extensions().get::<TenantOf>().cloned();
        let trail = request.extensions().get::<Trail>().cloned();
        let approvable = request.extensions().get::<Approvable>().cloned();
        async move {
            let call = Call::new(identified.await?, trail.unwrap_or_default(), approvable);
            self.refuse_locked(call.issuer(), call.subject())?;
            self.inner.auth.permit(&call, scopes).await?;
            self.admit_tenant(call.tenant(), tenant_of.as_ref())?;
            call.trail().admitted();
            self.require_approval(&call).await?;
            Ok(call)
        }
    }

    /// The request's body as it came, within the limits.
    pub(super) async fn body(&self, request: Request<Body>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        body::read(request, self.limits().body_bytes, self.limits().body_timeout).await
    }

    /// The request's body as a `T`.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: Request<Body>) -> Result<T, Failure> {
        body::parse(&self.body(request).await?)
    }

    /// Refuses a body that says anything, where none is asked for.
    pub(super) async fn no_body(&self, request: Request<Body>) -> Result<(), Failure> {
        body::read_nothing(request, self.limits().body_bytes, self.limits().body_timeout).await
    }

    fn next_request_id(&self) -> String {
        let number = self.inner.requests.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.inner.request_prefix)
    }
}

/// A method as it may be logged: it can be any text.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Around every request: gives it an id, has `router` answer it, finishes failures, logs the outcome without any card data or
/// token, and lets the answer go when its entry is in the audit log. `via` is the socket.
pub(super) async fn around(
    app: &App,
    via: &'static str,
    router: &Router,
    mut request: Request<Body>,
) -> Response<Body> {
    let started = Instant::now();
    let id = app.next_request_id();
    let (method, route) = (method_name(request.method()), route_name(request.uri().path()));
    let tenant_of = TenantOf::default();
    request.extensions_mut().insert(tenant_of.clone());
    let op = operation(request.method(), route);
    let trail = op.map(|op| Trail::new(op, via, &request));
    if let Some(trail) = &trail {
        request.extensions_mut().insert(trail.clone());
    }
    let uid = request.extensions().get::<Peer>().map(|peer| peer.uid);
    let abandoned = trail.as_ref().map(|trail| Abandoned::unless_done(app, &id, uid, trail));
    let limit = app.limits().request_timeout;
    // One clock for the work and its entry: each costs more than it looks.
    let mut late = pin!(tokio::time::sleep(limit));
    // Before anything is done that nobody could read about.
    let begun = trail.as_ref().map(|_| app.audit().begin()).transpose();
    let mut has_entry = begun.is_ok();
    let mut response = if let Err(error) = &begun {
        Failure::from(error.clone()).into_response()
    } else {
        tokio::select! {
            response = go_on(app, op, request, router) => response,
            () = &mut late => {
                // For its entry.
                late.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
                Failure::late(limit).into_response()
            }
        }
    };
    if has_entry
        && response.status().is_client_error()
        && trail.as_ref().is_some_and(Trail::is_turned_away)
        && !app.writes_refusal(uid)
    {
        has_entry = false;
    }
    let mut code = match response.extensions_mut().remove::<Failure>() {
        Some(failure) => {
            let code = failure.code;
            if let Some(cause) = &failure.cause {
                tracing::error!(id, route, %code, cause, "the vault could not do what it was asked");
            }
            let allow = response.headers_mut().remove(header::ALLOW);
            response = failure.answer(&id);
            response.headers_mut().extend(allow.map(|methods| (header::ALLOW, methods)));
            code.as_str()
        }
        None if response.status().is_success() => OK,
        None => NONE,
    };
    if let Some(FailedItems { count, cause }) = response.extensions_mut().remove() {
        tracing::error!(id, route, items = count, cause, "the vault could not do some items of a batch");
    }
    if let Some(abandoned) = abandoned {
        // The entry goes to the log now, whether or not the caller stays for the answer.
        abandoned.done();
    }
    if let Some(trail) = trail.as_ref().filter(|_| has_entry) {
        let written_code = Some(code).filter(|code| !WORDLESS.contains(code));
        let status = Some(response.status().as_u16());
        let recorded = tokio::select! {
            // Handed over in any case, if the time is up as well.
            biased;
            recorded = app.audit().record(|| trail.entry(&id, status, written_code)) => recorded,
            () = &mut late => Err(AuditError::Late),
        };
        if let Err(error) = recorded {
            let may_come = error == AuditError::Late;
            if response.status().is_success() {
                trail.done();
            }
            let failure = Failure::unaudited();
            code = failure.code.as_str();
            response = failure.answer(&id);
            if !may_come {
                // What was done has an entry as soon as there can be one.
                app.audit().note(trail.entry(&id, Some(response.status().as_u16()), Some(code)));
            }
        }
    }
    app.tenants().count(&tenant_of, route, code);
    let (status, time) = (response.status().as_u16(), started.elapsed());
    app.stats().answered(route, time);
    let micros = time.as_micros();
    match status {
        500.. => tracing::warn!(id, method, route, status, code, micros, "request failed"),
        401 | 403 => tracing::info!(id, method, route, status, code, micros, "request refused"),
        _ => tracing::debug!(id, method, route, status, code, micros, "request"),
    }
    if let Ok(id) = HeaderValue::try_from(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
