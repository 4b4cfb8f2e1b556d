//! The real PKCS#11 module that the modules of the tests stand in front of.
#![expect(unsafe_code, reason = "the PKCS#11 interface is C")]

use std::{ffi::OsStr, path::Path, ptr};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR, CK_FUNCTION_LIST_PTR_PTR, CK_RV, CKR_OK};

/// The functions of the module whose path the environment `variable` has. It stays loaded until the process ends.
///
/// # Errors
/// One line that says why there are none.
pub fn load_from(variable: &str) -> Result<CK_FUNCTION_LIST, String> {
    let path = std::env::var_os(variable);
    load(&path.ok_or_else(|| format!("the environment variable {variable} is not set"))?)
}

fn load(path: &OsStr) -> Result<CK_FUNCTION_LIST, String> {
    let failed = |reason: String| format!("{}: {reason}", Path::new(path).display());
    let mut list: CK_FUNCTION_LIST_PTR = ptr::null_mut();
    // SAFETY: whoever names the module vouches for it; its symbol has the type the standard gives it.
    let rv = unsafe {
        let library = libloading::Library::new(path).map_err(|error| failed(error.to_string()))?;
        // Its code is called until the process ends.
        let library = Box::leak(Box::new(library));
        let get = library
            .get::<unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV>(b"C_GetFunctionList\0")
            .map_err(|error| failed(error.to_string()))?;
        get(&raw mut list)
    };
    if rv != CKR_OK || list.is_null() {
        return Err(failed(format!("C_GetFunctionList returned {rv:#x}")));
    }
    // SAFETY: the module has just given out this list.
    Ok(unsafe { *list })
}
