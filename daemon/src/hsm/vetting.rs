//! How a key must be before the vault uses it.

use cryptoki::{
    error::{Error as Pkcs11Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};

use super::{KeyName, Operation, RsaPublic, SetupError};

/// Bytes of a key that seals or makes MACs.
pub(super) const SECRET_KEY_BYTES: u64 = 32;
/// The shortest RSA modulus that is accepted (RFC 7518, 3.3).
const MIN_RSA_MODULUS_BYTES: usize = 256;

/// What is wrong with a key (PCI DSS 3.6.1, 3.7.1): empty if nothing is.
pub(super) fn vet(
    session: &Session,
    handle: ObjectHandle,
    name: KeyName,
    class: ObjectClass,
) -> Result<Vec<String>, SetupError> {
    let operation = name.purpose.operation();
    let (encrypts, signs) = match operation {
        Operation::Seal => (true, false),
        Operation::Mac | Operation::Sign => (false, true),
    };
    // What the key's secrecy rests on must be told. A usage that the token does not tell is one it does not know.
    let secrecy = [
        (AttributeType::Sensitive, true),
        (AttributeType::AlwaysSensitive, true),
        (AttributeType::Extractable, false),
        (AttributeType::NeverExtractable, true),
        (AttributeType::Local, true),
        (AttributeType::Private, true),
    ];
    let usage = [
        (AttributeType::Decrypt, encrypts),
        (AttributeType::Sign, signs),
        (AttributeType::Unwrap, false),
        (AttributeType::Derive, false),
    ];
    let secret_key_only = [(AttributeType::Encrypt, encrypts), (AttributeType::Wrap, false)];

    let mut faults = Vec::new();
    if class != operation.class() {
        faults.push("wrong object class".to_owned());
    }
    let only = if class == ObjectClass::SECRET_KEY { secret_key_only.as_slice() } else { &[] };
    for (attribute, must_be) in secrecy {
        match told(session, handle, attribute)?.as_ref().and_then(flag) {
            Some(value) if value == must_be => {}
            Some(_) if attribute == AttributeType::Local && !keeps_account_of_local(session)? => {
                tracing::debug!(key = %name, "the token calls no key local, not even one it has just made");
            }
            Some(value) => faults.push(format!("{attribute} is {value} and must be {must_be}")),
            None => faults.push(format!("{attribute} is not told by the token and must be {must_be}")),
        }
    }
    for (attribute, must_be) in usage.iter().chain(only) {
        if told(session, handle, *attribute)?.as_ref().and_then(flag).is_some_and(|value| value != *must_be) {
            faults.push(format!("{attribute} is {} and must be {must_be}", !must_be));
        }
    }
    for attribute in [AttributeType::KeyType, AttributeType::ValueLen] {
        let Some(attribute) = told(session, handle, attribute)? else { continue };
        match attribute {
            Attribute::KeyType(key_type) if !operation.key_types().contains(&key_type) => {
                faults.push("wrong key type".to_owned());
            }
            Attribute::ValueLen(len) if *len != SECRET_KEY_BYTES => {
                faults.push(format!("{len} bytes long, not {SECRET_KEY_BYTES}"));
            }
            _ => {}
        }
    }
    Ok(faults)
}

/// Whether the token calls a key local that it has made this moment. NSS softokn does not.
///
/// Where it does not, the attribute says nothing. That a key was made inside is then known from
/// `CKA_ALWAYS_SENSITIVE` and `CKA_NEVER_EXTRACTABLE`, which are false for keys that came in (PKCS #11 v3.1, 4.9).
fn keeps_account_of_local(session: &Session) -> Result<bool, SetupError> {
    let template = [
        Attribute::Token(false),
        Attribute::ValueLen(SECRET_KEY_BYTES.into()),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
    ];
    let fresh = session.generate_key(&Mechanism::AesKeyGen, &template)?;
    let local = is_local(session, fresh);
    // It ends with the session in any case.
    let _ = session.destroy_object(fresh);
    local
}

/// Whether the token says that it made the key itself.
pub(super) fn is_local(session: &Session, handle: ObjectHandle) -> Result<bool, SetupError> {
    Ok(told(session, handle, AttributeType::Local)?.as_ref().and_then(flag) == Some(true))
}

/// One attribute, asked for alone: a token that does not know it must not keep back the others.
fn told(
    session: &Session,
    handle: ObjectHandle,
    attribute: AttributeType,
) -> Result<Option<Attribute>, Pkcs11Error> {
    match session.get_attributes(handle, &[attribute]) {
        Ok(told) => Ok(told.into_iter().next()),
        Err(Pkcs11Error::Pkcs11(RvError::AttributeTypeInvalid | RvError::AttributeSensitive, _)) => Ok(None),
        Err(other) => Err(other),
    }
}

fn flag(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Sensitive(value)
        | Attribute::AlwaysSensitive(value)
        | Attribute::Extractable(value)
        | Attribute::NeverExtractable(value)
        | Attribute::Local(value)
        | Attribute::Private(value)
        | Attribute::Encrypt(value)
        | Attribute::Decrypt(value)
        | Attribute::Sign(value)
        | Attribute::Wrap(value)
        | Attribute::Unwrap(value)
        | Attribute::Derive(value) => Some(*value),
        _ => None,
    }
}

/// The public key that belongs to the signing key `name`.
pub(super) fn public_half(session: &Session, name: KeyName, prefix: &str) -> Result<RsaPublic, SetupError> {
    let label = name.label(prefix);
    let template = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Label(label.clone().into_bytes()),
    ];
    let objects = session.find_objects(&template)?;
    let [object] = objects.as_slice() else {
        return Err(SetupError::Key(format!(
            "key {label}: its token holds {} public keys of that label, not one; remove the private key and run \
             `vaultd init`, or put the public key back",
            objects.len()
        )));
    };
    let mut public = RsaPublic { modulus: Vec::new(), exponent: Vec::new() };
    for attribute in [AttributeType::Modulus, AttributeType::PublicExponent] {
        let Some(attribute) = told(session, *object, attribute)? else { continue };
        match attribute {
            Attribute::Modulus(bytes) => public.modulus = without_leading_zeros(bytes),
            Attribute::PublicExponent(bytes) => public.exponent = without_leading_zeros(bytes),
            _ => {}
        }
    }
    if public.modulus.len() < MIN_RSA_MODULUS_BYTES || public.exponent.is_empty() {
        return Err(SetupError::Key(format!(
            "key {label}: an RSA key must have at least {} bits",
            MIN_RSA_MODULUS_BYTES * 8
        )));
    }
    Ok(public)
}

fn without_leading_zeros(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}

impl Operation {
    fn class(self) -> ObjectClass {
        match self {
            Self::Seal | Self::Mac => ObjectClass::SECRET_KEY,
            Self::Sign => ObjectClass::PRIVATE_KEY,
        }
    }

    /// Key types that do: some tokens make MACs with generic secrets, some with keys for that one MAC only.
    fn key_types(self) -> &'static [KeyType] {
        match self {
            Self::Seal => &[KeyType::AES],
            Self::Mac => &[KeyType::GENERIC_SECRET, KeyType::SHA256_HMAC],
            Self::Sign => &[KeyType::RSA],
        }
    }
}
