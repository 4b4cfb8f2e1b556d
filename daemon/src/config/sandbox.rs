//! `[sandbox]`: how the daemon is confined.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::validate::Validator;

/// How the daemon confines itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// What becomes of a system call that is not on the list: `enforce` ends vaultd, `log` has the kernel log it. Default
    /// `enforce`.
    pub seccomp: Seccomp,
    /// Whether a kernel without seccomp or Landlock keeps vaultd from starting. Default false.
    pub require: bool,
    /// Whether the PKCS#11 module may reach its HSM over the network. Default false.
    pub network: bool,
    /// More files and directories that the PKCS#11 module reads. Default none.
    pub read: Vec<PathBuf>,
    /// More directories that the PKCS#11 module writes to. Default none.
    pub write: Vec<PathBuf>,
    /// Whether vaultd may serve as root, for development. Default false.
    pub allow_root: bool,
}

/// What becomes of a system call that is not on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// It ends the daemon.
    #[default]
    Enforce,
    /// The kernel logs it.
    Log,
}

impl Validator {
    pub(super) fn sandbox(&mut self, raw: &Sandbox) {
        for (key, paths) in [("sandbox.read", &raw.read), ("sandbox.write", &raw.write)] {
            for path in paths.iter().filter(|path| !path.is_absolute()) {
                self.error(key, format!("{} must be an absolute path", path.display()));
            }
        }
    }
}
