//! What was saved last in each session, so that a reload of the receipt saves nothing again. No card data: the
//! token and the masked card number.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::csrf::Session;

/// How long a receipt can be looked at again.
const LIFETIME: Duration = Duration::from_mins(10);
/// The most receipts that are kept; the oldest goes first.
const MAX_RECEIPTS: usize = 1_000;

/// What the visitor is shown of a saved card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) token: String,
    pub(crate) masked_pan: String,
    pub(crate) brand: String,
    /// Whether the card was new to the vault.
    pub(crate) created: bool,
}

/// The last receipt of each session.
#[derive(Default)]
pub(crate) struct Receipts(Mutex<VecDeque<(Session, Instant, Receipt)>>);

impl Receipts {
    /// Keeps `receipt` as the last one of `session`.
    pub(crate) fn put(&self, session: &Session, receipt: Receipt) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(owner, since, _)| owner != session && since.elapsed() < LIFETIME);
        if kept.len() >= MAX_RECEIPTS {
            kept.pop_front();
        }
        kept.push_back((session.clone(), Instant::now(), receipt));
    }

    /// The last receipt of `session`.
    pub(crate) fn of(&self, session: &Session) -> Option<Receipt> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, _, receipt) =
            kept.iter().find(|(owner, since, _)| owner == session && since.elapsed() < LIFETIME)?;
        Some(receipt.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(token: &str) -> Receipt {
        Receipt {
            token: token.to_owned(),
            masked_pan: "411111******1111".to_owned(),
            brand: "Visa".to_owned(),
            created: true,
        }
    }

    #[test]
    fn a_session_sees_its_own_last_receipt() {
        let receipts = Receipts::default();
        let (one, other) = (Session::random().unwrap(), Session::random().unwrap());
        receipts.put(&one, receipt("a"));
        receipts.put(&one, receipt("b"));
        assert_eq!(receipts.of(&one), Some(receipt("b")));
        assert_eq!(receipts.of(&other), None);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let receipts = Receipts::default();
        let first = Session::random().unwrap();
        receipts.put(&first, receipt("a"));
        for _ in 0..MAX_RECEIPTS {
            receipts.put(&Session::random().unwrap(), receipt("b"));
        }
        assert_eq!(receipts.of(&first), None);
    }
}
