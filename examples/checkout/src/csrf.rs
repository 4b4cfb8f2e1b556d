//! Whose request it is: sessions, form tokens, and where a form was sent from.
//!
//! A form is taken only if it comes from a page of this site (`Sec-Fetch-Site`, `Origin`) and carries the token of
//! the session in the cookie. `SameSite=Strict` alone would not do: cookies know no ports, so whatever else
//! listens on this machine is the same site.

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use axum::http::{
    HeaderMap,
    header::{COOKIE, HOST, ORIGIN},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The cookie that holds the session.
const COOKIE_NAME: &str = "checkout_session";
/// Random bytes of a session: nobody guesses one.
const SESSION_BYTES: usize = 32;

/// A visitor, as a random name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Session(String);

impl Session {
    /// The session of the request's cookie, if there is one that this site could have made.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim() == COOKIE_NAME)?;
        let bytes = URL_SAFE_NO_PAD.decode(value.trim()).ok()?;
        (bytes.len() == SESSION_BYTES).then(|| Self(value.trim().to_owned()))
    }

    /// A new one.
    pub(crate) fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; SESSION_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The `Set-Cookie` header. Without `Secure`: loopback has no TLS.
    pub(crate) fn cookie(&self) -> String {
        format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Strict", self.0)
    }
}

/// Tells this site's forms from all others.
pub(crate) struct Guard {
    /// Of this process only: a restart ends every form.
    key: hmac::Key,
    hosts: [String; 2],
}

impl Guard {
    /// The guard of the site on `port`.
    pub(crate) fn new(port: u16) -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
        Ok(Self { key, hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")] })
    }

    /// Whether the request was meant for this site: under another name it is DNS rebinding.
    pub(crate) fn knows_host(&self, headers: &HeaderMap) -> bool {
        let host = text(headers, HOST.as_str());
        host.is_some_and(|host| self.hosts.iter().any(|known| known == host))
    }

    /// The token that forms of `session` carry.
    pub(crate) fn token(&self, session: &Session) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, session.0.as_bytes()))
    }

    /// Whether a form with `token` is one of `session`, in constant time.
    pub(crate) fn owns(&self, session: &Session, token: &str) -> bool {
        let token = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        hmac::verify(&self.key, session.0.as_bytes(), &token).is_ok()
    }

    /// Whether the request was sent from a page of this site. Browsers say `Origin: null` for the forms of a page with
    /// `Referrer-Policy: no-referrer`; then `Sec-Fetch-Site` has to vouch for it.
    pub(crate) fn is_own_page(&self, headers: &HeaderMap) -> bool {
        match (text(headers, "sec-fetch-site"), text(headers, ORIGIN.as_str())) {
            (Some("same-origin"), None | Some("null")) => true,
            (Some("same-origin") | None, Some(origin)) => self.is_own_origin(origin),
            _ => false,
        }
    }

    fn is_own_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|host| self.hosts.iter().any(|known| known == host))
    }
}

/// A header that comes once; twice is none, for who knows which of the two counts.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    if values.next().is_some() { Some("") } else { Some(value.to_str().unwrap_or_default()) }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(header).collect()
    }

    #[test]
    fn a_token_belongs_to_one_session_of_one_process() {
        let (guard, session) = (Guard::new(80).unwrap(), Session::random().unwrap());
        let token = guard.token(&session);
        assert!(guard.owns(&session, &token));
        assert!(!guard.owns(&Session::random().unwrap(), &token));
        assert!(!Guard::new(80).unwrap().owns(&session, &token));
        for forged in ["", "A", &token[1..], &session.0] {
            assert!(!guard.owns(&session, forged), "{forged}");
        }
    }

    #[test]
    fn a_session_comes_back_in_its_cookie() {
        let session = Session::random().unwrap();
        let set = session.cookie();
        assert!(set.ends_with("; HttpOnly; SameSite=Strict"), "{set}");
        let pair = set.split(';').next().unwrap();
        assert!(Session::of(&headers(&[("cookie", &format!("a=b; {pair}; c=d"))])).unwrap() == session);
        for other in ["", "checkout_session=", "checkout_session=AAAA", "checkout_session=!", "x=y"] {
            assert!(Session::of(&headers(&[("cookie", other)])).is_none(), "{other}");
        }
    }

    #[test]
    fn only_pages_of_this_site_may_send_forms() {
        let guard = Guard::new(8480).unwrap();
        let (own, site) = (("origin", "http://127.0.0.1:8480"), ("sec-fetch-site", "same-origin"));
        for good in [&[own, site][..], &[own], &[("origin", "http://localhost:8480")], &[site]] {
            assert!(guard.is_own_page(&headers(good)), "{good:?}");
        }
        assert!(guard.is_own_page(&headers(&[("origin", "null"), site])));
        let null = ("origin", "null");
        for bad in [
            &[][..],
            &[null],
            &[own, ("sec-fetch-site", "same-site")],
            &[null, ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://127.0.0.1:9999"), site],
            &[("origin", "http://127.0.0.1:8480.evil.example"), site],
            &[("origin", "https://127.0.0.1:8480")],
        ] {
            assert!(!guard.is_own_page(&headers(bad)), "{bad:?}");
        }
        let mut twice = headers(&[own]);
        twice.append("origin", HeaderValue::from_static("http://evil.example"));
        assert!(!guard.is_own_page(&twice));
    }

    #[test]
    fn a_name_that_is_not_loopbacks_is_not_served() {
        let guard = Guard::new(8480).unwrap();
        assert!(guard.knows_host(&headers(&[("host", "localhost:8480")])));
        for host in ["evil.example:8480", "127.0.0.1", "127.0.0.1:1"] {
            assert!(!guard.knows_host(&headers(&[("host", host)])), "{host}");
        }
        assert!(!guard.knows_host(&HeaderMap::new()));
    }
}
