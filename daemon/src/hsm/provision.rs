//! Providing a token with the keys it lacks, for `vaultd init` and `vaultd dev`.

use cryptoki::{
    context::Pkcs11,
    session::{Session, UserType},
    slot::Slot,
};
use secrecy::SecretString;

use super::{
    KeyName, Library, Purpose, Settings, SetupError, check_value::CheckValue, direct::Direct, error::brief,
    generate::generate, keys::KeyRing, library, mechanisms, operations::Operator, token,
};

/// A token that is being provisioned. Must be ended with [`Provisioner::close`].
pub struct Provisioner {
    module: Pkcs11,
    library: Library,
    slot: Slot,
    /// Read-only where it can be: enough where nothing is to be made. It keeps the login.
    session: Session,
    prefix: String,
    unfinished: Vec<KeyName>,
    keys: KeyRing,
}

/// What [`Provisioner::ensure`] found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// The newest key for the purpose.
    pub name: KeyName,
    /// Whether it was made just now.
    pub created: bool,
}

impl Provisioner {
    /// Loads the module, logs in once and vets the keys that exist.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn open(settings: &Settings) -> Result<Self, SetupError> {
        let module = library::load(&settings.library)?;
        let opened = (|| {
            let slot = token::find_slot(&module, &settings.library, &settings.token)?;
            if let Some(need) = mechanisms::missing(&module, slot)?.into_iter().find(|need| need.serving) {
                return Err(SetupError::Key(format!(
                    "the token lacks {}: {}; `vaultd check` lists all it lacks",
                    need.name, need.consequence
                )));
            }
            let session = token::open_session(&module, slot)?;
            token::login(&settings.library, slot, &session, settings.pin.as_ref())?;
            let keys = KeyRing::find(&settings.library, &session, &settings.key_prefix, &|name| {
                !settings.unfinished.contains(&name)
            })?;
            Ok((slot, session, keys))
        })();
        match opened {
            Ok((slot, session, keys)) => {
                let (library, prefix) = (settings.library.clone(), settings.key_prefix.clone());
                let unfinished = settings.unfinished.clone();
                Ok(Self { module, library, slot, session, prefix, unfinished, keys })
            }
            Err(error) => {
                let _ = module.finalize();
                Err(error)
            }
        }
    }

    /// The newest key for `purpose`, made if there is none. Never touches a key that exists.
    ///
    /// # Errors
    /// [`SetupError`] if the token does not make the key, or makes it other than asked.
    pub fn ensure(&mut self, purpose: Purpose) -> Result<Provisioned, SetupError> {
        if let Some(name) = self.names().into_iter().rev().find(|name| name.purpose == purpose) {
            return Ok(Provisioned { name, created: false });
        }
        let name = KeyName { purpose, version: 1 };
        let writing = self.module.open_rw_session(self.slot).map_err(|error| {
            SetupError::Key(format!(
                "key {}: the token opens no session for writing ({}): allow it, or make the key with the vendor's \
                 tools",
                name.label(&self.prefix),
                brief(&error)
            ))
        })?;
        generate(&self.module, &writing, &self.prefix, name)?;
        writing.close()?;
        // Vets what was made: a module may quietly ignore an attribute.
        self.keys =
            KeyRing::find(&self.library, &self.session, &self.prefix, &|is| !self.unfinished.contains(&is))?;
        Ok(Provisioned { name, created: true })
    }

    /// Every key of the vault in the token, by purpose and version.
    pub fn names(&self) -> Vec<KeyName> {
        self.keys.infos().map(|key| key.name).collect()
    }

    /// The check value of the key `name` for the vault `context`.
    ///
    /// # Errors
    /// [`SetupError`] if the token does not hold or use the key.
    pub fn check_value(&self, name: KeyName, context: &[u8]) -> Result<CheckValue, SetupError> {
        CheckValue::make(&self.operator(), name, context)
    }

    /// Whether the key `name` is the one `recorded` was made with.
    ///
    /// # Errors
    /// [`SetupError`] if the token cannot be asked.
    pub fn fits(&self, name: KeyName, recorded: &CheckValue, context: &[u8]) -> Result<bool, SetupError> {
        recorded.fits(&self.operator(), name, context)
    }

    /// Fills `out` from the token's random number generator.
    ///
    /// # Errors
    /// [`SetupError`] if the token has none.
    pub fn random(&self, out: &mut [u8]) -> Result<(), SetupError> {
        Ok(self.operator().random(out)?)
    }

    /// Closes the session and finalizes the module.
    ///
    /// # Errors
    /// [`SetupError::Pkcs11`] if the module refuses.
    pub fn close(self) -> Result<(), SetupError> {
        let Self { module, session, .. } = self;
        session.close()?;
        Ok(module.finalize()?)
    }

    /// What the labels of the vault's keys start with.
    pub fn key_prefix(&self) -> &str {
        &self.prefix
    }

    fn operator(&self) -> Operator<'_> {
        Operator { session: &self.session, keys: &self.keys }
    }
}

/// Initialises the first empty slot of `library` as a token named `label` with a user PIN.
///
/// For throwaway tokens of development vaults; a production token is initialised by its owner.
///
/// # Errors
/// [`SetupError`] if the module has no empty slot or refuses.
pub fn initialize_token(
    library: &Library,
    label: &str,
    so_pin: &SecretString,
    user_pin: &SecretString,
) -> Result<(), SetupError> {
    let module = library::load(library)?;
    let done = (|| {
        let direct = Direct::of(library)?;
        let mut empty = None;
        for slot in module.get_slots_with_token()? {
            if !direct.token_info(slot)?.initialized() {
                empty = Some(slot);
                break;
            }
        }
        let slot = empty.ok_or_else(|| SetupError::Key("the module has no empty slot".to_owned()))?;
        module.init_token(slot, so_pin, label)?;
        let session = module.open_rw_session(slot)?;
        session.login(UserType::So, Some(so_pin))?;
        session.init_pin(user_pin)?;
        session.close()?;
        Ok(())
    })();
    let finalized = module.finalize();
    done.and_then(|()| Ok(finalized?))
}
