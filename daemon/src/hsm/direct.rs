//! Calls that go to the module without the library between: those where modules are not as the library expects.
//!
//! - openCryptoki fills the time of `CK_TOKEN_INFO` with something else, and the library then gives back none of it.
//! - NSS softokn answers a question for the length of a GCM ciphertext without its tag, and the library asks always.
//!   Lengths are known, so that the question would be one more round trip to a network HSM besides, and is not asked
//!   before a decryption either.

use std::sync::Arc;

use cryptoki::{
    context::Function,
    error::{Error as Pkcs11Error, Rv},
    object::ObjectHandle,
    session::Session,
    slot::Slot,
};
use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_GCM_PARAMS, CK_MECHANISM, CK_TOKEN_INFO, CK_ULONG, CKF_LOGIN_REQUIRED,
    CKF_PROTECTED_AUTHENTICATION_PATH, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY,
    CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED, CKF_WRITE_PROTECTED, CKM_AES_GCM,
};

use zeroize::Zeroizing;

use super::{Library, NONCE_BYTES, SetupError, TAG_BYTES};

/// The functions of a module that is loaded and initialised.
#[derive(Clone)]
pub(super) struct Direct {
    functions: CK_FUNCTION_LIST,
    /// Keeps the code of the functions where it is.
    _library: Arc<cryptoki_sys::Pkcs11>,
}

/// What a token says of itself.
#[derive(Clone, Debug)]
pub(super) struct TokenInfo {
    pub(super) label: String,
    pub(super) serial: String,
    pub(super) manufacturer: String,
    pub(super) model: String,
    pub(super) firmware: String,
    /// How many sessions it allows; zero is any number, or that it does not say.
    pub(super) max_sessions: CK_ULONG,
    flags: CK_ULONG,
}

impl TokenInfo {
    pub(super) fn initialized(&self) -> bool {
        self.has(CKF_TOKEN_INITIALIZED)
    }

    pub(super) fn login_required(&self) -> bool {
        self.has(CKF_LOGIN_REQUIRED)
    }

    pub(super) fn protected_path(&self) -> bool {
        self.has(CKF_PROTECTED_AUTHENTICATION_PATH)
    }

    /// Whether a wrong PIN would be the last one.
    pub(super) fn has_one_try_left(&self) -> bool {
        self.has(CKF_USER_PIN_FINAL_TRY)
    }

    /// What else of its flags an operator should know.
    pub(super) fn warnings(&self) -> impl Iterator<Item = &'static str> {
        let worth_saying = [
            (CKF_WRITE_PROTECTED, "write-protected"),
            (CKF_USER_PIN_COUNT_LOW, "a wrong PIN was tried"),
            (CKF_USER_PIN_FINAL_TRY, "ONE TRY OF THE PIN IS LEFT"),
            (CKF_USER_PIN_LOCKED, "THE PIN IS LOCKED"),
            (CKF_USER_PIN_TO_BE_CHANGED, "THE PIN MUST BE CHANGED"),
        ];
        worth_saying.into_iter().filter(|(flag, _)| self.has(*flag)).map(|(_, text)| text)
    }

    fn has(&self, flag: CK_ULONG) -> bool {
        self.flags & flag != 0
    }
}

impl Direct {
    /// The functions of `library`, which must be loaded and initialised already.
    ///
    /// # Errors
    /// [`SetupError::Module`] if it gives out none.
    #[expect(unsafe_code, reason = "the PKCS#11 interface is C")]
    pub(super) fn of(library: &Library) -> Result<Self, SetupError> {
        let failed = |reason: String| SetupError::Module { path: library.path.clone(), reason };
        // SAFETY: the library is in this process already, so that its initialisers do not run.
        let loaded = unsafe { cryptoki_sys::Pkcs11::new(&library.path) };
        let loaded = loaded.map_err(|error| failed(error.to_string()))?;
        let get = loaded.C_GetFunctionList.as_ref().map_err(|error| failed(error.to_string()))?;
        let mut list = std::ptr::null_mut();
        // SAFETY: the symbol has the type that PKCS #11 gives it, and `list` has room for a pointer.
        let rv = unsafe { get(&raw mut list) };
        Rv::from(rv).into_result(Function::GetFunctionList)?;
        if list.is_null() {
            return Err(failed("its list of functions is empty".to_owned()));
        }
        // SAFETY: the module has just given out this list, of version 2.x, whose head all versions share.
        let functions = unsafe { *list };
        Ok(Self { functions, _library: Arc::new(loaded) })
    }

    /// What the token in `slot` says of itself.
    #[expect(unsafe_code, reason = "the PKCS#11 interface is C")]
    pub(super) fn token_info(&self, slot: Slot) -> Result<TokenInfo, Pkcs11Error> {
        let call = self.functions.C_GetTokenInfo.ok_or(Pkcs11Error::NullFunctionPointer)?;
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: `info` is the structure the function fills.
        let rv = unsafe { call(slot.into(), &raw mut info) };
        Rv::from(rv).into_result(Function::GetTokenInfo)?;
        let firmware = info.firmwareVersion;
        Ok(TokenInfo {
            label: text(&info.label),
            serial: text(&info.serialNumber),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
            firmware: format!("{}.{}", firmware.major, firmware.minor),
            // CK_UNAVAILABLE_INFORMATION and numbers like it are no limits.
            max_sessions: Some(info.ulMaxSessionCount)
                .filter(|most| *most < CK_ULONG::MAX / 2)
                .unwrap_or_default(),
            flags: info.flags,
        })
    }

    /// AES-GCM encryption of `plaintext` with a tag of 16 bytes.
    ///
    /// The module is given `nonce`, or asked to append one of its own to the ciphertext. It may write to `nonce`.
    #[expect(unsafe_code, reason = "the PKCS#11 interface is C")]
    pub(super) fn encrypt_gcm(
        &self,
        session: &Session,
        key: ObjectHandle,
        nonce: Option<&mut [u8; NONCE_BYTES]>,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Pkcs11Error> {
        let begin = self.functions.C_EncryptInit.ok_or(Pkcs11Error::NullFunctionPointer)?;
        let encrypt = self.functions.C_Encrypt.ok_or(Pkcs11Error::NullFunctionPointer)?;
        // Room for a nonce of up to 16 bytes at the end: with less a module could not even show that it makes those.
        let mut ciphertext = vec![0; plaintext.len() + TAG_BYTES + 16];
        let mut len = CK_ULONG::try_from(ciphertext.len())?;
        let mut parameters = gcm_parameters(nonce, aad)?;
        let mut mechanism = gcm(&mut parameters)?;
        // SAFETY: the mechanism, its parameters, nonce and AAD outlive both calls; modules only read the AAD.
        let rv = unsafe { begin(session.handle(), &raw mut mechanism, key.handle()) };
        Rv::from(rv).into_result(Function::EncryptInit)?;
        // SAFETY: as above; modules only read the plaintext, and `len` is the room that `ciphertext` has.
        let rv = unsafe {
            encrypt(
                session.handle(),
                plaintext.as_ptr().cast_mut(),
                plaintext.len().try_into()?,
                ciphertext.as_mut_ptr(),
                &raw mut len,
            )
        };
        Rv::from(rv).into_result(Function::Encrypt)?;
        ciphertext.truncate(len.try_into()?);
        Ok(ciphertext)
    }

    /// AES-GCM decryption of `ciphertext`, with a tag of 16 bytes at its end. The module may write to `nonce`.
    #[expect(unsafe_code, reason = "the PKCS#11 interface is C")]
    pub(super) fn decrypt_gcm(
        &self,
        session: &Session,
        key: ObjectHandle,
        nonce: &mut [u8; NONCE_BYTES],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Pkcs11Error> {
        let begin = self.functions.C_DecryptInit.ok_or(Pkcs11Error::NullFunctionPointer)?;
        let decrypt = self.functions.C_Decrypt.ok_or(Pkcs11Error::NullFunctionPointer)?;
        // Some modules want room for the tag, too.
        let mut plaintext = Zeroizing::new(vec![0; ciphertext.len()]);
        let mut len = CK_ULONG::try_from(plaintext.len())?;
        let mut parameters = gcm_parameters(Some(nonce), aad)?;
        let mut mechanism = gcm(&mut parameters)?;
        // SAFETY: the mechanism, its parameters, nonce and AAD outlive both calls; modules only read the AAD.
        let rv = unsafe { begin(session.handle(), &raw mut mechanism, key.handle()) };
        Rv::from(rv).into_result(Function::DecryptInit)?;
        // SAFETY: as above; modules only read the ciphertext, and `len` is the room that `plaintext` has.
        let rv = unsafe {
            decrypt(
                session.handle(),
                ciphertext.as_ptr().cast_mut(),
                ciphertext.len().try_into()?,
                plaintext.as_mut_ptr(),
                &raw mut len,
            )
        };
        Rv::from(rv).into_result(Function::Decrypt)?;
        plaintext.truncate(len.try_into()?);
        Ok(plaintext)
    }
}

/// The parameters of AES-GCM (PKCS #11 v3.1, 6.13.6). They point to `nonce`, which the module may write to, and `aad`.
fn gcm_parameters(nonce: Option<&mut [u8; NONCE_BYTES]>, aad: &[u8]) -> Result<CK_GCM_PARAMS, Pkcs11Error> {
    Ok(CK_GCM_PARAMS {
        ulIvLen: if nonce.is_some() { NONCE_BYTES.try_into()? } else { 0 },
        pIv: nonce.map_or(std::ptr::null_mut(), |nonce| nonce.as_mut_ptr()),
        // With no nonce given, this says how long one is to be made.
        ulIvBits: (NONCE_BYTES * 8).try_into()?,
        pAAD: aad.as_ptr().cast_mut(),
        ulAADLen: aad.len().try_into()?,
        ulTagBits: (TAG_BYTES * 8).try_into()?,
    })
}

/// AES-GCM with `parameters`, which it points to.
fn gcm(parameters: &mut CK_GCM_PARAMS) -> Result<CK_MECHANISM, Pkcs11Error> {
    Ok(CK_MECHANISM {
        mechanism: CKM_AES_GCM,
        pParameter: (&raw mut *parameters).cast(),
        ulParameterLen: size_of::<CK_GCM_PARAMS>().try_into()?,
    })
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direct")
    }
}

/// A blank-padded text field. Some modules pad with zero bytes.
fn text(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.trim_end_matches([' ', '\0']).replace(|c: char| c.is_control(), "")
}
