//! Making a key inside the token. The one place that writes to it.

use cryptoki::{
    context::Pkcs11,
    error::{Error as Pkcs11Error, RvError},
    mechanism::{Mechanism, MechanismType, vendor_defined::VendorDefinedMechanism},
    object::{Attribute, KeyType, ObjectHandle},
    session::Session,
};

use super::{KeyName, Operation, SetupError, error::brief, vetting::SECRET_KEY_BYTES};

/// Bits of a signing key: 128 bits of security are not needed for minutes, but keys live for years (SP 800-57, 5.6.1).
const RSA_BITS: u64 = 3_072;
/// Bits of a signing key where the token makes no longer ones (the least that RFC 7518, 3.3 allows).
const SHORT_RSA_BITS: u64 = 2_048;
/// The public exponent 65537 (FIPS 186-5, A.1.1).
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Makes the key `name` in the token that `session` is a read-write session of, logged in; gives its objects.
///
/// What a module made must be vetted before it is used: it may quietly ignore an attribute.
///
/// # Errors
/// [`SetupError`] if the token does not make the key; then none is left behind.
pub(super) fn generate(
    module: &Pkcs11,
    session: &Session,
    prefix: &str,
    name: KeyName,
) -> Result<Vec<ObjectHandle>, SetupError> {
    let identity = [
        Attribute::Token(true),
        Attribute::Label(name.label(prefix).into_bytes()),
        Attribute::Id(name.to_string().into_bytes()),
    ];
    let made = make(module, session, &identity, name.purpose.operation());
    made.map_err(|error| match error {
        SetupError::Pkcs11(Pkcs11Error::Pkcs11(
            reason @ (RvError::SessionReadOnly | RvError::TokenWriteProtected),
            _,
        )) => SetupError::Key(format!(
            "key {}: the token lets vaultd make no keys ({reason:?}): allow it to write, or make the key with the \
             vendor's tools",
            name.label(prefix)
        )),
        other => other,
    })
}

/// Makes a key for `operation` that dies with `session`: nothing is written to the token.
///
/// # Errors
/// [`SetupError`] if the token does not make one.
pub(super) fn generate_for_session(
    module: &Pkcs11,
    session: &Session,
    operation: Operation,
) -> Result<ObjectHandle, SetupError> {
    let made = make(module, session, &[Attribute::Token(false)], operation)?;
    made.last().copied().ok_or_else(|| SetupError::Key("the token made no object".to_owned()))
}

/// Makes a key; the last of its objects is the secret or private one.
fn make(
    module: &Pkcs11,
    session: &Session,
    identity: &[Attribute],
    operation: Operation,
) -> Result<Vec<ObjectHandle>, SetupError> {
    // Not CKA_MODIFIABLE=false: it also forbids the session copies that make operations fast, and what matters
    // cannot be taken back anyway (sensitive and not extractable only ever tighten, PKCS #11 v3.1, 4.4.1).
    let secret = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Derive(false),
        Attribute::Unwrap(false),
    ];
    let usage = |encrypts: bool| {
        [
            Attribute::ValueLen(SECRET_KEY_BYTES.into()),
            Attribute::Wrap(false),
            Attribute::Encrypt(encrypts),
            Attribute::Decrypt(encrypts),
            Attribute::Sign(!encrypts),
            Attribute::Verify(!encrypts),
        ]
    };
    match operation {
        Operation::Seal => {
            let template = [identity, &secret, &usage(true)].concat();
            Ok(vec![session.generate_key(&Mechanism::AesKeyGen, &template)?])
        }
        Operation::Mac => Ok(vec![make_mac_key(session, &[identity, &secret, &usage(false)].concat())?]),
        Operation::Sign => {
            let public = [
                Attribute::Private(false),
                Attribute::ModulusBits(rsa_bits(module, session)?.into()),
                Attribute::PublicExponent(RSA_EXPONENT.to_vec()),
                Attribute::Verify(true),
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
            ];
            let private = [Attribute::Sign(true), Attribute::Decrypt(false)];
            let (public, private) = session.generate_key_pair(
                &Mechanism::RsaPkcsKeyPairGen,
                &[identity, &public].concat(),
                &[identity, &secret, &private].concat(),
            )?;
            Ok(vec![public, private])
        }
    }
}

/// Makes a key that makes HMACs: a generic secret, or a key for this one MAC where the token wants that.
fn make_mac_key(session: &Session, template: &[Attribute]) -> Result<ObjectHandle, SetupError> {
    let for_this_mac = VendorDefinedMechanism::new::<()>(MechanismType::SHA256_KEY_GEN, None);
    let with_type = [template, &[Attribute::KeyType(KeyType::SHA256_HMAC)]].concat();
    let ways = [
        (Mechanism::GenericSecretKeyGen, template),
        (Mechanism::VendorDefined(for_this_mac), template),
        (Mechanism::GenericSecretKeyGen, &with_type),
    ];
    let mut refusals = Vec::new();
    for (mechanism, template) in ways {
        let made = session.generate_key(&mechanism, template).and_then(|key| {
            // A token may make a key of a type that it then does not use.
            session.sign(&Mechanism::Sha256Hmac, key, b"vaultd trial").map(|_| key).or_else(|error| {
                session.destroy_object(key)?;
                Err(error)
            })
        });
        match made {
            Ok(key) => return Ok(key),
            Err(error @ Pkcs11Error::Pkcs11(RvError::SessionReadOnly | RvError::TokenWriteProtected, _)) => {
                return Err(error.into());
            }
            Err(error) => refusals.push(brief(&error)),
        }
    }
    Err(SetupError::Key(format!("the token makes no key for CKM_SHA256_HMAC ({})", refusals.join("; "))))
}

/// The length of a new signing key: 3072 bits unless the token says that it makes none that long.
fn rsa_bits(module: &Pkcs11, session: &Session) -> Result<u64, SetupError> {
    let slot = session.get_session_info()?.slot_id();
    let most = module.get_mechanism_info(slot, MechanismType::RSA_PKCS_KEY_PAIR_GEN)?.max_key_size();
    let enough = u64::try_from(most).is_ok_and(|most| most >= RSA_BITS);
    // Zero means that the module does not say.
    Ok(if enough || most == 0 { RSA_BITS } else { SHORT_RSA_BITS })
}
