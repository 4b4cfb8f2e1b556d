//! HSM random bytes, fetched ahead.

use std::sync::{Mutex, PoisonError};

use zeroize::{Zeroize, Zeroizing};

/// How many bytes one call to the token fetches.
pub(super) const REFILL_BYTES: usize = 4_096;

/// Random bytes that the token made and nobody has used yet. Each byte is given out once and wiped.
#[derive(Default)]
pub(super) struct RandomPool {
    bytes: Mutex<Zeroizing<Vec<u8>>>,
}

impl RandomPool {
    /// Fills `out` if enough bytes are there; takes none if not.
    pub(super) fn take(&self, out: &mut [u8]) -> bool {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = bytes.len().checked_sub(out.len()) else { return false };
        let (_, given) = bytes.split_at_mut(rest);
        out.copy_from_slice(given);
        given.zeroize();
        bytes.truncate(rest);
        true
    }

    /// Adds what the token made.
    pub(super) fn add(&self, fresh: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // Growing in place would leave the old buffer unwiped behind.
        let mut joined = Zeroizing::new(Vec::with_capacity(bytes.len() + fresh.len()));
        joined.extend_from_slice(&bytes);
        joined.extend_from_slice(fresh);
        *bytes = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_given_out_once() {
        let pool = RandomPool::default();
        pool.add(&[1, 2, 3, 4]);
        let (mut first, mut second) = ([0; 3], [0; 2]);
        assert!(pool.take(&mut first));
        assert_eq!(first, [2, 3, 4]);
        assert!(!pool.take(&mut second), "one byte is left");
        pool.add(&[5]);
        assert!(pool.take(&mut second));
        assert_eq!(second, [1, 5]);
    }
}
