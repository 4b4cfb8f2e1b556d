//! The sandbox that is closed before the PKCS#11 module is loaded: what comes after can do what the vault does, and no more.

use super::{
    landlock::{self, Enforced, View},
    syscalls::{self, OnViolation},
    violation,
};

/// How the process is to be confined.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// What it may see of the file system.
    pub view: View,
    /// Whether the module may reach its HSM over the network.
    pub network: bool,
    /// What becomes of a system call that is not allowed.
    pub on_violation: OnViolation,
    /// Whether a kernel that cannot do it ends the start.
    pub require: bool,
}

/// Why the sandbox is not closed. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel cannot do it, and it is required.
    #[error("{what} is not to be had ({why}): take a kernel that has it, or set sandbox.require = false")]
    Missing {
        /// What is not there.
        what: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// It could not be set up.
    #[error("cannot confine the process: {0}")]
    Failed(String),
}

/// Closes the sandbox for the calling thread and those it starts: to be called while there is one. There is no way back.
///
/// # Errors
/// [`ConfineError`].
pub fn confine(wanted: &Confinement) -> Result<(), ConfineError> {
    let missing = |what: &'static str, why: String| {
        if wanted.require {
            return Err(ConfineError::Missing { what, why });
        }
        tracing::warn!(what, why, "not confined as it should be: this kernel lacks it");
        Ok(())
    };
    match landlock::restrict(&wanted.view, wanted.network) {
        Ok(Enforced::Fully) => {}
        Ok(Enforced::InPart) => tracing::info!("Landlock is enforced in part: Linux 6.12 knows all of it"),
        Ok(Enforced::Not) => missing("Landlock", "Linux 5.13 with lsm=landlock".to_owned())?,
        Err(error) => missing("Landlock", error.to_string())?,
    }
    let failed = |error: &dyn ToString| ConfineError::Failed(error.to_string());
    violation::explain().map_err(|error| failed(&error))?;
    if wanted.on_violation == OnViolation::Log {
        tracing::warn!(
            "sandbox.seccomp = \"log\": system calls that are not allowed are logged by the kernel, not stopped"
        );
    }
    for filter in syscalls::filters(wanted.network, wanted.on_violation).map_err(|error| failed(&error))? {
        if let Err(error) = seccompiler::apply_filter(&filter) {
            return missing("seccomp", error.to_string());
        }
    }
    Ok(())
}
