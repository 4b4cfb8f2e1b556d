//! A PKCS#11 module that forwards to a real one and is as peculiar as some vendors' are, which we have not got.
//!
//! Environment: `QUIRKY_HSM_MODULE` is the path of the real module, `QUIRKY_HSM_QUIRKS` names what is peculiar,
//! separated by commas:
//!
//! - `room`: makes GCM nonces itself and writes them into the caller's room, which must be zero (AWS `CloudHSM`);
//! - `append`: makes GCM nonces itself and appends them to the ciphertext (Thales Luna in FIPS mode);
//! - `no_copy`: has no `C_CopyObject`;
//! - `read_only`: opens no session for writing;
//! - `writing_only`: opens no session but for writing (AWS `CloudHSM`);
//! - `sessions=N`: allows N sessions;
//! - `protected_path=PIN`: asks for the PIN by its own means: a login without one is a login with this one;
//! - `no_login=PIN`: wants no login, because it is logged in with this PIN as soon as there is a session;
//! - `short_rsa`: makes no RSA keys of more than 2048 bits;
//! - `untold`: does not know `CKA_ALWAYS_SENSITIVE`;
//! - `last_try`: says that one try of the PIN is left.
#![expect(unsafe_code, reason = "the PKCS#11 interface is C")]

mod functions;
mod quirks;

use std::{
    collections::{HashMap, HashSet},
    ptr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR_PTR, CK_RV, CK_SESSION_HANDLE, CKR_ARGUMENTS_BAD,
    CKR_GENERAL_ERROR, CKR_OK,
};

use quirks::Quirks;

/// Bytes of the nonces that are made here.
const NONCE_BYTES: usize = 12;

/// The real module and the list that is given out in its place.
struct Modules {
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
    quirks: Quirks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashSet<CK_SESSION_HANDLE>,
    /// Nonces that `C_Encrypt` has still to append.
    nonces: HashMap<CK_SESSION_HANDLE, [u8; NONCE_BYTES]>,
}

impl Modules {
    fn get() -> Option<&'static Self> {
        MODULES.get_or_init(load).as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    match Modules::get() {
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
    let real = real_hsm::load_from("QUIRKY_HSM_MODULE").ok()?;
    let quirks = Quirks::parse(&std::env::var("QUIRKY_HSM_QUIRKS").ok()?)?;
    let mut ours = real;
    functions::replace(&mut ours);
    Some(Modules { real, ours, quirks, state: Mutex::default() })
}
