//! The binary record: compact, versioned, and authenticated as a whole.
//!
//! A record is a header in clear, and one or two parts sealed by the HSM with that header as AAD. All integers are
//! big-endian. `docs/store-format.md` has the table.
#![deny(clippy::indexing_slicing)]

use super::BlindKey;

/// Bytes kept of a fingerprint: 128 of its 256 bits make an accidental match less likely than a hardware fault.
pub const FINGERPRINT_CUT_BYTES: usize = 16;

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
const FLAG_PRIVATE: u8 = 0b01;
const FLAG_REUSABLE: u8 = 0b10;
const FLAG_HOLDER: u8 = 0b100;
const KNOWN_FLAGS: u8 = FLAG_PRIVATE | FLAG_REUSABLE | FLAG_HOLDER;

/// A token's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What is in clear, bound to both parts as AAD.
    pub header: Header,
    /// Sealed: holder and metadata, if there are any.
    pub private: Option<SealedPart>,
    /// Sealed: the PAN and the card's expiry date.
    pub card: SealedPart,
}

/// The clear part of a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the record key both parts are sealed with.
    pub key_version: u32,
    /// Version of the key the fingerprint was made with.
    pub fingerprint_version: u32,
    /// The first bytes of the PAN's fingerprint, as in the index.
    pub fingerprint: [u8; FINGERPRINT_CUT_BYTES],
    /// Whether the same PAN finds this record again.
    pub reusable: bool,
    /// The first six digits of the PAN.
    pub bin: u32,
    /// The last four digits of the PAN.
    pub last4: u16,
    /// How many digits the PAN has.
    pub pan_digits: u8,
    /// When the token was made, in milliseconds of Unix time.
    pub created_at_ms: u64,
    /// When the token ends, in seconds of Unix time.
    pub expires_at_s: Option<u64>,
    /// Name of the template, at most 255 bytes.
    pub template: String,
    /// Where the card's holder is looked up, if one was given.
    pub holder: Option<BlindKey>,
}

/// Nonce and ciphertext with tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPart {
    /// The GCM nonce.
    pub nonce: [u8; NONCE_BYTES],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A format this version does not know.
    #[error("unknown record format {0}")]
    Format(u8),
    /// It ends too early.
    #[error("the record is cut short")]
    CutShort,
    /// The index leads from one card to the record of another.
    #[error("the index leads to the record of another card")]
    OtherCard,
    /// A field has a value it cannot have.
    #[error("the record's {0} is not possible")]
    Field(&'static str),
}

impl Header {
    /// The header's bytes: the start of the encoded record, and the AAD of its parts.
    ///
    /// # Errors
    /// [`RecordError::Field`] for a template name over 255 bytes.
    pub fn encode(&self, has_private: bool) -> Result<Vec<u8>, RecordError> {
        let mut out = Vec::with_capacity(64 + self.template.len());
        let private = if has_private { FLAG_PRIVATE } else { 0 };
        let reusable = if self.reusable { FLAG_REUSABLE } else { 0 };
        let holder = if self.holder.is_some() { FLAG_HOLDER } else { 0 };
        out.extend([FORMAT, private | reusable | holder]);
        out.extend(self.key_version.to_be_bytes());
        out.extend(self.fingerprint_version.to_be_bytes());
        out.extend(self.fingerprint);
        out.extend(self.bin.to_be_bytes());
        out.extend(self.last4.to_be_bytes());
        out.push(self.pan_digits);
        out.extend(self.created_at_ms.to_be_bytes());
        out.extend(self.expires_at_s.unwrap_or(0).to_be_bytes());
        out.push(u8::try_from(self.template.len()).map_err(|_| RecordError::Field("template"))?);
        out.extend(self.template.as_bytes());
        if let Some(holder) = &self.holder {
            out.extend(holder.version.to_be_bytes());
            out.extend(holder.hash);
        }
        Ok(out)
    }

    /// Whether the token has ended at `now_s` seconds of Unix time: it lives up to, not including, its end.
    pub fn expired(&self, now_s: u64) -> bool {
        self.expires_at_s.is_some_and(|end| end <= now_s)
    }
}

impl Record {
    /// The record as it is stored.
    ///
    /// # Errors
    /// [`RecordError::Field`] for a part or name that is too long.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = self.header.encode(self.private.is_some())?;
        if let Some(private) = &self.private {
            let len =
                u16::try_from(private.ciphertext.len()).map_err(|_| RecordError::Field("private part"))?;
            out.extend(private.nonce);
            out.extend(len.to_be_bytes());
            out.extend(&private.ciphertext);
        }
        out.extend(self.card.nonce);
        out.extend(&self.card.ciphertext);
        Ok(out)
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// [`RecordError`] for anything else; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Input(bytes);
        let [format] = input.array()?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        let [flags] = input.array()?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(RecordError::Field("flags"));
        }
        let header = Header {
            reusable: flags & FLAG_REUSABLE != 0,
            key_version: u32::from_be_bytes(input.array()?),
            fingerprint_version: u32::from_be_bytes(input.array()?),
            fingerprint: input.array()?,
            bin: u32::from_be_bytes(input.array()?),
            last4: u16::from_be_bytes(input.array()?),
            pan_digits: u8::from_be_bytes(input.array()?),
            created_at_ms: u64::from_be_bytes(input.array()?),
            expires_at_s: Some(u64::from_be_bytes(input.array()?)).filter(|end| *end != 0),
            template: {
                let [len] = input.array()?;
                let name = input.slice(usize::from(len))?;
                std::str::from_utf8(name).map_err(|_| RecordError::Field("template"))?.to_owned()
            },
            holder: if flags & FLAG_HOLDER == 0 {
                None
            } else {
                Some(BlindKey { version: u32::from_be_bytes(input.array()?), hash: input.array()? })
            },
        };
        let private = if flags & FLAG_PRIVATE == 0 {
            None
        } else {
            let nonce = input.array()?;
            let len = u16::from_be_bytes(input.array()?);
            Some(SealedPart { nonce, ciphertext: input.slice(usize::from(len))?.to_vec() })
        };
        let card = SealedPart { nonce: input.array()?, ciphertext: input.0.to_vec() };
        Ok(Self { header, private, card })
    }
}

/// The bytes that are still to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(RecordError::CutShort)?;
        self.0 = rest;
        Ok(*head)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(RecordError::CutShort)?;
        self.0 = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn sealed_part()(nonce: [u8; 12], ciphertext in prop::collection::vec(any::<u8>(), 0..80)) -> SealedPart {
            SealedPart { nonce, ciphertext }
        }
    }

    prop_compose! {
        fn header()(
            versions: (u32, u32),
            fingerprint: [u8; FINGERPRINT_CUT_BYTES],
            reusable: bool,
            shown: (u32, u16, u8),
            created_at_ms: u64,
            expires_at_s in prop::option::of(1..=u64::MAX),
            template in "[a-z0-9-]{0,32}",
            holder: Option<(u32, [u8; FINGERPRINT_CUT_BYTES])>,
        ) -> Header {
            Header {
                key_version: versions.0,
                fingerprint_version: versions.1,
                fingerprint,
                reusable,
                bin: shown.0,
                last4: shown.1,
                pan_digits: shown.2,
                created_at_ms,
                expires_at_s,
                template,
                holder: holder.map(|(version, hash)| BlindKey { version, hash }),
            }
        }
    }

    prop_compose! {
        fn record()(
            header in header(),
            private in prop::option::of(sealed_part()),
            card in sealed_part(),
        ) -> Record {
            Record { header, private, card }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in record()) {
            prop_assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
        }

        #[test]
        fn the_header_starts_the_record(record in record()) {
            let header = record.header.encode(record.private.is_some()).unwrap();
            prop_assert!(record.encode().unwrap().starts_with(&header));
        }

        #[test]
        fn other_bytes_fail_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), Ok(bytes));
            }
        }
    }

    #[test]
    fn a_usual_record_is_small() {
        let header = Header {
            key_version: 1,
            fingerprint_version: 1,
            fingerprint: [0; FINGERPRINT_CUT_BYTES],
            reusable: true,
            bin: 411_111,
            last4: 1_111,
            pan_digits: 16,
            created_at_ms: 0,
            expires_at_s: None,
            template: "default".to_owned(),
            holder: None,
        };
        let card = SealedPart { nonce: [0; 12], ciphertext: vec![0; 16 + 16] };
        assert_eq!(Record { header, private: None, card }.encode().unwrap().len(), 101);
    }
}
