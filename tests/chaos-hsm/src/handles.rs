//! Object handles as the caller knows them.
//!
//! They are numbered here, so that all of them can be made invalid at once while the real module keeps its own.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use cryptoki_sys::{CK_INVALID_HANDLE, CK_OBJECT_HANDLE};

/// The handles that were given out.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    last: CK_OBJECT_HANDLE,
    real: HashMap<CK_OBJECT_HANDLE, CK_OBJECT_HANDLE>,
    given: HashMap<CK_OBJECT_HANDLE, CK_OBJECT_HANDLE>,
}

impl Handles {
    /// The real module's handle for one that the caller has; `None` if it is stale or made up.
    pub(crate) fn real(&self, given: CK_OBJECT_HANDLE) -> Option<CK_OBJECT_HANDLE> {
        // "No key" where a key is optional (C_SetOperationState).
        if given == CK_INVALID_HANDLE {
            return Some(given);
        }
        self.known.read().unwrap_or_else(PoisonError::into_inner).real.get(&given).copied()
    }

    /// What the caller gets for the handle `real`: the same for the same, until [`Handles::forget`].
    pub(crate) fn give(&self, real: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(given) = known.given.get(&real) {
            return *given;
        }
        known.last += 1;
        let given = known.last;
        known.real.insert(given, real);
        known.given.insert(real, given);
        given
    }

    /// Makes every handle that was given out invalid. Numbers are not used again.
    pub(crate) fn forget(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.real.clear();
        known.given.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_stale_for_ever_once_forgotten() {
        let handles = Handles::default();
        let first = handles.give(77);
        assert_eq!(handles.give(77), first);
        assert_ne!(handles.give(78), first);
        assert_eq!(handles.real(first), Some(77));
        handles.forget();
        assert_eq!(handles.real(first), None);
        let again = handles.give(77);
        assert_ne!(again, first);
        assert_eq!((handles.real(again), handles.real(first)), (Some(77), None));
        assert_eq!(handles.real(CK_INVALID_HANDLE), Some(CK_INVALID_HANDLE));
    }
}
