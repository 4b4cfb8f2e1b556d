//! How a key must be before the vault uses it.

use cryptoki::{
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
    let wanted = [
        (AttributeType::Sensitive, true),
        (AttributeType::AlwaysSensitive, true),
        (AttributeType::Extractable, false),
        (AttributeType::NeverExtractable, true),
        (AttributeType::Local, true),
        (AttributeType::Private, true),
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
    for (attribute, must_be) in wanted.iter().chain(only) {
        let value = session.get_attributes(handle, &[*attribute])?.into_iter().find_map(|got| flag(&got));
        if value != Some(*must_be) {
            let is = value.map_or("not told by the token".to_owned(), |value| value.to_string());
            faults.push(format!("{attribute} is {is} and must be {must_be}"));
        }
    }
    for attribute in session.get_attributes(handle, &[AttributeType::KeyType, AttributeType::ValueLen])? {
        match attribute {
            Attribute::KeyType(key_type) if key_type != operation.key_type() => {
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
    for attribute in
        session.get_attributes(*object, &[AttributeType::Modulus, AttributeType::PublicExponent])?
    {
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

    fn key_type(self) -> KeyType {
        match self {
            Self::Seal => KeyType::AES,
            Self::Mac => KeyType::GENERIC_SECRET,
            Self::Sign => KeyType::RSA,
        }
    }
}
