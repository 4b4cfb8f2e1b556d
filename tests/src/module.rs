//! The PKCS#11 module that the vaults of a test run use: `VAULTD_TEST_MODULE`, SoftHSM2 if it is not set.
//!
//! Each vault gets a token of its own, which is in its directory and goes with it.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The label of every test token.
pub(crate) const TOKEN_LABEL: &str = "vaultd-dev";
const PIN: &str = "vaultd-test-pin";
const SO_PIN: &str = "vaultd-test-so-pin";
/// openCryptoki's soft token takes no more than eight digits.
const SHORT_PIN: &str = "11223344";
const SHORT_SO_PIN: &str = "76543210";
const LIBRARY_DIRS: [&str; 4] =
    ["/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];

/// A module that tests can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// SoftHSM2, as `vaultd dev` uses it by itself.
    Softhsm2,
    /// Kryoptic, by `make kryoptic`.
    Kryoptic,
    /// Kryoptic behind `quirky-hsm`, with less: it stands for a network HSM in FIPS mode.
    Quirky,
    /// NSS softokn.
    Nss,
    /// openCryptoki's soft token. There is one on a machine, so that vaults cannot have one each.
    Opencryptoki,
    /// A TPM, by tpm2-pkcs11 and swtpm.
    Tpm2,
}

impl Module {
    /// The module of this test run.
    pub fn of_this_run() -> Self {
        match std::env::var("VAULTD_TEST_MODULE").as_deref() {
            Err(_) | Ok("softhsm2") => Self::Softhsm2,
            Ok("kryoptic") => Self::Kryoptic,
            Ok("quirky") => Self::Quirky,
            Ok("nss") => Self::Nss,
            Ok("opencryptoki") => Self::Opencryptoki,
            Ok("tpm2") => Self::Tpm2,
            Ok(other) => panic!("VAULTD_TEST_MODULE names {other:?}, which there is no token for"),
        }
    }

    /// Where it is.
    pub fn path(self) -> PathBuf {
        let installed = |name: &str| {
            let found = LIBRARY_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
            found.unwrap_or_else(|| panic!("{name} is not in {LIBRARY_DIRS:?}: see `make test-modules`"))
        };
        match self {
            Self::Softhsm2 => installed("libsofthsm2.so"),
            // Beside `vaultd`: target/kryoptic for target/debug.
            Self::Kryoptic => {
                let target = crate::vaultd().ancestors().nth(2).unwrap().to_owned();
                target.join("kryoptic/release/libkryoptic_hsm.so")
            }
            Self::Quirky => crate::vaultd().with_file_name("libquirky_hsm.so"),
            Self::Nss => installed("libsoftokn3.so"),
            Self::Opencryptoki => installed("pkcs11/libopencryptoki.so"),
            Self::Tpm2 => installed("pkcs11/libtpm2_pkcs11.so"),
        }
    }

    /// Makes a token for the vault in `dir`, and the file with the tables that lead to it, for `vaultd dev --hsm`.
    pub fn make_token(self, dir: &Path) -> PathBuf {
        let pin = if self == Self::Opencryptoki { SHORT_PIN } else { PIN };
        let pin_file = dir.join("hsm.pin");
        fs::write(&pin_file, pin).unwrap();
        fs::set_permissions(&pin_file, Permissions::from_mode(0o600)).unwrap();
        let mut parameters = String::new();
        match self {
            Self::Softhsm2 => {
                let tokens = dir.join("softhsm/tokens");
                fs::create_dir_all(&tokens).unwrap();
                let conf = format!("directories.tokendir = {}\n", tokens.display());
                fs::write(dir.join("softhsm/softhsm2.conf"), conf).unwrap();
                self.initialize(dir);
            }
            Self::Kryoptic => self.initialize(dir),
            Self::Quirky => {
                let conf = format!(
                    "[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n\
                     mechanisms = [\"DENY\", \"CKM_GENERIC_SECRET_KEY_GEN\", \"CKM_SHA256_RSA_PKCS\"]\n",
                    dir.join("token.sql").display()
                );
                fs::write(dir.join("kryoptic.conf"), conf).unwrap();
                self.initialize(dir);
            }
            Self::Nss => {
                fs::create_dir(dir.join("nss")).unwrap();
                let database = format!("sql:{}", dir.join("nss").display());
                succeed(Command::new("certutil").args(["-N", "-d", &database, "-f"]).arg(&pin_file));
                parameters = format!(
                    "init_parameters = \"configdir='{database}' dbTokenDescription='{TOKEN_LABEL}'\"\n"
                );
            }
            Self::Opencryptoki => make_opencryptoki_token(dir),
            Self::Tpm2 => {
                start_tpm(dir);
                self.initialize(dir);
            }
        }
        let environment =
            self.environment(dir).into_iter().map(|(name, value)| format!("{name} = \"{value}\""));
        let file = dir.join("hsm.toml");
        let text = format!(
            "[hsm]\nmodule = \"{}\"\ntoken_label = \"{TOKEN_LABEL}\"\npin_file = \"{}\"\n{parameters}environment = {{ {} }}\n\
             [sandbox]\nwrite = [\"{}\"]\nallow_root = true\n",
            self.path().display(),
            pin_file.display(),
            environment.collect::<Vec<_>>().join(", "),
            dir.display()
        );
        fs::write(&file, text).unwrap();
        file
    }

    /// Leaves the vault in `dir` with a token that is not initialised.
    pub fn forget_token(self, dir: &Path) {
        match self {
            Self::Softhsm2 => {
                fs::remove_dir_all(dir.join("softhsm/tokens")).unwrap();
                fs::create_dir(dir.join("softhsm/tokens")).unwrap();
            }
            Self::Kryoptic | Self::Quirky => fs::remove_file(dir.join("token.sql")).unwrap(),
            Self::Nss | Self::Opencryptoki | Self::Tpm2 => panic!("{self:?} has no token to forget"),
        }
    }

    /// Ends what [`Module::make_token`] has started.
    pub fn clean_up(self, dir: &Path) {
        if let Ok(pid) = fs::read_to_string(dir.join("daemon.pid")) {
            crate::signal(pid.trim().parse().unwrap(), "TERM");
        }
    }

    /// The variables that lead the module to the token of the vault in `dir`.
    pub(crate) fn environment(self, dir: &Path) -> Vec<(&'static str, String)> {
        let at = |name: &str| dir.join(name).display().to_string();
        match self {
            Self::Softhsm2 => vec![("SOFTHSM2_CONF", at("softhsm/softhsm2.conf"))],
            Self::Kryoptic => vec![("KRYOPTIC_CONF", at("token.sql"))],
            Self::Quirky => vec![
                ("QUIRKY_HSM_MODULE", Self::Kryoptic.path().display().to_string()),
                ("QUIRKY_HSM_QUIRKS", "append,no_copy,sessions=3".to_owned()),
                ("KRYOPTIC_CONF", at("kryoptic.conf")),
            ],
            Self::Tpm2 => vec![
                ("TPM2_PKCS11_TCTI", format!("swtpm:path={}", at("tpm"))),
                ("TPM2_PKCS11_STORE", at("tpm-store")),
                ("TSS2_LOG", "all+none".to_owned()),
            ],
            Self::Nss | Self::Opencryptoki => Vec::new(),
        }
    }

    fn initialize(self, dir: &Path) {
        self.pkcs11_tool(
            dir,
            &["--init-token", "--slot-index", "0", "--label", TOKEN_LABEL, "--so-pin", SO_PIN],
        );
        self.pkcs11_tool(dir, &["--init-pin", "--slot-index", "0", "--so-pin", SO_PIN, "--pin", PIN]);
    }

    fn pkcs11_tool(self, dir: &Path, arguments: &[&str]) {
        let mut tool = Command::new("pkcs11-tool");
        succeed(tool.envs(self.environment(dir)).arg("--module").arg(self.path()).args(arguments));
        if self == Self::Tpm2 {
            // There is no resource manager that would do so.
            succeed(Command::new("tpm2_flushcontext").arg("-t").arg("-T").arg(&self.environment(dir)[0].1));
        }
    }
}

/// Starts a TPM in `dir` that ends by [`Module::clean_up`].
fn start_tpm(dir: &Path) {
    for name in ["tpm-state", "tpm-store"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let at = |kind: &str, name: &str| format!("{kind}{}", dir.join(name).display());
    succeed(
        Command::new("swtpm")
            .args(["socket", "--tpm2", "--daemon", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &at("dir=", "tpm-state"), "--pid", &at("file=", "daemon.pid")])
            .args([
                "--server",
                &at("type=unixio,path=", "tpm"),
                "--ctrl",
                &at("type=unixio,path=", "tpm.ctrl"),
            ]),
    );
}

/// The process of openCryptoki's slot daemon.
fn pkcsslotd() -> Option<String> {
    // Not one that has ended and that nobody has waited for, as happens in containers.
    let found = Command::new("pgrep").args(["-x", "-r", "S,D,R", "pkcsslotd"]).output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    (!found.is_empty()).then_some(found)
}

/// Initialises the machine's soft token if nobody has done so; anybody else's is left alone. A slot daemon that had to
/// be started for it ends by [`Module::clean_up`].
fn make_opencryptoki_token(dir: &Path) {
    if pkcsslotd().is_none() {
        succeed(&mut Command::new("pkcsslotd"));
        fs::write(dir.join("daemon.pid"), pkcsslotd().expect("just started")).unwrap();
    }
    let tokens = Command::new("pkcsconf").arg("-t").output().unwrap();
    let tokens = String::from_utf8_lossy(&tokens.stdout).into_owned();
    let (_, soft) = tokens.split_once("Token #3").expect("slot 3 is the soft token, as Debian has it");
    if soft.contains(&format!("Label: {TOKEN_LABEL}")) {
        return;
    }
    assert!(soft.contains("Label: IBM OS PKCS#11"), "openCryptoki's soft token is in use: {soft}");
    let pkcsconf = |arguments: &[&str], input: &str| {
        let mut tool = Command::new("pkcsconf");
        let mut child = tool.args(["-c", "3"]).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "pkcsconf {arguments:?}");
    };
    pkcsconf(&["-I"], &format!("87654321\n{TOKEN_LABEL}\n"));
    pkcsconf(&["-P", "-S", "87654321", "-n", SHORT_SO_PIN], "");
    pkcsconf(&["-u", "-S", SHORT_SO_PIN, "-n", "12345678"], "");
    pkcsconf(&["-p", "-U", "12345678", "-n", SHORT_PIN], "");
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The file of a token as it was before a process was started that may be killed.
///
/// SoftHSM2 truncates `token.object` at each login and writes it anew: a kill in between empties it, and with it goes the
/// token, whatever vaultd does. What is tested is vaultd, so the file is put back.
pub(crate) struct WholeToken(Option<(PathBuf, Vec<u8>)>);

impl WholeToken {
    /// That of the vault in `dir`; with another module there is nothing to mend.
    pub(crate) fn read(dir: &Path) -> Self {
        let mut tokens = fs::read_dir(dir.join("softhsm/tokens")).into_iter().flatten();
        let path = tokens.next().map(|token| token.unwrap().path().join("token.object"));
        Self(path.map(|path| (path.clone(), fs::read(path).unwrap())))
    }

    pub(crate) fn mend(self) {
        if let Some((path, whole)) = self.0
            && fs::read(&path).unwrap().len() != whole.len()
        {
            fs::write(path, whole).unwrap();
        }
    }
}
