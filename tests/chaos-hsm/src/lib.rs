//! A PKCS#11 module that forwards to a real one and fails on command, so that an outage can be rehearsed.
//!
//! Environment: `CHAOS_HSM_MODULE` is the path of the real module; `CHAOS_HSM_FAULT` the path of a file. As long as
//! that file holds a number (a `CKR_*`, decimal or `0x…`), every operation on data and every new session returns it.
//! The file can be written and removed under a running daemon.
#![expect(unsafe_code, reason = "the PKCS#11 interface is C")]

use std::{ffi::OsString, fs, ptr, sync::OnceLock};

use cryptoki_sys::{
    CK_BYTE_PTR, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR, CK_FUNCTION_LIST_PTR_PTR, CK_NOTIFY,
    CK_RV, CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SLOT_ID, CK_ULONG, CK_ULONG_PTR, CK_VOID_PTR,
    CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_OK,
};

/// The real module and the list that is given out in its place.
struct Modules {
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
    fault: OsString,
}

// SAFETY: the lists hold function pointers and numbers only, are never changed once made, and the functions are those
// of a module that was initialised for use by several threads.
unsafe impl Sync for Modules {}
// SAFETY: as above.
unsafe impl Send for Modules {}

static MODULES: OnceLock<Option<Modules>> = OnceLock::new();

/// The one function a PKCS#11 module must export (PKCS #11 v2.40, 5.4).
///
/// # Safety
/// `list` must be null or point to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    match MODULES.get_or_init(load) {
        Some(modules) => {
            // SAFETY: `list` is not null, and the caller promises that it points to room for a pointer. What it will
            // point to lives as long as the process.
            unsafe { *list = ptr::from_ref(&modules.ours).cast_mut() };
            CKR_OK
        }
        None => CKR_GENERAL_ERROR,
    }
}

fn load() -> Option<Modules> {
    let path = std::env::var_os("CHAOS_HSM_MODULE")?;
    let fault = std::env::var_os("CHAOS_HSM_FAULT")?;
    let mut list: CK_FUNCTION_LIST_PTR = ptr::null_mut();
    // SAFETY: whoever sets the variable vouches for the module; its symbol has the type the standard gives it.
    let rv = unsafe {
        // Its code is called until the process ends.
        let library = Box::leak(Box::new(libloading::Library::new(path).ok()?));
        let get =
            library.get::<unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV>(b"C_GetFunctionList\0");
        get.ok()?(&raw mut list)
    };
    if rv != CKR_OK || list.is_null() {
        return None;
    }
    // SAFETY: the module has just given out this list.
    let real = unsafe { *list };
    let mut ours = real;
    ours.C_OpenSession = Some(open_session);
    ours.C_Encrypt = Some(encrypt);
    ours.C_Decrypt = Some(decrypt);
    ours.C_Sign = Some(sign);
    ours.C_GenerateRandom = Some(generate_random);
    Some(Modules { real, ours, fault })
}

/// The fault that is ordered, if one is.
fn fault(modules: &Modules) -> Option<CK_RV> {
    let text = fs::read_to_string(&modules.fault).ok()?;
    let text = text.trim();
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| CK_RV::from_str_radix(hex, 16).ok())
}

/// Defines a function that returns the ordered fault, or what the real module returns.
macro_rules! forward {
    ($name:ident, $real:ident, ($($argument:ident: $kind:ty),+)) => {
        unsafe extern "C" fn $name($($argument: $kind),+) -> CK_RV {
            let Some(Some(modules)) = MODULES.get() else { return CKR_GENERAL_ERROR };
            if let Some(fault) = fault(modules) {
                return fault;
            }
            match modules.real.$real {
                // SAFETY: the arguments are passed on as they came, under the same contract.
                Some(real) => unsafe { real($($argument),+) },
                None => CKR_FUNCTION_NOT_SUPPORTED,
            }
        }
    };
}

forward!(open_session, C_OpenSession, (
    slot: CK_SLOT_ID, flags: CK_FLAGS, application: CK_VOID_PTR, notify: CK_NOTIFY, session: CK_SESSION_HANDLE_PTR
));
forward!(encrypt, C_Encrypt, (
    session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, len: CK_ULONG, out: CK_BYTE_PTR, out_len: CK_ULONG_PTR
));
forward!(decrypt, C_Decrypt, (
    session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, len: CK_ULONG, out: CK_BYTE_PTR, out_len: CK_ULONG_PTR
));
forward!(sign, C_Sign, (
    session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, len: CK_ULONG, out: CK_BYTE_PTR, out_len: CK_ULONG_PTR
));
forward!(generate_random, C_GenerateRandom, (session: CK_SESSION_HANDLE, out: CK_BYTE_PTR, len: CK_ULONG));
