//! Keys in the token: what they are called, how they must be, where they are.

use std::fmt;

use cryptoki::{
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};
use zeroize::Zeroizing;

use super::{
    Library, OpenRequest, SealRequest, SetupError,
    direct::Direct,
    error::Fault,
    manner::{Manner, NonceGiven, SignedBy},
    operations::Operator,
    vetting::{public_half, vet},
    watch::beat,
};

/// What a key is for. A key has one purpose only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// AES-256-GCM over records.
    Record,
    /// HMAC-SHA-256 over PANs.
    Fingerprint,
    /// HMAC-SHA-256 over card holders' names.
    Holder,
    /// AES-256-GCM over the card data of envelopes.
    Envelope,
    /// RSA signatures over JWTs.
    Jwt,
    /// RSA signatures over the audit log's checkpoints.
    Audit,
}

/// What a key of some purpose does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// AES-256-GCM.
    Seal,
    /// HMAC-SHA-256.
    Mac,
    /// RSA with SHA-256.
    Sign,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 6] =
        [Self::Record, Self::Fingerprint, Self::Holder, Self::Envelope, Self::Jwt, Self::Audit];

    /// The purpose as it stands in labels, in the store and in paths of the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Fingerprint => "fingerprint",
            Self::Holder => "holder",
            Self::Envelope => "envelope",
            Self::Jwt => "jwt",
            Self::Audit => "audit",
        }
    }

    /// Reads what [`Purpose::as_str`] gives; `None` for anything else.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == name)
    }

    /// What its keys do.
    pub const fn operation(self) -> Operation {
        match self {
            Self::Record | Self::Envelope => Operation::Seal,
            Self::Fingerprint | Self::Holder => Operation::Mac,
            Self::Jwt | Self::Audit => Operation::Sign,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key's purpose and version; versions count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName {
    /// What it is for.
    pub purpose: Purpose,
    /// Which of the keys for it.
    pub version: u32,
}

impl KeyName {
    /// The `CKA_LABEL`: `{prefix}-{purpose}-v{version}`.
    pub(super) fn label(self, prefix: &str) -> String {
        format!("{prefix}-{self}")
    }

    fn from_label(prefix: &str, label: &str) -> Option<Self> {
        Self::parse(label.strip_prefix(prefix)?.strip_prefix('-')?)
    }

    /// Reads what `Display` writes, as in `record-v1`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (purpose, version) = text.rsplit_once("-v")?;
        let purpose = Purpose::parse(purpose)?;
        let version = version.parse().ok().filter(|number| *number > 0)?;
        Some(Self { purpose, version })
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-v{}", self.purpose, self.version)
    }
}

/// An RSA public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsaPublic {
    /// Modulus, big-endian, no leading zero.
    pub modulus: Vec<u8>,
    /// Public exponent, big-endian, no leading zero.
    pub exponent: Vec<u8>,
}

/// A key as others may know it.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Purpose and version.
    pub name: KeyName,
    /// The public half of a signing key.
    pub public: Option<RsaPublic>,
}

/// A key found in the token.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: KeyName,
    pub(super) handle: ObjectHandle,
    pub(super) public: Option<RsaPublic>,
    /// Something a sealing key sealed when the connection was made: if it opens, key and session are sound.
    reference: Option<OpenRequest>,
}

/// Every key of the vault in one token. Handles are valid for one connection.
#[derive(Clone, Debug)]
pub(super) struct KeyRing {
    keys: Vec<Key>,
    direct: Direct,
    manner: Manner,
}

impl KeyRing {
    /// Finds the keys whose labels start with `prefix` and which are `wanted`, and vets each.
    ///
    /// Fails with every objection to every key in one message, so that an operator sees the whole of it. The newest
    /// keys are tried, to learn how this token wants them used.
    pub(super) fn find(
        library: &Library,
        session: &Session,
        prefix: &str,
        wanted: &dyn Fn(KeyName) -> bool,
    ) -> Result<Self, SetupError> {
        let mut ring = Self { keys: Vec::new(), direct: Direct::of(library)?, manner: Manner::default() };
        let mut objections = Vec::new();
        for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY] {
            for handle in session.find_objects(&[Attribute::Token(true), Attribute::Class(class)])? {
                beat();
                let Some(name) = name_of(session, handle, prefix)?.filter(|name| wanted(*name)) else {
                    continue;
                };
                let mut faults = vet(session, handle, name, class)?;
                if ring.key(name).is_some() {
                    faults.push("there is another with the same label".to_owned());
                }
                let public = match name.purpose.operation() {
                    Operation::Sign => Some(public_half(session, name, prefix)?),
                    Operation::Seal | Operation::Mac => None,
                };
                if !faults.is_empty() {
                    objections.push(format!("key {}: {}", name.label(prefix), faults.join(", ")));
                }
                ring.keys.push(Key { name, handle, public, reference: None });
            }
        }
        if objections.is_empty() {
            ring.keys.sort_by_key(|key| key.name);
            ring.manner = ring.learn_manner(session)?;
            Ok(ring)
        } else {
            Err(SetupError::Key(format!(
                "{}; a key must be made inside the token by `vaultd init` and never leave it: \
                 remove or rename the offending object",
                objections.join("; ")
            )))
        }
    }

    fn learn_manner(&self, session: &Session) -> Result<Manner, SetupError> {
        let newest = |operation: Operation| {
            self.keys.iter().rfind(|key| key.name.purpose.operation() == operation).map(|key| key.handle)
        };
        Ok(Manner {
            nonce: newest(Operation::Seal)
                .map_or(Ok(NonceGiven::default()), |key| NonceGiven::find(&self.direct, session, key))?,
            signed_by: newest(Operation::Sign)
                .map_or(Ok(SignedBy::default()), |key| SignedBy::find(&self.direct, session, key))?,
        })
    }

    /// The module's own functions.
    pub(super) fn direct(&self) -> &Direct {
        &self.direct
    }

    /// How the token wants its keys used.
    pub(super) fn manner(&self) -> Manner {
        self.manner
    }

    /// Replaces handles by session-object copies where the module allows it; says whether it did.
    ///
    /// The copies are as sensitive as the originals and die with the session that made them.
    pub(super) fn use_working_copies(&mut self, session: &Session) -> bool {
        let copies: Result<Vec<_>, _> =
            self.keys.iter().map(|key| session.copy_object(key.handle, &[Attribute::Token(false)])).collect();
        match copies {
            Ok(copies) => {
                for (key, copy) in self.keys.iter_mut().zip(copies) {
                    key.handle = copy;
                }
                true
            }
            Err(reason) => {
                tracing::debug!(%reason, "the module makes no session copies of keys: using token objects");
                false
            }
        }
    }

    /// These keys and those of `other`.
    pub(super) fn joined(&self, other: Self) -> Self {
        let mut joined = self.clone();
        joined.keys.extend(other.keys);
        joined.keys.sort_by_key(|key| key.name);
        joined
    }

    /// These keys but for `name`.
    pub(super) fn without(&self, name: KeyName) -> Self {
        Self {
            keys: self.keys.iter().filter(|key| key.name != name).cloned().collect(),
            direct: self.direct.clone(),
            manner: self.manner,
        }
    }

    /// Seals a known text with each sealing key, for [`KeyRing::reference`].
    pub(super) fn seal_references(&mut self, session: &Session) -> Result<(), SetupError> {
        const TEXT: &[u8] = b"vaultd reference";
        let sealing = |name: &KeyName| name.purpose.operation() == Operation::Seal;
        let names: Vec<_> = self.keys.iter().map(|key| key.name).filter(sealing).collect();
        for name in names {
            let request =
                SealRequest { key: name, aad: TEXT.to_vec(), plaintext: Zeroizing::new(TEXT.to_vec()) };
            let sealed = Operator { session, keys: self }.seal(&[request])?.into_iter().next();
            if let Some((key, sealed)) = self.keys.iter_mut().find(|key| key.name == name).zip(sealed) {
                key.reference = Some(OpenRequest { key: name, aad: TEXT.to_vec(), sealed });
            }
        }
        Ok(())
    }

    /// Something the sealing key `name` can certainly open.
    pub(super) fn reference(&self, name: KeyName) -> Option<&OpenRequest> {
        self.key(name)?.reference.as_ref()
    }

    /// The reference of the newest record key.
    pub(super) fn newest_reference(&self) -> Option<&OpenRequest> {
        let newest = self.keys.iter().rfind(|key| key.name.purpose == Purpose::Record)?;
        newest.reference.as_ref()
    }

    pub(super) fn key(&self, name: KeyName) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub(super) fn handle(&self, name: KeyName) -> Result<ObjectHandle, Fault> {
        self.key(name).map(|key| key.handle).ok_or_else(|| Fault::NoKey(name.to_string()))
    }

    pub(super) fn infos(&self) -> impl Iterator<Item = KeyInfo> {
        self.keys.iter().map(|key| KeyInfo { name: key.name, public: key.public.clone() })
    }
}

fn name_of(session: &Session, handle: ObjectHandle, prefix: &str) -> Result<Option<KeyName>, SetupError> {
    let attributes = session.get_attributes(handle, &[AttributeType::Label])?;
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::Label(label) => KeyName::from_label(prefix, &String::from_utf8_lossy(&label)),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_its_key() {
        for purpose in Purpose::ALL {
            let name = KeyName { purpose, version: 12 };
            assert_eq!(KeyName::from_label("shop-vault", &name.label("shop-vault")), Some(name));
        }
    }

    #[test]
    fn other_labels_are_not_ours() {
        for label in [
            "",
            "vaultd",
            "vaultd-record",
            "vaultd-record-v0",
            "vaultd-record-vx",
            "other-record-v1",
            "vaultd-cvv-v1",
        ] {
            assert_eq!(KeyName::from_label("vaultd", label), None, "{label}");
        }
    }
}
