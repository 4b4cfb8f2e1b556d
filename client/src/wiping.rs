//! A byte buffer that leaves no copy of what it held.

use std::io;

use zeroize::Zeroizing;

/// Capacity of the first allocation: a single request or answer fits.
const FIRST_CAPACITY_BYTES: usize = 512;

/// Bytes that may be card data: wiped on drop and whenever they move to a larger allocation, which a plain
/// `Vec` would not do.
#[derive(Default)]
pub(crate) struct WipingBuffer(Zeroizing<Vec<u8>>);

impl WipingBuffer {
    /// An empty buffer that holds `bytes` without moving.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    /// Appends `data`.
    pub(crate) fn push(&mut self, data: &[u8]) {
        let needed = self.0.len().saturating_add(data.len());
        if needed > self.0.capacity() {
            let capacity = needed.max(self.0.capacity().saturating_mul(2)).max(FIRST_CAPACITY_BYTES);
            let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(data);
    }

    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl AsRef<[u8]> for WipingBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl io::Write for WipingBuffer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.push(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_past_its_first_allocation_and_keeps_every_byte() {
        let mut buffer = WipingBuffer::default();
        let mut expected = Vec::new();
        for round in 0..200_u8 {
            let chunk = vec![round; 17];
            buffer.push(&chunk);
            expected.extend_from_slice(&chunk);
        }
        assert_eq!(buffer.as_ref(), expected);
        assert_eq!(buffer.len(), expected.len());
    }

    #[test]
    fn a_buffer_with_enough_capacity_does_not_move() {
        let mut buffer = WipingBuffer::with_capacity(1_000);
        let before = buffer.as_ref().as_ptr();
        buffer.push(&[1; 1_000]);
        assert_eq!(buffer.as_ref().as_ptr(), before);
    }
}
