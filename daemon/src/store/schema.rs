//! Keys of the tables. All integers are big-endian, so that keys sort as their numbers do.

use super::FINGERPRINT_CUT_BYTES;

/// The schema this version writes and the newest it reads.
pub const SCHEMA_VERSION: u32 = 4;

/// The longest key a token may have.
pub const MAX_TOKEN_KEY_BYTES: usize = 24;

/// A token as a key of the store: short bytes that the domain makes from the token's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenKey {
    bytes: [u8; MAX_TOKEN_KEY_BYTES],
    len: usize,
}

impl TokenKey {
    /// A key that no token has.
    pub const NONE: Self = Self { bytes: [0; MAX_TOKEN_KEY_BYTES], len: 0 };

    /// A key of `bytes`; `None` if there are more than [`MAX_TOKEN_KEY_BYTES`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut key = Self { bytes: [0; MAX_TOKEN_KEY_BYTES], len: bytes.len() };
        key.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(key)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Where a card is looked up: by its fingerprint under one key version, for one template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintKey {
    /// Version of the fingerprint key.
    pub version: u32,
    /// The first bytes of the fingerprint.
    pub fingerprint: [u8; FINGERPRINT_CUT_BYTES],
    /// Name of the template.
    pub template: String,
}

/// A keyed hash by which records are looked up without what was hashed being in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlindKey {
    /// Version of the key that made the hash.
    pub version: u32,
    /// The first bytes of the hash.
    pub hash: [u8; FINGERPRINT_CUT_BYTES],
}

impl BlindKey {
    /// What the index rows it finds start with.
    pub(super) fn prefix(&self, tenant: TenantId) -> Vec<u8> {
        [&tenant.to_be_bytes(), &self.version.to_be_bytes(), self.hash.as_slice()].concat()
    }
}

/// What records are searched by: one thing, hashed under each key version that records may still depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By a card, whatever the template.
    Card(Vec<BlindKey>),
    /// By the card holder.
    Holder(Vec<BlindKey>),
}

/// Number of a tenant in keys. Numbers start at 1, so that 0 finds nothing.
pub(super) type TenantId = u32;

pub(super) fn record_key(tenant: TenantId, token: &TokenKey) -> Vec<u8> {
    [&tenant.to_be_bytes(), token.as_bytes()].concat()
}

/// Takes a record key apart: tenant, token.
pub(super) fn parse_record_key(key: &[u8]) -> Option<(TenantId, TokenKey)> {
    let (tenant, token) = key.split_first_chunk()?;
    Some((TenantId::from_be_bytes(*tenant), TokenKey::new(token)?))
}

/// The row by which the same card finds its token again.
pub(super) fn shared_fingerprint_key(tenant: TenantId, key: &FingerprintKey) -> Vec<u8> {
    [&tenant.to_be_bytes(), &key.version.to_be_bytes(), key.fingerprint.as_slice(), key.template.as_bytes()]
        .concat()
}

/// The row by which a holder's token is found.
pub(super) fn holder_key(tenant: TenantId, holder: &BlindKey, token: &TokenKey) -> Vec<u8> {
    [&holder.prefix(tenant), token.as_bytes()].concat()
}

/// Bytes of what stands for something that may be used once.
pub const USE_ID_BYTES: usize = 32;
/// Bytes of a use's end, before its id.
pub(super) const USE_END_BYTES: usize = size_of::<u64>();

/// When a use may be forgotten.
pub(super) fn use_end_key(until_s: u64, id: &[u8; USE_ID_BYTES]) -> Vec<u8> {
    [until_s.to_be_bytes().as_slice(), id].concat()
}

/// The row of a token that is one of many for its card: found by a scan, never by look-up.
pub(super) fn single_fingerprint_key(tenant: TenantId, key: &FingerprintKey, token: &TokenKey) -> Vec<u8> {
    // A template's name holds no zero byte, so the two kinds of row cannot meet.
    [&shared_fingerprint_key(tenant, key), b"\0".as_slice(), token.as_bytes()].concat()
}

pub(super) fn expiry_key(end_s: u64, tenant: TenantId, token: &TokenKey) -> Vec<u8> {
    [&end_s.to_be_bytes(), record_key(tenant, token).as_slice()].concat()
}

/// Takes an expiry key apart: end, tenant, token.
pub(super) fn parse_expiry_key(key: &[u8]) -> Option<(u64, TenantId, TokenKey)> {
    let (end, rest) = key.split_first_chunk()?;
    let (tenant, token) = parse_record_key(rest)?;
    Some((u64::from_be_bytes(*end), tenant, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_key_comes_apart_as_it_was_put_together() {
        let token = TokenKey::new(b"u0123456789abcdef").unwrap();
        let parts = (1_900_000_000, 7, token);
        assert_eq!(parse_expiry_key(&expiry_key(parts.0, parts.1, &parts.2)), Some(parts));
        assert_eq!(parse_expiry_key(b"short"), None);
    }

    #[test]
    fn an_overlong_token_key_is_none() {
        assert!(TokenKey::new(&[0; MAX_TOKEN_KEY_BYTES]).is_some());
        assert!(TokenKey::new(&[0; MAX_TOKEN_KEY_BYTES + 1]).is_none());
    }
}
