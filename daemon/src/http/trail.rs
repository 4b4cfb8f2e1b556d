//! What a request's entry in the audit log will say: noted on its way, written when its outcome is known.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::Body,
    http::{Method, Request},
};

use super::{app::App, approval::Approvable, server::PeerUnit};
use crate::{
    audit::{Access, Entry, FailedItem, Outcome},
    auth::{Approver, Caller, Peer, Stranger},
    vault::Token,
};

/// The notes. Travels as an extension of the request; clones are the same notes.
#[derive(Clone, Default)]
pub(super) struct Trail(Arc<Mutex<Noted>>);

/// A caller that was authorized, and the trail of what it does.
pub(super) struct Call {
    caller: Caller,
    trail: Trail,
    approvable: Option<Approvable>,
}

#[derive(Default)]
struct Noted {
    op: &'static str,
    via: &'static str,
    peer: Option<Peer>,
    unit: Option<Arc<str>>,
    caller: Option<Caller>,
    is_admitted: bool,
    /// Who it was that may not call.
    stranger: Option<Stranger>,
    /// Subject and tenant of a login.
    login: Option<(String, String)>,
    tokens: Vec<String>,
    /// Tokens that are no PANs, whatever the answer is.
    known: Vec<String>,
    failed: Vec<FailedItem>,
    jti: Option<String>,
    key: Option<String>,
    about: Option<String>,
    approved_by: Option<Approver>,
    detail: Option<String>,
    alarm: bool,
    /// Whether it was carried out, so that its tokens are tokens.
    is_done: bool,
}

impl Noted {
    /// How `token` may be written down if it was not given out.
    fn shown(&self, token: String) -> String {
        if self.known.contains(&token) { token } else { guarded(&token) }
    }
}

impl Call {
    pub(super) fn new(caller: Caller, trail: Trail, approvable: Option<Approvable>) -> Self {
        trail.caller(&caller);
        Self { caller, trail, approvable }
    }

    /// What it has brought for whoever asks for an approval.
    pub(super) fn approvable(&self) -> Option<&Approvable> {
        self.approvable.as_ref()
    }

    pub(super) fn trail(&self) -> &Trail {
        &self.trail
    }
}

impl Deref for Call {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Trail {
    /// The trail of `request`, which came through the socket `via` and asks for `op`.
    pub(super) fn new(op: &'static str, via: &'static str, request: &Request<Body>) -> Self {
        let peer = request.extensions().get::<Peer>().copied();
        let unit = request.extensions().get::<PeerUnit>().map(|unit| Arc::clone(&unit.0));
        Self(Arc::new(Mutex::new(Noted { op, via, peer, unit, ..Noted::default() })))
    }

    /// It is of `caller`.
    pub(super) fn caller(&self, caller: &Caller) {
        self.noted().caller = Some(caller.clone());
    }

    /// It is of somebody who may not call.
    pub(super) fn stranger(&self, stranger: &Stranger) {
        self.noted().stranger = Some(stranger.clone());
    }

    /// It is another operation than its path says.
    pub(super) fn op(&self, op: &'static str) {
        self.noted().op = op;
    }

    /// It is about `token`.
    pub(super) fn token(&self, token: &Token) {
        self.noted().tokens.push(token.to_string());
    }

    /// It is about these tokens.
    pub(super) fn tokens(&self, tokens: impl IntoIterator<Item = String>) {
        self.noted().tokens.extend(tokens);
    }

    /// What became of each of its tokens is known now, and noted one by one.
    pub(super) fn forget_tokens(&self) {
        self.noted().tokens.clear();
    }

    /// The vault knows `token`, whatever it answers.
    pub(super) fn known(&self, token: &Token) {
        self.noted().known.push(token.to_string());
    }

    /// The item of a batch that was about `token` failed with `code`.
    pub(super) fn failed(&self, token: Option<&Token>, code: &'static str) {
        let mut noted = self.noted();
        let token = token.map(|token| noted.shown(token.to_string()));
        noted.failed.push(FailedItem { token, code });
    }

    /// Its caller may ask for it, and not too often.
    pub(super) fn admitted(&self) {
        self.noted().is_admitted = true;
    }

    /// Whether it was refused for its caller, whatever it asked for.
    pub(super) fn is_turned_away(&self) -> bool {
        !self.noted().is_admitted
    }

    /// It was carried out, whatever its answer says.
    pub(super) fn done(&self) {
        self.noted().is_done = true;
    }

    /// It is about the envelope with this id.
    pub(super) fn jti(&self, jti: &str) {
        self.noted().jti = Some(jti.to_owned());
    }

    /// It is about this key.
    pub(super) fn key(&self, key: &impl ToString) {
        self.noted().key = Some(key.to_string());
    }

    /// It is about this other caller, whatever somebody called it: a line has to stay one that can be read back.
    pub(super) fn about(&self, issuer: &str, subject: &str) {
        let clipped = |name: &str| name.chars().take(MAX_NAME_CHARS).collect::<String>();
        self.noted().about = Some(format!("{} {}", clipped(issuer), clipped(subject)));
    }

    /// This second person has approved it.
    pub(super) fn approved_by(&self, approver: Approver) {
        self.noted().approved_by = Some(approver);
    }

    /// More about it, for people. Never card data, tokens or secrets.
    pub(super) fn detail(&self, detail: String) {
        self.noted().detail = Some(detail);
    }

    /// Somebody should look at it at once.
    pub(super) fn alarm(&self) {
        self.noted().alarm = true;
    }

    /// Somebody logged in.
    pub(super) fn login(&self, subject: &str, tenant: &str) {
        self.noted().login = Some((subject.to_owned(), tenant.to_owned()));
    }

    /// The entry, as the answer is `status` with `code`; none if nobody is left to answer.
    pub(super) fn entry(&self, request_id: &str, status: Option<u16>, code: Option<&str>) -> Entry {
        let noted = &mut *self.noted();
        if !noted.is_done && status.is_none_or(|status| status >= 300) {
            let tokens = std::mem::take(&mut noted.tokens);
            noted.tokens = tokens.into_iter().map(|token| noted.shown(token)).collect();
        }
        let caller = noted.caller.as_ref();
        let login = noted.login.as_ref();
        let stranger = noted.stranger.as_ref();
        let access = Access {
            request_id,
            subject: caller
                .map(Caller::subject)
                .or(login.map(|(subject, _)| subject.as_str()))
                .or(stranger.map(|stranger| stranger.subject.as_str())),
            issuer: caller.map(Caller::issuer).or(stranger.map(|stranger| stranger.issuer.as_str())),
            tenant: caller
                .map(Caller::tenant)
                .or(login.map(|(_, tenant)| tenant.as_str()))
                .or(stranger.and_then(|stranger| stranger.tenant.as_deref())),
            uid: noted.peer.map(|peer| peer.uid),
            gid: noted.peer.map(|peer| peer.gid),
            pid: noted.peer.and_then(|peer| peer.pid),
            unit: noted.unit.as_deref(),
            op: noted.op,
            outcome: status.map_or(Outcome::Failed, Outcome::of_status),
            status,
            code,
            via: noted.via,
            tokens: &noted.tokens,
            failed: &noted.failed,
            jti: noted.jti.as_deref(),
            key: noted.key.as_deref(),
            about: noted.about.as_deref(),
            approved_by: noted.approved_by.as_ref().map(|approver| approver.subject.as_str()),
            approved_by_issuer: noted.approved_by.as_ref().map(|approver| approver.issuer.as_str()),
            detail: noted.detail.as_deref(),
            alarm: noted.alarm,
        };
        Entry::new(&access)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the entry of a request whose caller went away before the answer: what was done may have been done.
pub(super) struct Abandoned<'a> {
    app: &'a App,
    request_id: &'a str,
    uid: Option<u32>,
    trail: Option<Trail>,
}

impl<'a> Abandoned<'a> {
    pub(super) fn unless_done(app: &'a App, request_id: &'a str, uid: Option<u32>, trail: &Trail) -> Self {
        Self { app, request_id, uid, trail: Some(trail.clone()) }
    }

    pub(super) fn done(mut self) {
        self.trail = None;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(trail) = &self.trail
            && (!trail.is_turned_away() || self.app.writes_refusal(self.uid))
        {
            self.app.audit().note(trail.entry(self.request_id, None, Some(ABANDONED)));
        }
    }
}

/// Method, route and name of every request that has an entry: those that touch card data, keys, policy or the log.
const OPERATIONS: [(&str, &str, &str); 24] = [
    ("POST", "/v1/tokenize", "tokenize"),
    ("POST", "/v1/tokenize/batch", "tokenize.batch"),
    ("POST", "/v1/detokenize", "detokenize"),
    ("POST", "/v1/detokenize/batch", "detokenize.batch"),
    ("GET", "/v1/tokens/{token}", "tokens.read"),
    ("PATCH", "/v1/tokens/{token}", "tokens.change"),
    ("DELETE", "/v1/tokens/{token}", "tokens.delete"),
    ("POST", "/v1/tokens/search", "tokens.search"),
    ("POST", "/v1/tokens/compare", "tokens.compare"),
    ("POST", "/v1/login", "login"),
    ("POST", "/v1/envelopes", "envelopes.seal"),
    ("POST", "/v1/envelopes/open", "envelopes.open"),
    ("GET", "/v1/keys", "keys.list"),
    ("POST", "/v1/keys/{purpose}/rotate", "keys.rotate"),
    ("DELETE", "/v1/keys/{purpose}/{version}", "keys.destroy"),
    ("POST", "/v1/rewrap", "rewrap.start"),
    ("POST", "/v1/reload", "config.reload"),
    ("GET", "/v1/locks", "locks.list"),
    ("POST", "/v1/locks/unlock", "locks.unlock"),
    ("GET", "/v1/honey", "honey.list"),
    ("POST", "/v1/honey", "honey.plant"),
    ("DELETE", "/v1/honey/{tenant}/{token}", "honey.remove"),
    ("GET", "/v1/audit", "audit.read"),
    ("POST", "/v1/backup", "backup"),
];

/// What `method` on `route` is called in the log, if it has an entry.
pub(super) fn operation(method: &Method, route: &str) -> Option<&'static str> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut all = OPERATIONS.iter();
    all.find(|(its, path, _)| *path == route && *its == method).map(|(.., operation)| *operation)
}

/// A token as it may be written down before the vault is known to have it: digits may be a PAN that was sent by mistake.
/// First six and last four digits may be shown (PCI DSS 3.4.1).
fn guarded(token: &str) -> String {
    const SHOWN_FIRST: usize = 6;
    const SHOWN_LAST: usize = 4;
    if !token.bytes().all(|byte| byte.is_ascii_digit()) {
        return token.to_owned();
    }
    let hidden = SHOWN_FIRST..token.len().saturating_sub(SHOWN_LAST);
    token.char_indices().map(|(place, digit)| if hidden.contains(&place) { '*' } else { digit }).collect()
}

const ABANDONED: &str = "abandoned";
/// Longer than any name that a JWT's header field has room for and that is used.
const MAX_NAME_CHARS: usize = 1_024;

#[cfg(test)]
mod tests {
    use vault_api::AUDIT_OPERATIONS;

    use super::*;

    #[test]
    fn whoever_reads_the_log_may_ask_for_each_operation() {
        // What a detokenize is called that shows no digits but the first and last.
        let mut named: Vec<_> =
            OPERATIONS.iter().map(|(.., name)| *name).chain(["detokenize.masked"]).collect();
        let mut known = AUDIT_OPERATIONS.to_vec();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }

    #[test]
    fn what_may_be_a_pan_is_masked() {
        assert_eq!(guarded("4111111111111111"), "411111******1111");
        assert_eq!(guarded("411111111111"), "411111**1111");
        assert_eq!(guarded("tok_4111111111111111"), "tok_4111111111111111");
    }

    #[test]
    fn a_token_of_a_request_that_was_carried_out_is_no_pan() {
        let trail = Trail::default();
        trail.tokens(["4111111111111112".to_owned()]);
        let text = |entry: Entry| String::from_utf8(entry.0).unwrap();
        let refused = text(trail.entry("r", Some(503), Some("store_unavailable")));
        assert!(refused.contains("411111******1112"), "{refused}");

        let trail = Trail::default();
        trail.tokens(["4111111111111112".to_owned()]);
        trail.done();
        let done = text(trail.entry("r", Some(503), Some("audit_unavailable")));
        assert!(done.contains("4111111111111112"), "{done}");
    }

    #[test]
    fn no_name_makes_a_line_too_long() {
        let trail = Trail::default();
        trail.about(&"i".repeat(1 << 20), &"\u{1}".repeat(1 << 20));
        assert_eq!(trail.noted().about.as_ref().unwrap().chars().count(), 2 * MAX_NAME_CHARS + 1);
    }
}
