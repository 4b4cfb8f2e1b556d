//! The module and the token in it.

use std::{fmt, path::Path};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as Pkcs11Error, RvError},
    mechanism::MechanismType,
    session::{Session, UserType},
    slot::Slot,
};
use secrecy::SecretString;

use super::{SetupError, class};

/// Which token of a module to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSelector {
    /// The token with this label.
    Label(String),
    /// The token with this serial number.
    Serial(String),
}

impl fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "the label {label:?}"),
            Self::Serial(serial) => write!(f, "the serial number {serial:?}"),
        }
    }
}

/// What a token says of itself.
#[derive(Clone, Debug)]
pub struct TokenFacts {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Manufacturer and model.
    pub model: String,
    /// The mechanisms the vault needs and this token lacks.
    pub missing: Vec<MechanismNeed>,
}

/// A mechanism the vault cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MechanismNeed {
    /// Its PKCS#11 name.
    pub name: &'static str,
    /// What would not work without it.
    pub purpose: &'static str,
    mechanism: MechanismType,
}

const NEEDS: [MechanismNeed; 6] = [
    MechanismNeed {
        name: "CKM_AES_GCM",
        purpose: "sealing and opening records",
        mechanism: MechanismType::AES_GCM,
    },
    MechanismNeed {
        name: "CKM_AES_KEY_GEN",
        purpose: "making record keys",
        mechanism: MechanismType::AES_KEY_GEN,
    },
    MechanismNeed { name: "CKM_SHA256_HMAC", purpose: "fingerprints", mechanism: MechanismType::SHA256_HMAC },
    MechanismNeed {
        name: "CKM_GENERIC_SECRET_KEY_GEN",
        purpose: "making fingerprint keys",
        mechanism: MechanismType::GENERIC_SECRET_KEY_GEN,
    },
    MechanismNeed {
        name: "CKM_SHA256_RSA_PKCS",
        purpose: "signing JWTs",
        mechanism: MechanismType::SHA256_RSA_PKCS,
    },
    MechanismNeed {
        name: "CKM_RSA_PKCS_KEY_PAIR_GEN",
        purpose: "making signing keys",
        mechanism: MechanismType::RSA_PKCS_KEY_PAIR_GEN,
    },
];

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

/// What the token that `selector` names in the module at `path` says of itself. Needs no PIN; finalizes the module.
///
/// # Errors
/// [`SetupError`] if there is no such module or token.
pub fn token_facts(path: &Path, selector: &TokenSelector) -> Result<TokenFacts, SetupError> {
    let module = load(path)?;
    let found = find_slot(&module, path, selector).and_then(|slot| Ok(facts(&module, slot)?));
    let finalized = module.finalize();
    let found = found?;
    finalized?;
    Ok(found)
}

/// Loads and initialises the module at `path`, allowing it to use the operating system's locks.
pub(super) fn load(path: &Path) -> Result<Pkcs11, SetupError> {
    let failed = |reason: String| SetupError::Module { path: path.to_owned(), reason };
    let module = Pkcs11::new(path).map_err(|error| match error {
        Pkcs11Error::LibraryLoading(reason) => failed(reason.to_string()),
        other => failed(other.to_string()),
    })?;
    initialize(&module).map_err(|error| failed(error.to_string()))?;
    Ok(module)
}

/// `C_Initialize`; one that was done before is as good.
pub(super) fn initialize(module: &Pkcs11) -> Result<(), Pkcs11Error> {
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        other => other,
    }
}

/// The slot whose token `selector` names.
pub(super) fn find_slot(module: &Pkcs11, path: &Path, selector: &TokenSelector) -> Result<Slot, SetupError> {
    let mut fitting = Vec::new();
    let (mut labels, mut uninitialized) = (Vec::new(), 0_usize);
    for slot in module.get_slots_with_token()? {
        let info = module.get_token_info(slot)?;
        if !info.token_initialized() {
            uninitialized += 1;
            continue;
        }
        labels.push(format!("{:?} (serial {})", info.label(), info.serial_number()));
        let fits = match selector {
            TokenSelector::Label(label) => info.label() == label,
            TokenSelector::Serial(serial) => info.serial_number() == serial,
        };
        if fits {
            fitting.push(slot);
        }
    }
    match fitting.as_slice() {
        [slot] => Ok(*slot),
        [] if labels.is_empty() => Err(SetupError::NoToken {
            wanted: selector.to_string(),
            path: path.to_owned(),
            found: format!(
                "no token is initialised ({uninitialized} empty slots); initialise one, for example with \
                 `pkcs11-tool --module {} --init-token --label NAME`, then `--init-pin`",
                path.display()
            ),
        }),
        [] => Err(SetupError::NoToken {
            wanted: selector.to_string(),
            path: path.to_owned(),
            found: format!("there are {}; correct hsm.token_label or hsm.token_serial", labels.join(", ")),
        }),
        several => Err(SetupError::AmbiguousToken { wanted: selector.to_string(), count: several.len() }),
    }
}

/// Logs in as the user; a login that is still good is as good. The PIN is tried once.
pub(super) fn login(session: &Session, pin: &SecretString) -> Result<(), SetupError> {
    match session.login(UserType::User, Some(pin)) {
        Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Pkcs11Error::Pkcs11(
            reason @ (RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::UserPinNotInitialized),
            _,
        )) => Err(SetupError::Pin { reason: class::name(reason) }),
        Err(other) => Err(other.into()),
    }
}

/// What the token in `slot` is and lacks.
pub(super) fn facts(module: &Pkcs11, slot: Slot) -> Result<TokenFacts, Pkcs11Error> {
    let info = module.get_token_info(slot)?;
    let mechanisms = module.get_mechanism_list(slot)?;
    Ok(TokenFacts {
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        model: format!("{} {}", info.manufacturer_id(), info.model()).trim().to_owned(),
        missing: NEEDS.into_iter().filter(|need| !mechanisms.contains(&need.mechanism)).collect(),
    })
}
