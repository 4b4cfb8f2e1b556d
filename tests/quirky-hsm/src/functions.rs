//! The functions that are not the real module's.

use std::{ptr, slice};

use cryptoki_sys::{
    CK_ATTRIBUTE_PTR, CK_BYTE_PTR, CK_FLAGS, CK_FUNCTION_LIST, CK_GCM_PARAMS, CK_MECHANISM_INFO_PTR,
    CK_MECHANISM_PTR, CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE_PTR, CK_RV,
    CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SLOT_ID, CK_TOKEN_INFO_PTR, CK_ULONG, CK_ULONG_PTR,
    CK_UNAVAILABLE_INFORMATION, CK_USER_TYPE, CK_UTF8CHAR_PTR, CK_VOID_PTR, CKA_ALWAYS_SENSITIVE,
    CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH, CKF_RW_SESSION, CKF_USER_PIN_FINAL_TRY,
    CKM_AES_GCM, CKM_RSA_PKCS_KEY_PAIR_GEN, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL,
    CKR_FUNCTION_FAILED, CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_MECHANISM_PARAM_INVALID, CKR_OK,
    CKR_SESSION_COUNT, CKR_TOKEN_WRITE_PROTECTED, CKU_USER,
};

use crate::{Modules, NONCE_BYTES, quirks::Quirk};

pub(crate) fn replace(list: &mut CK_FUNCTION_LIST) {
    list.C_Finalize = Some(finalize);
    list.C_GetTokenInfo = Some(get_token_info);
    list.C_GetMechanismInfo = Some(get_mechanism_info);
    list.C_OpenSession = Some(open_session);
    list.C_CloseSession = Some(close_session);
    list.C_Login = Some(login);
    list.C_CopyObject = Some(copy_object);
    list.C_GetAttributeValue = Some(get_attribute_value);
    list.C_EncryptInit = Some(encrypt_init);
    list.C_Encrypt = Some(encrypt);
}

/// Calls the real module, passing the arguments on as they came.
macro_rules! real {
    ($modules:expr, $function:ident($($argument:expr),*)) => {
        match $modules.real.$function {
            // SAFETY: the arguments are the caller's, under the same contract, or made here to fulfil it.
            Some(function) => unsafe { function($($argument),*) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

unsafe extern "C" fn finalize(reserved: CK_VOID_PTR) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    *modules.state() = crate::State::default();
    real!(modules, C_Finalize(reserved))
}

unsafe extern "C" fn get_token_info(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    let rv = real!(modules, C_GetTokenInfo(slot, info));
    // SAFETY: the caller passes the structure, and the real module has just filled it.
    if let (CKR_OK, Some(info)) = (rv, unsafe { info.as_mut() }) {
        if modules.quirks.protected_path.is_some() {
            info.flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
        }
        if modules.quirks.has(Quirk::LastTry) {
            info.flags |= CKF_USER_PIN_FINAL_TRY;
        }
        if modules.quirks.no_login.is_some() {
            info.flags &= !CKF_LOGIN_REQUIRED;
        }
    }
    rv
}

unsafe extern "C" fn get_mechanism_info(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: CK_MECHANISM_INFO_PTR,
) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    let rv = real!(modules, C_GetMechanismInfo(slot, mechanism, info));
    // SAFETY: as above.
    if let (CKR_OK, true, Some(info)) = (rv, mechanism == CKM_RSA_PKCS_KEY_PAIR_GEN, unsafe { info.as_mut() })
        && modules.quirks.has(Quirk::ShortRsa)
    {
        info.ulMaxKeySize = 2_048;
    }
    rv
}

unsafe extern "C" fn open_session(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: CK_VOID_PTR,
    notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    if modules.quirks.has(Quirk::ReadOnly) && flags & CKF_RW_SESSION != 0 {
        return CKR_TOKEN_WRITE_PROTECTED;
    }
    if modules.quirks.has(Quirk::WritingOnly) && flags & CKF_RW_SESSION == 0 {
        return CKR_FUNCTION_FAILED;
    }
    let mut state = modules.state();
    if modules.quirks.sessions.is_some_and(|most| state.open.len() >= most) {
        return CKR_SESSION_COUNT;
    }
    let rv = real!(modules, C_OpenSession(slot, flags, application, notify, session));
    if rv == CKR_OK {
        // SAFETY: the real module has just written the handle.
        let session = unsafe { *session };
        state.open.insert(session);
        if let Some(pin) = &modules.quirks.no_login {
            let Ok(len) = CK_ULONG::try_from(pin.len()) else { return CKR_GENERAL_ERROR };
            // Whoever is logged in already stays so.
            let _ = real!(modules, C_Login(session, CKU_USER, pin.as_ptr().cast_mut(), len));
        }
    }
    rv
}

unsafe extern "C" fn close_session(session: CK_SESSION_HANDLE) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    modules.state().open.remove(&session);
    real!(modules, C_CloseSession(session))
}

unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    len: CK_ULONG,
) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    match &modules.quirks.protected_path {
        Some(own) if pin.is_null() => {
            let Ok(len) = CK_ULONG::try_from(own.len()) else { return CKR_GENERAL_ERROR };
            real!(modules, C_Login(session, user, own.as_ptr().cast_mut(), len))
        }
        _ => real!(modules, C_Login(session, user, pin, len)),
    }
}

unsafe extern "C" fn copy_object(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    copy: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    if modules.quirks.has(Quirk::NoCopy) {
        return CKR_FUNCTION_NOT_SUPPORTED;
    }
    real!(modules, C_CopyObject(session, object, template, count, copy))
}

unsafe extern "C" fn get_attribute_value(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    let rv = real!(modules, C_GetAttributeValue(session, object, template, count));
    if !modules.quirks.has(Quirk::Untold) || template.is_null() {
        return rv;
    }
    let Ok(count) = usize::try_from(count) else { return CKR_GENERAL_ERROR };
    // SAFETY: the caller says that so many attributes are there.
    let attributes = unsafe { slice::from_raw_parts_mut(template, count) };
    let mut untold = false;
    for attribute in attributes.iter_mut().filter(|attribute| attribute.type_ == CKA_ALWAYS_SENSITIVE) {
        attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
        untold = true;
    }
    if untold { CKR_ATTRIBUTE_TYPE_INVALID } else { rv }
}

unsafe extern "C" fn encrypt_init(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    // SAFETY: the caller passes a mechanism, and with this one its parameters.
    let gcm = unsafe {
        match mechanism.as_mut() {
            Some(mechanism) if mechanism.mechanism == CKM_AES_GCM => {
                mechanism.pParameter.cast::<CK_GCM_PARAMS>().as_mut()
            }
            _ => None,
        }
    };
    let (room, append) = (modules.quirks.has(Quirk::Room), modules.quirks.has(Quirk::Append));
    let Some(gcm) = gcm.filter(|_| room || append) else {
        return real!(modules, C_EncryptInit(session, mechanism, key));
    };
    let mut made = [0; NONCE_BYTES];
    let Ok(len) = CK_ULONG::try_from(NONCE_BYTES) else { return CKR_GENERAL_ERROR };
    let rv = real!(modules, C_GenerateRandom(session, made.as_mut_ptr(), len));
    if rv != CKR_OK {
        return rv;
    }
    if append {
        if gcm.ulIvLen != 0 || gcm.ulIvBits != len * 8 {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        modules.state().nonces.insert(session, made);
        // The caller's parameters stay as they were; the real module reads its own during the call.
        let mut own = CK_GCM_PARAMS { pIv: made.as_mut_ptr(), ulIvLen: len, ..*gcm };
        // SAFETY: the pointer was just followed.
        let mut own_mechanism = unsafe { *mechanism };
        own_mechanism.pParameter = (&raw mut own).cast();
        return real!(modules, C_EncryptInit(session, &raw mut own_mechanism, key));
    }
    if gcm.ulIvLen != len || gcm.pIv.is_null() {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    // SAFETY: the caller says that so many bytes are there, for the module to write to.
    let room = unsafe { slice::from_raw_parts_mut(gcm.pIv, NONCE_BYTES) };
    if room.iter().any(|byte| *byte != 0) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    room.copy_from_slice(&made);
    real!(modules, C_EncryptInit(session, mechanism, key))
}

unsafe extern "C" fn encrypt(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    len: CK_ULONG,
    out: CK_BYTE_PTR,
    out_len: CK_ULONG_PTR,
) -> CK_RV {
    let Some(modules) = Modules::get() else { return CKR_GENERAL_ERROR };
    let nonce = modules.state().nonces.remove(&session);
    // SAFETY: the caller passes room for the length.
    let room = unsafe { out_len.as_ref() }.copied().unwrap_or_default();
    let rv = real!(modules, C_Encrypt(session, data, len, out, out_len));
    let (Some(nonce), CKR_OK) = (nonce, rv) else { return rv };
    // SAFETY: the real module has just written the length.
    let written = unsafe { *out_len };
    let (Ok(at), Ok(more)) = (usize::try_from(written), CK_ULONG::try_from(NONCE_BYTES)) else {
        return CKR_GENERAL_ERROR;
    };
    if out.is_null() || room < written + more {
        return CKR_BUFFER_TOO_SMALL;
    }
    // SAFETY: there is room for the nonce behind what was written, as was just compared.
    unsafe {
        ptr::copy_nonoverlapping(nonce.as_ptr(), out.add(at), NONCE_BYTES);
        *out_len = written + more;
    }
    CKR_OK
}
