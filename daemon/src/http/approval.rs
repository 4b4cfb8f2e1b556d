//! Requests that a second person must approve: the header `X-Vault-Approval`.

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderName, HeaderValue, Request, Response},
    response::IntoResponse,
};
use tower::Service;
use vault_api::Code;

use super::{
    app::App,
    body,
    problem::Failure,
    trail::{Call, Trail},
};
use crate::{
    auth::{ApprovalError, AuthError, approval_digest},
    vault::now_s,
};

const APPROVAL: HeaderName = HeaderName::from_static("x-vault-approval");

/// What a request that may need an approval has brought. Travels as an extension of the request.
#[derive(Clone)]
pub(super) struct Approvable {
    op: &'static str,
    digest: String,
    given: Vec<HeaderValue>,
}

impl Approvable {
    /// Whether it depends on the body if an approval is needed: then the handler asks.
    fn depends(&self) -> bool {
        ["detokenize", "detokenize.batch"].contains(&self.op)
    }
}

/// Goes on with a request. Of one that may need an approval the body is read first: the approval is for its bytes.
pub(super) async fn go_on(
    app: &App,
    op: Option<&'static str>,
    request: Request<Body>,
    router: &Router,
) -> Response<Body> {
    let request = match op.filter(|op| app.approvals().name(op)) {
        None => Ok(request),
        Some(op) => with_digest(app, op, request).await,
    };
    match request {
        Ok(request) => {
            // It is always ready, and never fails.
            let Ok(response) = router.clone().call(request).await;
            response
        }
        Err(failure) => failure.into_response(),
    }
}

async fn with_digest(app: &App, op: &'static str, request: Request<Body>) -> Result<Request<Body>, Failure> {
    // Before anything is kept in memory for it.
    let caller = app.identify(&request).await?;
    if let Some(trail) = request.extensions().get::<Trail>() {
        trail.caller(&caller);
    }
    app.refuse_locked(caller.issuer(), caller.subject())?;
    let (mut parts, body) = request.into_parts();
    let ended = body.is_end_stream();
    let bytes = body::read_bytes(body, app.limits().body_bytes, app.limits().body_timeout).await?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let digest = approval_digest(parts.method.as_str(), target, &bytes);
    let given = parts.headers.get_all(APPROVAL).iter().cloned().collect();
    parts.extensions.insert(Approvable { op, digest, given });
    let body = if ended { Body::empty() } else { Body::from(Bytes::from_owner(bytes)) };
    Ok(Request::from_parts(parts, body))
}

impl App {
    /// Refuses what needs a second person and has none, unless that depends on the body.
    pub(super) async fn require_approval(&self, call: &Call) -> Result<(), Failure> {
        match call.approvable().filter(|approvable| !approvable.depends()) {
            None => Ok(()),
            Some(approvable) => self.approve(call, approvable).await,
        }
    }

    /// Refuses to reveal `items` cards at once if that needs a second person and has none.
    pub(super) async fn require_approval_of(&self, call: &Call, items: usize) -> Result<(), Failure> {
        let Some(approvable) = call.approvable().filter(|approvable| approvable.depends()) else {
            return Ok(());
        };
        let free = approvable.op == "detokenize.batch" && items <= self.approvals().free_batch_items;
        if free { Ok(()) } else { self.approve(call, approvable).await }
    }

    async fn approve(&self, call: &Call, approvable: &Approvable) -> Result<(), Failure> {
        let refuse = |why: &str| Failure::new(Code::ApprovalRequired, why);
        let Approvable { op, digest, given } = approvable;
        let jwt = match given.as_slice() {
            [] => {
                return Err(refuse(&format!(
                    "`{op}` needs the approval of a second person in x-vault-approval: a JWT with the scope \
                     `approve` and the claim `approves` \"{digest}\""
                )));
            }
            [jwt] => jwt.to_str().map_err(|_| refuse("the approval is no JWT"))?,
            _ => return Err(refuse("there are two approvals")),
        };
        let max_age_s = self.approvals().max_age_s;
        let approver = match self.auth().approval(jwt, call, digest, max_age_s, now_s()).await {
            Err(ApprovalError::Jwt(error @ (AuthError::Store(_) | AuthError::ReplayMemoryFull))) => {
                return Err(error.into());
            }
            approver => approver.map_err(|error| refuse(&error.to_string()))?,
        };
        if self.guards().is_locked(&approver.issuer, &approver.subject) {
            return Err(refuse("the approval is of a caller that is locked"));
        }
        call.trail().approved_by(approver);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use crate::{auth::APPROVABLE, http::trail::operation};

    #[test]
    fn what_can_be_approved_are_operations_of_the_audit_log() {
        let routes = [
            (Method::POST, "/v1/detokenize"),
            (Method::POST, "/v1/detokenize/batch"),
            (Method::GET, "/v1/tokens/{token}"),
            (Method::PATCH, "/v1/tokens/{token}"),
            (Method::DELETE, "/v1/tokens/{token}"),
            (Method::POST, "/v1/envelopes/open"),
            (Method::GET, "/v1/keys"),
            (Method::POST, "/v1/keys/{purpose}/rotate"),
            (Method::DELETE, "/v1/keys/{purpose}/{version}"),
            (Method::POST, "/v1/rewrap"),
            (Method::POST, "/v1/reload"),
            (Method::GET, "/v1/locks"),
            (Method::POST, "/v1/locks/unlock"),
            (Method::GET, "/v1/honey"),
            (Method::POST, "/v1/honey"),
            (Method::DELETE, "/v1/honey/{tenant}/{token}"),
            (Method::GET, "/v1/audit"),
        ];
        let operations = routes.map(|(method, route)| operation(&method, route));
        assert_eq!(operations, APPROVABLE.map(Some));
    }
}
