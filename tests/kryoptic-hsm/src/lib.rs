//! Kryoptic, a software token in Rust, as a PKCS#11 module: the library exports no C symbols of its own.
//!
//! It is a second module for the tests, unlike SoftHSM2 in what it lists, allows and forbids. Environment:
//! `KRYOPTIC_CONF` is the path of its token, which must end in `.sql`, or of its configuration.

use kryoptic_lib::{
    fns::general::{fn_get_function_list, fn_get_interface, fn_get_interface_list},
    pkcs11::{
        CK_FLAGS, CK_FUNCTION_LIST_PTR_PTR, CK_INTERFACE_PTR, CK_INTERFACE_PTR_PTR, CK_RV, CK_ULONG_PTR,
        CK_UTF8CHAR_PTR, CK_VERSION_PTR,
    },
};

/// Gives out the functions of PKCS #11 v2.40 (5.4).
#[unsafe(no_mangle)]
pub extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    fn_get_function_list(list)
}

/// Lists the interfaces (PKCS #11 v3.1, 5.4.5).
#[unsafe(no_mangle)]
pub extern "C" fn C_GetInterfaceList(list: CK_INTERFACE_PTR, count: CK_ULONG_PTR) -> CK_RV {
    fn_get_interface_list(list, count)
}

/// Gives out the functions of the version asked for (PKCS #11 v3.1, 5.4.6).
#[unsafe(no_mangle)]
pub extern "C" fn C_GetInterface(
    name: CK_UTF8CHAR_PTR,
    version: CK_VERSION_PTR,
    interface: CK_INTERFACE_PTR_PTR,
    flags: CK_FLAGS,
) -> CK_RV {
    fn_get_interface(name, version, interface, flags)
}
