//! `[approvals]`: what needs a second person, as it is written and as it is validated.

use schemars::JsonSchema;
use serde::Deserialize;

use super::validate::Validator;
use crate::auth::{APPROVABLE, ApprovalRules};

/// Operations that two people must want.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Approvals {
    /// Their names, as the audit log has them. Default none.
    pub(super) operations: Vec<String>,
    /// How old an approval may be. Default 300.
    pub(super) max_age_seconds: Option<u64>,
    /// `detokenize.batch`: the most tokens that need no approval. Default 0.
    pub(super) free_batch_items: Option<u64>,
}

impl Validator {
    /// `batch_items`: the most items of any batch.
    pub(super) fn approvals(&mut self, raw: &Approvals, batch_items: usize) -> ApprovalRules {
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

impl ApprovalRules {
    /// What of them one person can get round, if anything.
    pub(super) fn way_round(&self) -> Option<String> {
        let needs = |name| self.operations.contains(&name);
        let single =
            "approvals.operations has `detokenize`, and a batch of one is the same by another name: ";
        if !needs("detokenize") {
            None
        } else if !needs("detokenize.batch") {
            Some(format!("{single}add `detokenize.batch`"))
        } else if self.free_batch_items > 0 {
            Some(format!("{single}make approvals.free_batch_items 0, it is {}", self.free_batch_items))
        } else {
            None
        }
    }
}
