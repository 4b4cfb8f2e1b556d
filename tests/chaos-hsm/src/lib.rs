//! A PKCS#11 module that forwards every function of PKCS #11 v2.40 to a real module, and fails on command, so that an
//! outage can be rehearsed.
//!
//! Environment: `CHAOS_HSM_MODULE` is the path of the real module, `CHAOS_HSM_FAULT` that of a file with faults. The
//! file can be written, changed and removed under a running program; a change is noted when the next operation begins,
//! and counts anew. No file, or an empty one: no faults. A file that cannot be understood is refused on stderr, with
//! line and reason, and the faults stay as they were. One rule a line; several that fit a call are carried out in their
//! order:
//!
//! ```text
//! # functions                 fault               options
//! C_Encrypt,C_Decrypt         error CKR_DEVICE_ERROR rate=0.1   # names of the standard, or a number
//! *                           latency 1ms         # or 1ms..3ms; us, ms, s
//! C_Sign                      hang                # until the rule is gone; or hang 10s
//! C_Encrypt                   lose-sessions after=100 count=1   # C_CloseAllSessions on every slot, then the call
//! C_FindObjectsInit           lose-session count=1  # C_CloseSession on the call's own, then the call
//! C_Sign                      lose-login count=1  # C_Logout, then the call
//! C_DecryptInit               stale-handles       # every object handle given out so far is invalid for ever
//! C_Sign                      wrong-length -1     # of an output; +1 where the caller's buffer has room
//! seed 42                                         # of rates and of latencies that vary
//! CKR_DEVICE_ERROR                                # alone: operations on data and new sessions fail with it
//! ```
//!
//! `*` is every function that the fault fits, but `C_Initialize`, `C_Finalize` and `C_GetFunctionList`. `rate=` is the
//! chance of each call, `after=` how many calls pass before the rule begins, `count=` how often it strikes; counted
//! since the file was read. A call that only asks for the length of an output is never troubled or counted. When an
//! error is ordered for a function that ends an operation (`C_Encrypt`, `C_Sign`, …), the operation ends, as the
//! standard wants (v2.40, 5.2). The length of what `C_GenerateRandom` gives is the caller's, so it cannot be wrong.
//!
//! Object handles are numbered anew here; one inside a mechanism's parameter is not translated. `C_GetInterface` and
//! `C_GetInterfaceList` of PKCS #11 v3.0 are not exported: callers fall back to `C_GetFunctionList`.
#![expect(unsafe_code, reason = "the PKCS#11 interface is C")]

mod chaos;
mod code;
mod forward;
mod handles;
mod rule;
mod script;
mod watch;

use std::{
    fmt::Display,
    io::{self, Write as _},
    ptr,
};

use cryptoki_sys::{CK_FUNCTION_LIST_PTR_PTR, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_OK};

/// The one function a PKCS#11 module must export (PKCS #11 v2.40, 5.4). `CKR_GENERAL_ERROR` if there is no real module
/// to forward to; stderr has the reason.
///
/// # Safety
/// `list` must be null or point to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let Some(chaos) = chaos::get_or_load() else { return CKR_GENERAL_ERROR };
    // SAFETY: `list` is not null, and the caller promises that it points to room for a pointer. What it will point to
    // lives as long as the process.
    unsafe { *list = ptr::from_ref(chaos.list()).cast_mut() };
    CKR_OK
}

/// Tells whoever runs this. The program that loaded the module owns stderr: one line, and if it is gone, none.
fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "chaos-hsm: {what}");
}
