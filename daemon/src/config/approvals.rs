//! Validation of `[approvals]`: what needs a second person.

use super::{raw, validate::Validator};
use crate::auth::{APPROVABLE, ApprovalRules};

impl Validator {
    /// `batch_items`: the most items of any batch.
    pub(super) fn approvals(&mut self, raw: &raw::Approvals, batch_items: usize) -> ApprovalRules {
        let mut operations = Vec::new();
        for name in &raw.operations {
            if let Some(known) = APPROVABLE.iter().find(|known| *known == name) {
                operations.push(*known);
            } else {
                let known = APPROVABLE.join(", ");
                let message = format!("{name:?} cannot be made to need an approval; these can: {known}");
                self.error("approvals.operations", message);
            }
        }
        let most_items = u64::try_from(batch_items).unwrap_or(u64::MAX);
        let key = "approvals.free_batch_items";
        ApprovalRules {
            operations,
            max_age_s: self.seconds("approvals.max_age_seconds", raw.max_age_seconds, 300),
            free_batch_items: self.count(key, raw.free_batch_items, 0, 0..=most_items),
        }
    }
}
