//! The PKCS#11 module that the vaults of a test run use: `VAULTD_TEST_MODULE`, SoftHSM2 if it is not set.
//!
//! Each vault gets a token of its own in its directory.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The label of every test token.
pub(crate) const TOKEN_LABEL: &str = "vaultd-dev";
const PIN: &str = "vaultd-test-pin";
const SO_PIN: &str = "vaultd-test-so-pin";

/// A module that tests can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// SoftHSM2, as `vaultd dev` uses it by itself.
    Softhsm2,
    /// Kryoptic, by `make kryoptic`.
    Kryoptic,
    /// NSS softokn.
    Nss,
}

impl Module {
    /// The module of this test run.
    pub fn of_this_run() -> Self {
        match std::env::var("VAULTD_TEST_MODULE").as_deref() {
            Err(_) | Ok("softhsm2") => Self::Softhsm2,
            Ok("kryoptic") => Self::Kryoptic,
            Ok("nss") => Self::Nss,
            Ok(other) => panic!("VAULTD_TEST_MODULE names {other:?}, which there is no token for"),
        }
    }

    /// Where it is.
    pub fn path(self) -> PathBuf {
        let places = match self {
            Self::Softhsm2 => ["/usr/lib/softhsm/libsofthsm2.so".into(), String::new()],
            // Beside `vaultd`: target/kryoptic for target/debug.
            Self::Kryoptic => {
                let target = crate::vaultd().ancestors().nth(2).unwrap().join("kryoptic/release");
                [target.join("libkryoptic_hsm.so").display().to_string(), String::new()]
            }
            Self::Nss => [
                "/usr/lib/x86_64-linux-gnu/libsoftokn3.so".to_owned(),
                "/usr/lib/aarch64-linux-gnu/libsoftokn3.so".to_owned(),
            ],
        };
        let found = places.iter().map(PathBuf::from).find(|path| path.exists());
        found.unwrap_or_else(|| panic!("{self:?} is not installed at {places:?}: see `make test-modules`"))
    }

    /// Makes a token for the vault in `dir`, and the file whose `[hsm]` table names it, for `vaultd dev --hsm`.
    ///
    /// `None` for the module that `vaultd dev` makes a token of by itself.
    pub(crate) fn make_token(self, dir: &Path) -> Option<PathBuf> {
        if self == Self::Softhsm2 {
            return None;
        }
        let pin = dir.join("hsm.pin");
        fs::write(&pin, PIN).unwrap();
        fs::set_permissions(&pin, Permissions::from_mode(0o600)).unwrap();
        let parameters = match self {
            Self::Softhsm2 => unreachable!("returned above"),
            Self::Kryoptic => {
                self.pkcs11_tool(
                    dir,
                    &["--init-token", "--slot", "0", "--label", TOKEN_LABEL, "--so-pin", SO_PIN],
                );
                self.pkcs11_tool(dir, &["--init-pin", "--slot", "0", "--so-pin", SO_PIN, "--pin", PIN]);
                String::new()
            }
            Self::Nss => {
                let database = dir.join("nss");
                fs::create_dir(&database).unwrap();
                let database = format!("sql:{}", database.display());
                succeed(Command::new("certutil").args(["-N", "-d", &database, "-f"]).arg(&pin));
                format!("init_parameters = \"configdir='{database}' dbTokenDescription='{TOKEN_LABEL}'\"\n")
            }
        };
        let environment =
            self.environment(dir).map(|(name, value)| format!("{name} = \"{}\"", value.display()));
        let file = dir.join("hsm.toml");
        let text = format!(
            "[hsm]\nmodule = \"{}\"\ntoken_label = \"{TOKEN_LABEL}\"\npin_file = \"{}\"\n{parameters}environment = {{ {} }}\n",
            self.path().display(),
            pin.display(),
            environment.unwrap_or_default()
        );
        fs::write(&file, text).unwrap();
        Some(file)
    }

    /// Leaves the vault in `dir` with a token that is not initialised.
    pub fn forget_token(self, dir: &Path) {
        match self {
            Self::Softhsm2 => {
                fs::remove_dir_all(dir.join("softhsm/tokens")).unwrap();
                fs::create_dir(dir.join("softhsm/tokens")).unwrap();
            }
            Self::Kryoptic => fs::remove_file(dir.join("token.sql")).unwrap(),
            Self::Nss => panic!("NSS has no token that is not initialised"),
        }
    }

    /// The variable that leads the module to the token of the vault in `dir`.
    pub(crate) fn environment(self, dir: &Path) -> Option<(&'static str, PathBuf)> {
        match self {
            Self::Softhsm2 => Some(("SOFTHSM2_CONF", dir.join("softhsm/softhsm2.conf"))),
            Self::Kryoptic => Some(("KRYOPTIC_CONF", dir.join("token.sql"))),
            Self::Nss => None,
        }
    }

    fn pkcs11_tool(self, dir: &Path, arguments: &[&str]) {
        let mut tool = Command::new("pkcs11-tool");
        succeed(tool.envs(self.environment(dir)).arg("--module").arg(self.path()).args(arguments));
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
