//! Pixels as PNG (W3C, "Portable Network Graphics (PNG) Specification", third edition).

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, Crc, write::ZlibEncoder};

/// The file of an image of `width` times `height` pixels, red, green and blue a byte each, line by line.
pub(super) fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let line = 3 * usize::try_from(width)?;
    ensure!(
        line > 0 && pixels.len() == line * usize::try_from(height)?,
        "not as many pixels as there must be"
    );
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    // 8 bits, true colour; the only methods of compression and filtering; not interlaced (11.2.1).
    header.extend([8, 2, 0, 0, 0]);
    let mut data = ZlibEncoder::new(Vec::new(), Compression::best());
    for line in pixels.chunks(line) {
        // Not filtered (9.2): large areas of one colour are compressed well as they are.
        data.write_all(&[0])?;
        data.write_all(line)?;
    }
    let mut file = SIGNATURE.to_vec();
    put(&mut file, *b"IHDR", &header)?;
    put(&mut file, *b"IDAT", &data.finish().context("compressing an image")?)?;
    put(&mut file, *b"IEND", &[])?;
    Ok(file)
}

/// Appends a chunk (5.3).
fn put(file: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) -> Result<()> {
    let mut check = Crc::new();
    check.update(&kind);
    check.update(data);
    file.extend(u32::try_from(data.len())?.to_be_bytes());
    file.extend(kind);
    file.extend(data);
    file.extend(check.sum().to_be_bytes());
    Ok(())
}

/// What every file begins with (5.2).
const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_of_checked_chunks() {
        let file = encode(&[255; 3 * 2 * 2], 2, 2).unwrap();
        assert!(file.starts_with(&SIGNATURE));
        // The check value of an empty IEND is known from every file there is.
        assert!(file.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
        assert!(encode(&[255; 3], 2, 2).is_err());
    }
}
