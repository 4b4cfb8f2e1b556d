//! Calls that go to the module without the library between: those where modules are not as the library expects.
//!
//! - openCryptoki fills the time of `CK_TOKEN_INFO` with something else, and the library then gives back none of it.
//! - NSS softokn answers a question for the length of a GCM ciphertext without its tag, and the library asks always.
//!   Lengths are known, so that the question would be one more round trip to a network HSM besides, and is not asked
//!   before any operation in service.

use std::sync::Arc;

use cryptoki::{
    context::Function,
    error::{Error as Pkcs11Error, Rv},
    object::ObjectHandle,
    session::Session,
    slot::Slot,
};
use cryptoki_sys::{
    CK_BYTE, CK_FUNCTION_LIST, CK_GCM_PARAMS, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV,
    CK_SESSION_HANDLE, CK_TOKEN_INFO, CK_ULONG, CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH,
    CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED,
    CKF_USER_PIN_TO_BE_CHANGED, CKF_WRITE_PROTECTED, CKM_AES_GCM,
};

use zeroize::Zeroizing;

use super::{Library, NONCE_BYTES, SetupError, TAG_BYTES};

/// Room for the longest signature there is: of an RSA key of 8,192 bits.
const MOST_SIGNATURE_BYTES: usize = 1_024;

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
    pub(super) fn encrypt_gcm(
        &self,
        session: &Session,
        key: ObjectHandle,
        nonce: Option<&mut [u8; NONCE_BYTES]>,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Pkcs11Error> {
        let call = Call {
            begin: (self.functions.C_EncryptInit, Function::EncryptInit),
            end: (self.functions.C_Encrypt, Function::Encrypt),
        };
        // Room for a nonce of up to 16 bytes at the end: with less a module could not even show that it makes those.
        let mut ciphertext = vec![0; plaintext.len() + TAG_BYTES + 16];
        call.gcm(session, key, nonce, aad, plaintext, &mut ciphertext)?;
        Ok(ciphertext)
    }

    /// AES-GCM decryption of `ciphertext`, with a tag of 16 bytes at its end. The module may write to `nonce`.
    pub(super) fn decrypt_gcm(
        &self,
        session: &Session,
        key: ObjectHandle,
        nonce: &mut [u8; NONCE_BYTES],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Pkcs11Error> {
        let call = Call {
            begin: (self.functions.C_DecryptInit, Function::DecryptInit),
            end: (self.functions.C_Decrypt, Function::Decrypt),
        };
        // Some modules want room for the tag, too.
        let mut plaintext = Zeroizing::new(vec![0; ciphertext.len()]);
        call.gcm(session, key, Some(nonce), aad, ciphertext, &mut plaintext)?;
        Ok(plaintext)
    }

    /// A signature or MAC of `message` by `mechanism`, which has no parameters.
    #[expect(unsafe_code, reason = "the PKCS#11 interface is C")]
    pub(super) fn sign(
        &self,
        session: &Session,
        key: ObjectHandle,
        mechanism: CK_MECHANISM_TYPE,
        message: &[u8],
    ) -> Result<Vec<u8>, Pkcs11Error> {
        let call = Call {
            begin: (self.functions.C_SignInit, Function::SignInit),
            end: (self.functions.C_Sign, Function::Sign),
        };
        let mechanism = CK_MECHANISM { mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
        let mut signature = vec![0; MOST_SIGNATURE_BYTES];
        // SAFETY: the mechanism points to nothing.
        unsafe { call.make(session, key, mechanism, message, &mut signature) }?;
        Ok(signature)
    }
}

type Begin = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type End =
    unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG) -> CK_RV;

/// The two functions of an operation in one part, and what they are called in errors.
struct Call {
    begin: (Option<Begin>, Function),
    end: (Option<End>, Function),
}

impl Call {
    /// [`Call::make`] by AES-GCM (PKCS #11 v3.1, 6.13.6). The module may write to `nonce`.
    #[expect(unsafe_code, reason = "the PKCS#11 interface is C")]
    fn gcm(
        self,
        session: &Session,
        key: ObjectHandle,
        nonce: Option<&mut [u8; NONCE_BYTES]>,
        aad: &[u8],
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), Pkcs11Error> {
        let mut parameters = CK_GCM_PARAMS {
            ulIvLen: if nonce.is_some() { NONCE_BYTES.try_into()? } else { 0 },
            pIv: nonce.map_or(std::ptr::null_mut(), |nonce| nonce.as_mut_ptr()),
            // With no nonce given, this says how long one is to be made.
            ulIvBits: (NONCE_BYTES * 8).try_into()?,
            pAAD: aad.as_ptr().cast_mut(),
            ulAADLen: aad.len().try_into()?,
            ulTagBits: (TAG_BYTES * 8).try_into()?,
        };
        let mechanism = CK_MECHANISM {
            mechanism: CKM_AES_GCM,
            pParameter: (&raw mut parameters).cast(),
            ulParameterLen: size_of::<CK_GCM_PARAMS>().try_into()?,
        };
        // SAFETY: parameters, nonce and AAD outlive the call; modules only read the AAD, and the nonce is borrowed for writing.
        unsafe { self.make(session, key, mechanism, input, output) }
    }

    /// Makes `input` into what is written to `output`, all of which is room for it, and cuts that to its length.
    ///
    /// # Safety
    /// What the parameters of `mechanism` point to must be there until this returns, and a GCM nonce be free to be written to.
    #[expect(unsafe_code, reason = "the PKCS#11 interface is C")]
    unsafe fn make(
        self,
        session: &Session,
        key: ObjectHandle,
        mut mechanism: CK_MECHANISM,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), Pkcs11Error> {
        let begin = self.begin.0.ok_or(Pkcs11Error::NullFunctionPointer)?;
        let end = self.end.0.ok_or(Pkcs11Error::NullFunctionPointer)?;
        let (input_len, mut len) = (input.len().try_into()?, output.len().try_into()?);
        // SAFETY: the caller vouches for the parameters of the mechanism, which itself is there until the end of both calls.
        let rv = unsafe { begin(session.handle(), &raw mut mechanism, key.handle()) };
        Rv::from(rv).into_result(self.begin.1)?;
        // SAFETY: as above; modules only read the input, and `len` is the room that `output` has.
        let rv = unsafe {
            end(session.handle(), input.as_ptr().cast_mut(), input_len, output.as_mut_ptr(), &raw mut len)
        };
        Rv::from(rv).into_result(self.end.1)?;
        output.truncate(len.try_into()?);
        Ok(())
    }
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
