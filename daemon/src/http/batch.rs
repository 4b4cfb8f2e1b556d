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

/// The answer of a batch. Where the vault could do nothing for any item, it is that failure.
pub(super) fn answer<T: Serialize>(results: Vec<Result<T, Failure>>) -> Result<Response<Body>, Failure> {
    if results.iter().all(|result| matches!(result, Err(failure) if failure.code.status() == 503))
        && let Some(Err(failure)) = results.first()
    {
        return Err(failure.clone());
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
