//! Every function of PKCS #11 v2.40, forwarded.
#![expect(non_snake_case, reason = "the standard's names")]
#![allow(clippy::wildcard_imports, reason = "nearly every type the standard has")]

use cryptoki_sys::*;

use crate::{
    chaos::{self, Call, Output},
    rule::Function,
};

/// Defines the functions, their list and their table. After the signature, which is the standard's, stands what it
/// does not say: `in` which session, which handles it `uses` and what it answers if one is stale, which handle it
/// `gives` or how many it `lists`, and where it `writes` bytes and their number.
macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*)
        $(in $session:ident)?
        $(uses $($used:ident or $stale:ident),+)?
        $(gives $($given:ident),+)?
        $(lists $listed:ident by $count:ident)?
        $(writes $bytes:ident by $length:ident)?;
    )+) => {
        /// Every function that can be troubled.
        pub(crate) static FUNCTIONS: &[&Function] = &[
            $(&function(stringify!($name), &[$(stringify!($session))?], &[$(stringify!($bytes))?])),+
        ];

        /// The list of these functions, for a module of `version`.
        pub(crate) fn list(version: CK_VERSION) -> CK_FUNCTION_LIST {
            CK_FUNCTION_LIST { version, C_GetFunctionList: Some(crate::C_GetFunctionList), $($name: Some($name)),+ }
        }

        $(unsafe extern "C" fn $name($($argument: $kind),*) -> CK_RV {
            static FUNCTION: Function =
                function(stringify!($name), &[$(stringify!($session))?], &[$(stringify!($bytes))?]);
            let Some(chaos) = chaos::get() else { return CKR_GENERAL_ERROR };
            let call = Call {
                function: &FUNCTION,
                session: first([$($session)?]),
                output: first([$(Output { bytes: $bytes, length: $length })?]),
            };
            let forward = || {
                $($(let Some($used) = chaos.handles().real($used) else { return $stale };)+)?
                let Some(real) = chaos.real().$name else { return CKR_FUNCTION_NOT_SUPPORTED };
                // SAFETY: the arguments are passed on as they came, under the same contract.
                let rv = unsafe { real($($argument),*) };
                if rv == CKR_OK {
                    // SAFETY: after success there is a handle at the pointer.
                    $($(unsafe { chaos.renumber($given, 1) };)+)?
                    // SAFETY: after success there are as many handles as the real module says.
                    $(unsafe { chaos.renumber($listed, $count.as_ref().copied().unwrap_or_default()) };)?
                }
                rv
            };
            // SAFETY: the standard's contract about the output is that of the caller.
            unsafe { chaos.call(&call, forward) }
        })+
    };
}

/// A function with the names of its session and its output, as far as it has them.
const fn function(name: &'static str, session: &[&str], output: &[&str]) -> Function {
    Function { name, takes_session: !session.is_empty(), writes: !output.is_empty() }
}

fn first<T, const N: usize>(values: [T; N]) -> Option<T> {
    values.into_iter().next()
}

forward! {
    C_Initialize(arguments: CK_VOID_PTR);
    C_Finalize(reserved: CK_VOID_PTR);
    C_GetInfo(info: CK_INFO_PTR);
    C_GetSlotList(present: CK_BBOOL, slots: CK_SLOT_ID_PTR, count: CK_ULONG_PTR);
    C_GetSlotInfo(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR);
    C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR);
    C_GetMechanismList(slot: CK_SLOT_ID, mechanisms: CK_MECHANISM_TYPE_PTR, count: CK_ULONG_PTR);
    C_GetMechanismInfo(slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: CK_MECHANISM_INFO_PTR);
    C_InitToken(slot: CK_SLOT_ID, pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG, label: CK_UTF8CHAR_PTR);
    C_InitPIN(session: CK_SESSION_HANDLE, pin: CK_UTF8CHAR_PTR, length: CK_ULONG) in session;
    C_SetPIN(
        session: CK_SESSION_HANDLE, old: CK_UTF8CHAR_PTR, old_length: CK_ULONG,
        new: CK_UTF8CHAR_PTR, new_length: CK_ULONG
    ) in session;
    C_OpenSession(
        slot: CK_SLOT_ID, flags: CK_FLAGS, application: CK_VOID_PTR,
        notify: CK_NOTIFY, session: CK_SESSION_HANDLE_PTR
    );
    C_CloseSession(session: CK_SESSION_HANDLE) in session;
    C_CloseAllSessions(slot: CK_SLOT_ID);
    C_GetSessionInfo(session: CK_SESSION_HANDLE, info: CK_SESSION_INFO_PTR) in session;
    C_GetOperationState(session: CK_SESSION_HANDLE, state: CK_BYTE_PTR, length: CK_ULONG_PTR)
        in session writes state by length;
    C_SetOperationState(
        session: CK_SESSION_HANDLE, state: CK_BYTE_PTR, length: CK_ULONG,
        encryption: CK_OBJECT_HANDLE, authentication: CK_OBJECT_HANDLE
    ) in session uses encryption or CKR_KEY_HANDLE_INVALID, authentication or CKR_KEY_HANDLE_INVALID;
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: CK_UTF8CHAR_PTR, length: CK_ULONG)
        in session;
    C_Logout(session: CK_SESSION_HANDLE) in session;
    C_CreateObject(
        session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR,
        count: CK_ULONG, object: CK_OBJECT_HANDLE_PTR
    ) in session gives object;
    C_CopyObject(
        session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR,
        count: CK_ULONG, copy: CK_OBJECT_HANDLE_PTR
    ) in session uses object or CKR_OBJECT_HANDLE_INVALID gives copy;
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE)
        in session uses object or CKR_OBJECT_HANDLE_INVALID;
    C_GetObjectSize(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, size: CK_ULONG_PTR)
        in session uses object or CKR_OBJECT_HANDLE_INVALID;
    C_GetAttributeValue(
        session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: CK_ATTRIBUTE_PTR, count: CK_ULONG
    ) in session uses object or CKR_OBJECT_HANDLE_INVALID;
    C_SetAttributeValue(
        session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: CK_ATTRIBUTE_PTR, count: CK_ULONG
    ) in session uses object or CKR_OBJECT_HANDLE_INVALID;
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG) in session;
    C_FindObjects(
        session: CK_SESSION_HANDLE, found: CK_OBJECT_HANDLE_PTR,
        room: CK_ULONG, count: CK_ULONG_PTR
    ) in session lists found by count;
    C_FindObjectsFinal(session: CK_SESSION_HANDLE) in session;
    C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE)
        in session uses key or CKR_KEY_HANDLE_INVALID;
    C_Encrypt(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_EncryptUpdate(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_EncryptFinal(session: CK_SESSION_HANDLE, bytes: CK_BYTE_PTR, length: CK_ULONG_PTR)
        in session writes bytes by length;
    C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE)
        in session uses key or CKR_KEY_HANDLE_INVALID;
    C_Decrypt(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_DecryptUpdate(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_DecryptFinal(session: CK_SESSION_HANDLE, bytes: CK_BYTE_PTR, length: CK_ULONG_PTR)
        in session writes bytes by length;
    C_DigestInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR) in session;
    C_Digest(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_DigestUpdate(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG) in session;
    C_DigestKey(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE)
        in session uses key or CKR_KEY_HANDLE_INVALID;
    C_DigestFinal(session: CK_SESSION_HANDLE, bytes: CK_BYTE_PTR, length: CK_ULONG_PTR)
        in session writes bytes by length;
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE)
        in session uses key or CKR_KEY_HANDLE_INVALID;
    C_Sign(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_SignUpdate(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG) in session;
    C_SignFinal(session: CK_SESSION_HANDLE, bytes: CK_BYTE_PTR, length: CK_ULONG_PTR)
        in session writes bytes by length;
    C_SignRecoverInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE)
        in session uses key or CKR_KEY_HANDLE_INVALID;
    C_SignRecover(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_VerifyInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE)
        in session uses key or CKR_KEY_HANDLE_INVALID;
    C_Verify(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG,
        signature: CK_BYTE_PTR, signature_length: CK_ULONG
    ) in session;
    C_VerifyUpdate(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG) in session;
    C_VerifyFinal(session: CK_SESSION_HANDLE, signature: CK_BYTE_PTR, length: CK_ULONG) in session;
    C_VerifyRecoverInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE)
        in session uses key or CKR_KEY_HANDLE_INVALID;
    C_VerifyRecover(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_DigestEncryptUpdate(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_DecryptDigestUpdate(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_SignEncryptUpdate(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_DecryptVerifyUpdate(
        session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG,
        bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session writes bytes by length;
    C_GenerateKey(
        session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, template: CK_ATTRIBUTE_PTR,
        count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR
    ) in session gives key;
    C_GenerateKeyPair(
        session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, public_template: CK_ATTRIBUTE_PTR, public_count: CK_ULONG,
        private_template: CK_ATTRIBUTE_PTR, private_count: CK_ULONG, public: CK_OBJECT_HANDLE_PTR, private: CK_OBJECT_HANDLE_PTR
    ) in session gives public, private;
    C_WrapKey(
        session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, wrapping: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE, bytes: CK_BYTE_PTR, length: CK_ULONG_PTR
    ) in session uses wrapping or CKR_WRAPPING_KEY_HANDLE_INVALID, key or CKR_KEY_HANDLE_INVALID writes bytes by length;
    C_UnwrapKey(
        session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, unwrapping: CK_OBJECT_HANDLE, wrapped: CK_BYTE_PTR,
        length: CK_ULONG, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR
    ) in session uses unwrapping or CKR_UNWRAPPING_KEY_HANDLE_INVALID gives key;
    C_DeriveKey(
        session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, base: CK_OBJECT_HANDLE,
        template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR
    ) in session uses base or CKR_KEY_HANDLE_INVALID gives key;
    C_SeedRandom(session: CK_SESSION_HANDLE, seed: CK_BYTE_PTR, length: CK_ULONG) in session;
    C_GenerateRandom(session: CK_SESSION_HANDLE, bytes: CK_BYTE_PTR, length: CK_ULONG) in session;
    C_GetFunctionStatus(session: CK_SESSION_HANDLE) in session;
    C_CancelFunction(session: CK_SESSION_HANDLE) in session;
    C_WaitForSlotEvent(flags: CK_FLAGS, slot: CK_SLOT_ID_PTR, reserved: CK_VOID_PTR);
}
