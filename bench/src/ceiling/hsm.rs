//! The ceiling of sealing and opening: PKCS#11 calls through `cryptoki`, on one thread. It asks for the length of each result
//! first, so that an operation is three calls to the module; of the vault's it is two.
//!
//! On a throwaway SoftHSM2 token of its own, in a process of its own: SoftHSM2 finds its token through an
//! environment variable, and a process cannot set its own safely. The process stays between samples and
//! answers questions: the name of an operation and milliseconds, answered with operations a second.

use std::{
    fs,
    io::{self, BufRead as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};

use crate::{
    number::rate,
    process::{Helper, READY},
};

/// The hidden subcommand that answers.
pub(crate) const SUBCOMMAND: &str = "serve-hsm";

/// The running process.
#[derive(Debug)]
pub(crate) struct Hsm {
    helper: Helper,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// A new PAN: HMAC-SHA-256 for the fingerprint, 12 random bytes for the nonce, AES-256-GCM.
    Pair,
    /// A token opened: AES-256-GCM backwards.
    Open,
}

impl Hsm {
    /// Makes a token in `dir` with `module`, or with the first that is installed.
    pub(crate) fn start(module: Option<&Path>, dir: &Path) -> Result<Self> {
        let module = find_module(module)?;
        let tokens = dir.join("hsm");
        fs::create_dir(&tokens).with_context(|| format!("making {}", tokens.display()))?;
        let config = dir.join("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let variables = [("SOFTHSM2_CONF", config.as_os_str())];
        Ok(Self { helper: Helper::start(SUBCOMMAND, ("--module", &module), &variables)? })
    }

    /// Operations a second over `time`.
    pub(crate) fn sample(&mut self, operation: Operation, time: Duration) -> Result<f64> {
        let question = format!("{} {}", operation.name(), time.as_millis());
        self.helper.ask(&question)?.parse().context("reading the HSM's rate")
    }
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Open => "open",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Pair, Self::Open].into_iter().find(|operation| operation.name() == name)
    }
}

fn find_module(wanted: Option<&Path>) -> Result<PathBuf> {
    let usual = USUAL_PLACES.iter().map(Path::new);
    let Some(module) =
        wanted.into_iter().chain(usual.filter(|path| wanted.is_none() && path.exists())).next()
    else {
        bail!("SoftHSM2 is not in {}: install it or give --module", USUAL_PLACES.join(", "));
    };
    std::path::absolute(module).context("the module's path")
}

/// The subcommand: answers until stdin ends, then finalizes the module.
pub(crate) fn serve(module: &Path) -> Result<()> {
    let pkcs11 = Pkcs11::new(module).with_context(|| format!("loading {}", module.display()))?;
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).context("C_Initialize")?;
    let answered = answer(&pkcs11);
    pkcs11.finalize().context("C_Finalize")?;
    answered
}

fn answer(pkcs11: &Pkcs11) -> Result<()> {
    let keys = Keys::make(pkcs11)?;
    writeln!(io::stdout(), "{READY}")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let question = line.split_once(' ').and_then(|(name, milliseconds)| {
            Some((Operation::from_name(name)?, Duration::from_millis(milliseconds.parse().ok()?)))
        });
        let Some((operation, time)) = question else { bail!("{line:?} is no question") };
        writeln!(io::stdout(), "{}", keys.sample(operation, time)?)?;
    }
    Ok(())
}

/// A logged-in session with its keys, as copies in the session: SoftHSM2 reads a token object from disk at
/// each use.
struct Keys {
    session: Session,
    sealing: ObjectHandle,
    fingerprint: ObjectHandle,
}

impl Keys {
    fn make(pkcs11: &Pkcs11) -> Result<Self> {
        let session = log_in(pkcs11)?;
        let aes = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::ValueLen(KEY_BYTES.into()),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        let mac = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::ValueLen(KEY_BYTES.into()),
            Attribute::Sign(true),
        ];
        let sealing = session.generate_key(&Mechanism::AesKeyGen, &aes).context("making the AES key")?;
        let fingerprint =
            session.generate_key(&Mechanism::GenericSecretKeyGen, &mac).context("making the HMAC key")?;
        let copy = [Attribute::Token(false)];
        let sealing = session.copy_object(sealing, &copy).context("C_CopyObject of the AES key")?;
        let fingerprint = session.copy_object(fingerprint, &copy).context("C_CopyObject of the HMAC key")?;
        Ok(Self { session, sealing, fingerprint })
    }

    fn sample(&self, operation: Operation, time: Duration) -> Result<f64> {
        let (mut nonce, sealed) = self.seal()?;
        let begin = Instant::now();
        let mut count = 0;
        while begin.elapsed() < time {
            match operation {
                Operation::Pair => {
                    self.session.sign(&Mechanism::Sha256Hmac, self.fingerprint, &PLAINTEXT)?;
                    self.seal()?;
                }
                Operation::Open => {
                    let mechanism = Mechanism::AesGcm(GcmParams::new(&mut nonce, &AAD, TAG_BITS.into())?);
                    self.session.decrypt(&mechanism, self.sealing, &sealed)?;
                }
            }
            count += 1;
        }
        Ok(rate(count, begin.elapsed()))
    }

    fn seal(&self) -> Result<([u8; NONCE_BYTES], Vec<u8>)> {
        let mut nonce = [0; NONCE_BYTES];
        self.session.generate_random_slice(&mut nonce)?;
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut nonce, &AAD, TAG_BITS.into())?);
        let sealed = self.session.encrypt(&mechanism, self.sealing, &PLAINTEXT)?;
        Ok((nonce, sealed))
    }
}

/// Initialises a token that is used for this run only, which is why its PINs may stand here.
fn log_in(pkcs11: &Pkcs11) -> Result<Session> {
    let (officer_pin, user_pin) = (AuthPin::from("bench-officer"), AuthPin::from("bench-user"));
    let slot = *pkcs11.get_slots_with_token()?.first().context("the module has no slot")?;
    pkcs11.init_token(slot, &officer_pin, "bench").context("C_InitToken")?;
    // SoftHSM2 moves a new token to a slot of its own.
    let slot = *pkcs11.get_slots_with_initialized_token()?.first().context("the new token has no slot")?;
    let session = pkcs11.open_rw_session(slot)?;
    session.login(UserType::So, Some(&officer_pin)).context("login as officer")?;
    session.init_pin(&user_pin).context("C_InitPIN")?;
    session.logout()?;
    session.login(UserType::User, Some(&user_pin)).context("login as user")?;
    Ok(session)
}

/// Where distributions put SoftHSM2.
const USUAL_PLACES: [&str; 7] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
/// A PAN with its frame, as the vault seals it.
const PLAINTEXT: [u8; 22] = *b"PAN 4111111111111111\0\0";
/// As much associated data as binds a record to its token and tenant.
const AAD: [u8; 70] = [7; 70];
const KEY_BYTES: u64 = 32;
const NONCE_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
