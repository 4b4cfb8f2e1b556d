//! A PKCS#11 module that forwards to a real one and, on command, tries what one would try whose maker is malicious, or
//! that was broken into.
//!
//! Environment: `HOSTILE_HSM_MODULE` is the path of the real module, `HOSTILE_HSM_ORDER` that of a file with one line:
//! when, what, and with what. No file: nothing.
//!
//! ```text
//! C_Decrypt socket-inet
//! C_Initialize read /etc/shadow
//! load write /tmp/x
//! C_Decrypt thread exec /usr/bin/touch /tmp/x
//! ```
//!
//! `load` is before any function is called, when the library's constructors run. What can be tried stands in
//! `attempt.rs`. An attempt that comes off changes nothing of what the module answers; after one that is refused, the
//! call, or after `load` the next `C_Initialize`, answers `CKR_FUNCTION_FAILED`. System calls are made without the C
//! library's own functions, lest one of those refuse.
#![expect(unsafe_code, reason = "the PKCS#11 interface is C, and so are system calls")]

mod attempt;
mod files;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod legacy;
mod memory;
mod network;
mod processes;

use std::{
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use cryptoki_sys::{
    CK_BYTE_PTR, CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR_PTR, CK_RV, CK_SESSION_HANDLE, CK_ULONG,
    CK_ULONG_PTR, CK_VOID_PTR, CKR_ARGUMENTS_BAD, CKR_FUNCTION_FAILED, CKR_FUNCTION_NOT_SUPPORTED,
    CKR_GENERAL_ERROR, CKR_OK,
};

use crate::attempt::attempt_at;

/// The real module, and the list that is given out in its place.
struct Modules {
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
}

static MODULES: OnceLock<Option<Modules>> = OnceLock::new();
static REFUSED_AT_LOAD: AtomicBool = AtomicBool::new(false);

/// The first of a library's code to run (gABI, "Initialization and Termination Functions").
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = at_load;

extern "C" fn at_load() {
    REFUSED_AT_LOAD.store(attempt_at("load").is_err(), Ordering::Relaxed);
}

/// The one function a PKCS#11 module must export (PKCS #11 v2.40, 5.4).
///
/// # Safety
/// `list` must be null or point to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let Some(modules) = modules() else { return CKR_GENERAL_ERROR };
    // SAFETY: `list` is not null, and the caller promises that it points to room for a pointer. What it will point to
    // lives as long as the process.
    unsafe { *list = ptr::from_ref(&modules.ours).cast_mut() };
    CKR_OK
}

fn modules() -> Option<&'static Modules> {
    let load = || {
        let real = real_hsm::load_from("HOSTILE_HSM_MODULE").ok()?;
        let mut ours = real;
        ours.C_GetFunctionList = Some(C_GetFunctionList);
        ours.C_Initialize = Some(initialize);
        ours.C_Decrypt = Some(decrypt);
        Some(Modules { real, ours })
    };
    MODULES.get_or_init(load).as_ref()
}

unsafe extern "C" fn initialize(arguments: CK_VOID_PTR) -> CK_RV {
    let Some(modules) = modules() else { return CKR_GENERAL_ERROR };
    if REFUSED_AT_LOAD.load(Ordering::Relaxed) || attempt_at("C_Initialize").is_err() {
        return CKR_FUNCTION_FAILED;
    }
    match modules.real.C_Initialize {
        // SAFETY: the arguments are the caller's, under the same contract.
        Some(real) => unsafe { real(arguments) },
        None => CKR_FUNCTION_NOT_SUPPORTED,
    }
}

unsafe extern "C" fn decrypt(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    length: CK_ULONG,
    out: CK_BYTE_PTR,
    out_length: CK_ULONG_PTR,
) -> CK_RV {
    let Some(modules) = modules() else { return CKR_GENERAL_ERROR };
    if attempt_at("C_Decrypt").is_err() {
        return CKR_FUNCTION_FAILED;
    }
    match modules.real.C_Decrypt {
        // SAFETY: the arguments are the caller's, under the same contract.
        Some(real) => unsafe { real(session, data, length, out, out_length) },
        None => CKR_FUNCTION_NOT_SUPPORTED,
    }
}
