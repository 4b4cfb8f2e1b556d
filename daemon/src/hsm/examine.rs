//! What a module and its token are, and how they will be used: the lines of `vaultd check`.

use cryptoki::{
    context::Pkcs11,
    mechanism::MechanismType,
    object::{Attribute, AttributeType, KeyType, ObjectHandle},
    session::Session,
    slot::Slot,
};
use cryptoki_sys::CKM_SHA256_HMAC;

use super::{
    Library, Operation, Settings, SetupError, TokenSelector,
    direct::{Direct, TokenInfo},
    error::brief,
    generate::generate_for_session,
    library,
    manner::{NonceGiven, SignedBy},
    mechanisms, token,
    token::Login,
    vetting::is_local,
};

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Good(String),
    /// Worth knowing.
    Note(String),
    /// In the way of the vault.
    Wrong(String),
}

/// What the module and the token that `selector` names say of themselves. Needs no PIN.
///
/// # Errors
/// [`SetupError`] if there is no such module or token.
pub fn examine(library: &Library, selector: &TokenSelector) -> Result<Vec<Finding>, SetupError> {
    with_module(library, |module| {
        let slot = token::find_slot(module, library, selector)?;
        let about = module.get_library_info()?;
        let info = Direct::of(library)?.token_info(slot)?;
        let mut findings = vec![
            Finding::Good(format!(
                "module {} {}, {}, PKCS #11 {}",
                about.library_description(),
                about.library_version(),
                about.manufacturer_id(),
                about.cryptoki_version()
            )),
            Finding::Good(format!(
                "token {:?}, serial {}, {} {}, firmware {}: {}",
                info.label,
                info.serial,
                info.manufacturer,
                info.model,
                info.firmware,
                traits(&info).join(", ")
            )),
        ];
        findings.extend(mechanisms::missing(module, slot)?.into_iter().map(|need| {
            let line = format!("the token lacks {}: {}", need.name, need.consequence);
            if need.serving { Finding::Wrong(line) } else { Finding::Note(line) }
        }));
        Ok(findings)
    })
}

/// What of a token's flags and limits matters here.
fn traits(info: &TokenInfo) -> Vec<String> {
    let login = if info.login_required() { "wants a login" } else { "wants no login" };
    let path = info.protected_path().then(|| "asks for the PIN by its own means".to_owned());
    let sessions = match info.max_sessions {
        0 => "tells no limit of sessions".to_owned(),
        most => format!("at most {most} sessions"),
    };
    let warnings = info.warnings().map(str::to_owned);
    [login.to_owned()].into_iter().chain(path).chain(warnings).chain([sessions]).collect()
}

/// Logs in and tries each kind of operation with a key that dies with its session, which shows how this token wants to
/// be used. Writes nothing to the token.
///
/// # Errors
/// [`SetupError`] if there is no such module or token, or the login fails; the PIN is tried once.
pub fn rehearse(settings: &Settings) -> Result<Vec<Finding>, SetupError> {
    with_module(&settings.library, |module| {
        let slot = token::find_slot(module, &settings.library, &settings.token)?;
        let session = token::open_session(module, slot)?;
        let login = Login::choose(&settings.library, slot, settings.pin.is_some())?;
        token::login(&settings.library, slot, &session, settings.pin.as_ref())?;
        let direct = Direct::of(&settings.library)?;
        let seals = module.get_mechanism_list(slot)?.contains(&MechanismType::AES_GCM);
        let mut rehearsal =
            Rehearsal { module, direct, slot, session: &session, seals, findings: Vec::new() };
        rehearsal.findings.push(Finding::Good(
            match login {
                Login::Pin => "logs in with the PIN of hsm.pin_file",
                Login::ProtectedPath => "logs in through the token's own PIN entry",
                Login::None => "wants no login",
            }
            .to_owned(),
        ));
        rehearsal.random();
        rehearsal.seal();
        rehearsal.mac();
        rehearsal.sign();
        rehearsal.sessions(settings.sessions)?;
        rehearsal.writing();
        let findings = rehearsal.findings;
        session.close()?;
        Ok(findings)
    })
}

struct Rehearsal<'a> {
    module: &'a Pkcs11,
    direct: Direct,
    slot: Slot,
    session: &'a Session,
    /// Whether the token claims AES-GCM; what follows if not was said already.
    seals: bool,
    findings: Vec<Finding>,
}

impl Rehearsal<'_> {
    fn random(&mut self) {
        let finding = match self.session.generate_random_slice(&mut [0; 16]) {
            Ok(()) => Finding::Good("draws random bytes".to_owned()),
            Err(error) => Finding::Wrong(format!("draws no random bytes: {}", brief(&error))),
        };
        self.findings.push(finding);
    }

    fn seal(&mut self) {
        let Some(key) = self.key(Operation::Seal, "sealing") else { return };
        if self.seals {
            self.seal_with(key);
        }
        if matches!(is_local(self.session, key), Ok(false)) {
            let line = "calls no key local (CKA_LOCAL), not even one it has just made: that keys were made inside is \
                        known from CKA_ALWAYS_SENSITIVE and CKA_NEVER_EXTRACTABLE alone";
            self.findings.push(Finding::Note(line.to_owned()));
        }
        self.copies(key);
        let _ = self.session.destroy_object(key);
    }

    fn seal_with(&mut self, key: ObjectHandle) {
        let finding = match NonceGiven::find(&self.direct, self.session, key) {
            Ok(NonceGiven::Random) => {
                Finding::Good("seals with AES-256-GCM, under nonces drawn from the token".to_owned())
            }
            Ok(NonceGiven::Room | NonceGiven::Nothing) => {
                Finding::Good("seals with AES-256-GCM, under nonces the module makes".to_owned())
            }
            Err(error) => Finding::Wrong(error.to_string()),
        };
        self.findings.push(finding);
    }

    fn copies(&mut self, key: ObjectHandle) {
        let finding = match self.session.copy_object(key, &[Attribute::Token(false)]) {
            Ok(copy) => {
                let _ = self.session.destroy_object(copy);
                Finding::Good("works on session copies of keys (C_CopyObject)".to_owned())
            }
            Err(error) => Finding::Note(format!(
                "copies no keys ({}): works on the token's objects themselves",
                brief(&error)
            )),
        };
        self.findings.push(finding);
    }

    fn mac(&mut self) {
        let Some(key) = self.key(Operation::Mac, "MACs") else { return };
        let told = self.session.get_attributes(key, &[AttributeType::KeyType]);
        let key_type = told.ok().into_iter().flatten().find_map(|attribute| match attribute {
            Attribute::KeyType(key_type) => Some(key_type),
            _ => None,
        });
        let key_type = match key_type {
            Some(KeyType::GENERIC_SECRET) => "CKK_GENERIC_SECRET",
            Some(KeyType::SHA256_HMAC) => "CKK_SHA256_HMAC",
            _ => "a type it does not tell",
        };
        let finding = match self.direct.sign(self.session, key, CKM_SHA256_HMAC, b"vaultd trial") {
            Ok(_) => Finding::Good(format!("makes HMACs with SHA-256, with keys of {key_type}")),
            Err(error) => Finding::Wrong(format!("makes no HMAC with SHA-256: {}", brief(&error))),
        };
        self.findings.push(finding);
        let _ = self.session.destroy_object(key);
    }

    fn sign(&mut self) {
        let Some(key) = self.key(Operation::Sign, "signatures") else { return };
        let told = self.session.get_attributes(key, &[AttributeType::Modulus]);
        let bits = told.ok().into_iter().flatten().find_map(|attribute| match attribute {
            Attribute::Modulus(modulus) => Some(modulus.len() * 8),
            _ => None,
        });
        let bits =
            bits.map_or_else(|| "of a length it does not tell".to_owned(), |bits| format!("of {bits} bits"));
        let finding = match SignedBy::find(&self.direct, self.session, key) {
            Ok(by) => Finding::Good(format!("signs with {by}, with new keys {bits}")),
            Err(error) => Finding::Wrong(format!("makes no RSA signature with SHA-256: {error}")),
        };
        self.findings.push(finding);
        let _ = self.session.destroy_object(key);
    }

    fn sessions(&mut self, wanted: usize) -> Result<(), SetupError> {
        let usable = token::usable_sessions(self.module, self.slot, wanted.max(1))?;
        self.findings.push(if usable < wanted {
            Finding::Note(format!(
                "hsm.sessions is {wanted}, the token allows {usable}: vaultd runs with {usable}"
            ))
        } else {
            Finding::Good(format!("allows the {usable} sessions of hsm.sessions, and one to keep the login"))
        });
        Ok(())
    }

    fn writing(&mut self) {
        let finding = match self.module.open_rw_session(self.slot) {
            Ok(_) => return,
            Err(error) => Finding::Note(format!(
                "opens no session for writing ({}): enough to serve, but keys must be made with the vendor's tools",
                brief(&error)
            )),
        };
        self.findings.push(finding);
    }

    /// A key for trials, if the token makes one that is not kept.
    fn key(&mut self, operation: Operation, what: &str) -> Option<ObjectHandle> {
        generate_for_session(self.module, self.session, operation)
            .map_err(|error| {
                let reason = match &error {
                    SetupError::Pkcs11(error) => brief(error),
                    other => other.to_string(),
                };
                let line = format!("{what} not tried: the token makes no key for a session alone ({reason})");
                self.findings.push(Finding::Note(line));
            })
            .ok()
    }
}

/// Runs `task` on the loaded module and finalizes it.
fn with_module<T>(
    library: &Library,
    task: impl FnOnce(&Pkcs11) -> Result<T, SetupError>,
) -> Result<T, SetupError> {
    let module = library::load(library)?;
    let done = task(&module);
    let finalized = module.finalize();
    let done = done?;
    finalized?;
    Ok(done)
}
