//! The module: the vendor's library, its environment and its initialisation.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    ptr::NonNull,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as Pkcs11Error, RvError},
};

use super::{
    SetupError,
    class::told,
    watch::{Call, beat, beat_for},
};

/// Which library to load, and what it is told when it is initialised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Path of the PKCS#11 module.
    pub path: PathBuf,
    /// The text some modules want with `C_Initialize` (in `pReserved`, as NSS reads it); most want none.
    pub parameters: Option<String>,
}

/// Sets the environment variables a module reads its own configuration from (`hsm.environment`).
///
/// # Errors
/// [`SetupError::Key`] if a variable would have to change while other threads run: it must be called first.
#[expect(
    unsafe_code,
    reason = "PKCS#11 modules are configured through the environment, which only unsafe code can set"
)]
pub fn set_module_environment<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), SetupError> {
    for (name, value) in variables {
        if std::env::var_os(name).is_some_and(|is| is == value) {
            continue;
        }
        let threads = std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count);
        if threads != 1 {
            return Err(SetupError::Key(format!(
                "hsm.environment: {name} cannot be set while other threads run"
            )));
        }
        // SAFETY: this is the only thread (just counted, and it starts none here), so nobody reads the environment.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

/// Loads and initialises `library`, allowing it to use the operating system's locks.
pub(super) fn load(library: &Library) -> Result<Pkcs11, SetupError> {
    let failed = |reason: String| SetupError::Module { path: library.path.clone(), reason };
    let module = Pkcs11::new(Path::new(&library.path)).map_err(|error| match error {
        Pkcs11Error::LibraryLoading(reason) => failed(reason.to_string()),
        other => failed(other.to_string()),
    })?;
    initialize(&module, library)
        .map_err(|error| SetupError::Start { path: library.path.clone(), reason: told(&error) })?;
    Ok(module)
}

/// `C_Initialize`; one that was done before is as good.
#[expect(unsafe_code, reason = "only unsafe code can pass a module what the standard reserves for it")]
pub(super) fn initialize(module: &Pkcs11, library: &Library) -> Result<(), Pkcs11Error> {
    let flags = CInitializeFlags::OS_LOCKING_OK;
    let text = library.parameters.as_deref().map(CString::new).transpose();
    let text = text.map_err(|_| Pkcs11Error::InvalidValue)?;
    let pointer = text.as_ref().and_then(|text| NonNull::new(text.as_ptr().cast_mut().cast()));
    let arguments = match pointer {
        None => CInitializeArgs::new(flags),
        // SAFETY: it points to a C string that outlives the call, which is what modules that read it expect there; the
        // operator says that this one does.
        Some(pointer) => unsafe { CInitializeArgs::new_with_reserved(flags, pointer) },
    };
    beat_for(Call::Start);
    let done = module.initialize(arguments);
    beat();
    match done {
        Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        other => other,
    }
}
