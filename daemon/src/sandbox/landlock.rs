//! The view of the file system that is left (landlock(7)).

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The newest rights that are refused; older kernels refuse those they know.
const KNOWN: ABI = ABI::V6;

/// What of the file system the process, and so the PKCS#11 module, may see.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Files, or directories with what is in them, that may be read.
    pub read: Vec<PathBuf>,
    /// Directories in which files may be read, made, changed and removed.
    pub write: Vec<PathBuf>,
    /// Directories in which files may be removed.
    pub remove: Vec<PathBuf>,
}

/// How much the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enforced {
    Fully,
    /// All that this kernel knows of.
    InPart,
    Not,
}

/// Takes from the calling thread, and all that it starts, everything but `view`; TCP as well, unless there is a
/// `network`. Paths that do not exist are passed over.
///
/// # Errors
/// What the kernel says.
pub(super) fn restrict(view: &View, network: bool) -> Result<Enforced, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write: BitFlags<AccessFs> = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let mut ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
    if !network {
        ruleset = ruleset.handle_access(AccessNet::from_all(KNOWN))?;
    }
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(&view.read, read))?
        .add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(&view.write, write))?
        .add_rules(path_beneath_rules(&view.remove, AccessFs::RemoveFile))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::InPart,
        RulesetStatus::NotEnforced => Enforced::Not,
    })
}
