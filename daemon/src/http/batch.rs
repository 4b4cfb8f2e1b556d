//! Batches: how many items, and an answer in which each stands for itself.

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use serde::Serialize;
use vault_api::{BatchAnswer, BatchItem, Code};

use super::{problem::Failure, reply::private_json};

/// Why items of a batch that was answered failed, for the log: the first cause stands for all.
#[derive(Clone)]
pub(super) struct FailedItems {
    pub(super) count: usize,
    pub(super) cause: String,
}

/// 1 to `most` items.
pub(super) fn require_items(count: usize, most: usize, name: &str) -> Result<(), Failure> {
    if (1..=most).contains(&count) {
        Ok(())
    } else {
        Err(Failure::new(Code::InvalidRequest, format!("`{name}` must have 1 to {most} entries")))
    }
}

/// The answer of a batch. Where the vault could do nothing for any item, it is the failure after which the least is known: by
/// that its caller decides whether to send the items again.
pub(super) fn answer<T: Serialize>(results: Vec<Result<T, Failure>>) -> Result<Response<Body>, Failure> {
    let fault = |result: &Result<T, Failure>| {
        result.as_ref().err().filter(|failure| failure.code.status() == 503).cloned()
    };
    // The first one that is none ends it.
    let faults: Option<Vec<_>> = results.iter().map(fault).collect();
    if let Some(least_known) = faults.and_then(|faults| faults.into_iter().min_by_key(certainty)) {
        return Err(least_known);
    }
    let mut causes = results.iter().filter_map(|result| result.as_ref().err()?.cause.clone());
    let failed = causes.next().map(|cause| FailedItems { count: 1 + causes.count(), cause });
    let results = results.into_iter().map(|result| match result {
        Ok(done) => BatchItem::Done(done),
        Err(failure) => BatchItem::Failed { error: failure.into() },
    });
    let mut response = private_json(StatusCode::OK, &BatchAnswer { results: results.collect() });
    if let Some(failed) = failed {
        response.extensions_mut().insert(failed);
    }
    Ok(response)
}

/// How much whoever hears of `failure` knows: whether something may have been done, spent, or nothing at all.
fn certainty(failure: &Failure) -> u8 {
    match failure.code {
        Code::StoreUnavailable | Code::AuditUnavailable => 0,
        Code::HsmUnavailable => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_faults_is_the_one_that_leaves_most_open() {
        let failing = |codes: &[Code]| {
            let items = codes.iter().map(|code| Err::<(), _>(Failure::new(*code, "")));
            answer(items.collect()).err().map(|failure| failure.code)
        };
        let (busy, hsm, store) = (Code::Overloaded, Code::HsmUnavailable, Code::StoreUnavailable);
        assert_eq!(failing(&[busy, busy]), Some(busy));
        assert_eq!(failing(&[busy, hsm]), Some(hsm));
        assert_eq!(failing(&[busy, store, hsm]), Some(store));
        assert_eq!(failing(&[store, Code::UnknownToken]), None, "an answer with an error for each");
        assert_eq!(failing(&[]), None);
    }
}
