//! Making a key inside the token. The one place that writes to it.

use cryptoki::{
    context::Pkcs11,
    mechanism::{Mechanism, MechanismType},
    object::Attribute,
    session::Session,
};

use super::{KeyName, Operation, SetupError, vetting::SECRET_KEY_BYTES};

/// Bits of a signing key: 128 bits of security are not needed for minutes, but keys live for years (SP 800-57, 5.6.1).
const RSA_BITS: u64 = 3_072;
/// Bits of a signing key where the token makes no longer ones, as TPMs do (the least that RFC 7518, 3.3 allows).
const SHORT_RSA_BITS: u64 = 2_048;
/// The public exponent 65537 (FIPS 186-5, A.1.1).
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Makes the key `name` in the token that `session` is a read-write session of, logged in.
///
/// What a module made must be vetted before it is used: it may quietly ignore an attribute.
///
/// # Errors
/// [`SetupError`] if the token does not make the key.
pub(super) fn generate(
    module: &Pkcs11,
    session: &Session,
    prefix: &str,
    name: KeyName,
) -> Result<(), SetupError> {
    let common = [
        Attribute::Token(true),
        Attribute::Label(name.label(prefix).into_bytes()),
        Attribute::Id(name.to_string().into_bytes()),
    ];
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
    match name.purpose.operation() {
        Operation::Seal => {
            let template = [&common[..], &secret, &usage(true)].concat();
            session.generate_key(&Mechanism::AesKeyGen, &template)?;
        }
        Operation::Mac => {
            let template = [&common[..], &secret, &usage(false)].concat();
            session.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
        }
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
            session.generate_key_pair(
                &Mechanism::RsaPkcsKeyPairGen,
                &[&common[..], &public].concat(),
                &[&common[..], &secret, &private].concat(),
            )?;
        }
    }
    Ok(())
}

/// The length of a new signing key: 3072 bits unless the token says that it makes none that long.
fn rsa_bits(module: &Pkcs11, session: &Session) -> Result<u64, SetupError> {
    let slot = session.get_session_info()?.slot_id();
    let most = module.get_mechanism_info(slot, MechanismType::RSA_PKCS_KEY_PAIR_GEN)?.max_key_size();
    let enough = u64::try_from(most).is_ok_and(|most| most >= RSA_BITS);
    // Zero means that the module does not say.
    Ok(if enough || most == 0 { RSA_BITS } else { SHORT_RSA_BITS })
}
