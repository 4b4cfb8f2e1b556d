//! The token: which one, how to log in, how many sessions it allows.

use std::fmt;

use cryptoki::{
    context::Pkcs11,
    error::{Error as Pkcs11Error, RvError},
    session::{Session, UserType},
    slot::Slot,
};
use secrecy::SecretString;

use super::{Library, SetupError, class, direct::Direct, error::wants_a_session};

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

/// The slot whose token `selector` names.
pub(super) fn find_slot(
    module: &Pkcs11,
    library: &Library,
    selector: &TokenSelector,
) -> Result<Slot, SetupError> {
    let path = &library.path;
    let direct = Direct::of(library)?;
    let mut fitting = Vec::new();
    let (mut labels, mut uninitialized) = (Vec::new(), 0_usize);
    for slot in module.get_slots_with_token()? {
        let info = direct.token_info(slot)?;
        if !info.initialized() {
            uninitialized += 1;
            continue;
        }
        labels.push(format!("{:?} (serial {})", info.label, info.serial));
        let fits = match selector {
            TokenSelector::Label(label) => info.label == *label,
            TokenSelector::Serial(serial) => info.serial == *serial,
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

/// How the user logs in to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// With the PIN of `hsm.pin_file`.
    Pin,
    /// The token asks for it by its own means (`CKF_PROTECTED_AUTHENTICATION_PATH`).
    ProtectedPath,
    /// Not at all (no `CKF_LOGIN_REQUIRED`).
    None,
}

impl Login {
    /// How to log in to the token in `slot`, given whether there is a PIN.
    ///
    /// The flags are asked first: a login without a PIN counts as a wrong one where there is no protected path.
    pub(super) fn choose(library: &Library, slot: Slot, has_pin: bool) -> Result<Self, SetupError> {
        let info = Direct::of(library)?.token_info(slot)?;
        if has_pin && info.has_one_try_left() {
            // Whatever starts the daemon again and again must not be what locks the token.
            Err(SetupError::LastTry)
        } else if has_pin {
            Ok(Self::Pin)
        } else if info.protected_path() {
            Ok(Self::ProtectedPath)
        } else if !info.login_required() {
            Ok(Self::None)
        } else {
            Err(SetupError::Key(format!(
                "the token {:?} wants a PIN and has no other way to ask for it (no protected authentication path): set \
                 hsm.pin_file",
                info.label
            )))
        }
    }
}

/// Logs in as the user; a login that is still good is as good. A PIN is tried once.
pub(super) fn login(
    library: &Library,
    slot: Slot,
    session: &Session,
    pin: Option<&SecretString>,
) -> Result<(), SetupError> {
    if Login::choose(library, slot, pin.is_some())? == Login::None {
        return Ok(());
    }
    match session.login(UserType::User, pin) {
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

/// A session to work in: read-only, or for writing where the module opens no other (as AWS `CloudHSM`).
pub(super) fn open_session(module: &Pkcs11, slot: Slot) -> Result<Session, Pkcs11Error> {
    module.open_ro_session(slot).or_else(|refusal| module.open_rw_session(slot).map_err(|_| refusal))
}

/// How many of `wanted` sessions the token allows beside those that are open and one that is left: to make keys, and for a
/// new login beside one that broke.
///
/// They are opened and closed again: what tokens say of their limit is often wrong, and others use them too.
///
/// # Errors
/// [`SetupError`] if it allows none.
pub(super) fn usable_sessions(module: &Pkcs11, slot: Slot, wanted: usize) -> Result<usize, SetupError> {
    let mut open = Vec::new();
    while open.len() <= wanted {
        match open_session(module, slot) {
            Ok(session) => open.push(session),
            Err(refusal) if wants_a_session(&refusal) => break,
            Err(other) => return Err(other.into()),
        }
    }
    if open.is_empty() {
        return Err(SetupError::Key(
            "the token allows no second session; vaultd needs one that keeps the login, and one for each thread: close \
             what else uses the token, or raise its limit"
                .to_owned(),
        ));
    }
    Ok((open.len() - 1).max(1))
}
