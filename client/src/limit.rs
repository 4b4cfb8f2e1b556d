//! What answers say of the limits on their caller.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::header::{HeaderMap, HeaderName};

/// Of draft-ietf-httpapi-ratelimit-headers-10, 4.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The limit that is nearest to its end, as the field `RateLimit` of an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The limit's name, such as `subject-hour`.
    pub name: String,
    /// How much is left: requests or different cards, by the limit.
    pub remaining: u64,
    /// After how long there is more, if the vault says so.
    pub more_in: Option<Duration>,
}

/// The latest word on limits.
#[derive(Default)]
pub(crate) struct Latest(Mutex<Option<RateLimit>>);

impl Latest {
    /// Keeps what `limit` says; an answer that says nothing changes nothing.
    pub(crate) fn keep(&self, limit: Option<RateLimit>) {
        if limit.is_some() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limit;
        }
    }

    /// What was kept last.
    pub(crate) fn get(&self) -> Option<RateLimit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The first limit in `headers`; `None` if there is none that is understood.
///
/// A list of structured fields (RFC 9651): the vault's names need no escapes, and other parameters may come.
pub(crate) fn limit(headers: &HeaderMap) -> Option<RateLimit> {
    let first = headers.get(RATELIMIT)?.to_str().ok()?.split(',').next()?;
    let mut parts = first.split(';').map(str::trim);
    let name = parts.next()?.strip_prefix('"')?.strip_suffix('"')?.to_owned();
    let (mut remaining, mut more_in) = (None, None);
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key {
            "r" => remaining = value.parse().ok(),
            "t" => more_in = value.parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    Some(RateLimit { name, remaining: remaining?, more_in })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn parsed(field: &'static str) -> Option<RateLimit> {
        let mut headers = HeaderMap::new();
        headers.insert(RATELIMIT, HeaderValue::from_static(field));
        limit(&headers)
    }

    #[test]
    fn the_first_limit_is_read() {
        let hour = RateLimit {
            name: "subject-hour".into(),
            remaining: 412,
            more_in: Some(Duration::from_secs(1_790)),
        };
        assert_eq!(parsed(r#""subject-hour";r=412;t=1790"#).as_ref(), Some(&hour));
        assert_eq!(parsed(r#""subject-hour"; r=412; new=x; t=1790, "uid-day";r=9"#), Some(hour));
        let batch = RateLimit { name: "subject-batch".into(), remaining: 100, more_in: None };
        assert_eq!(parsed(r#""subject-batch";r=100"#), Some(batch));
    }

    #[test]
    fn what_is_not_understood_is_no_limit() {
        for field in ["", "subject;r=1", r#""x""#, r#""x";r=-1"#, r#""x;r=1"#] {
            assert_eq!(parsed(field), None, "{field}");
        }
        let latest = Latest::default();
        latest.keep(parsed(r#""x";r=1"#));
        latest.keep(None);
        assert_eq!(latest.get().unwrap().remaining, 1);
    }
}
