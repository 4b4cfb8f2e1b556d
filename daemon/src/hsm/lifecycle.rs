//! Keys that come and go while others work.
//!
//! A key's life is decided by whoever owns the store; here its objects are made, found and removed. Each step runs on
//! a thread and a read-write session of its own: making an RSA key takes a second that no worker has to spare.

use std::{sync::Arc, time::Duration};

use cryptoki::{
    context::Function,
    error::{Error as Pkcs11Error, RvError},
    object::Attribute,
};
use tokio::sync::oneshot;

use super::{
    CheckValue, Hsm, HsmError, KeyInfo, KeyName, SetupError, class::Class, connection::Connection,
    error::Fault, generate::generate, keys::KeyRing, link::Link, operations::Operator,
};

/// How long a step may take: slow tokens need many seconds for an RSA key.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);

impl Hsm {
    /// Makes the key `name` in the token and takes it into service; nothing is done with it before somebody names it.
    ///
    /// # Errors
    /// [`HsmError`] if the token does not make it, or makes it other than asked; objects of that name may stay behind
    /// in the token.
    pub async fn create_key(&self, name: KeyName) -> Result<KeyInfo, HsmError> {
        let create = move |connection: &Connection, prefix: &str, given_up: &dyn Fn() -> bool| {
            connection.create(prefix, name, given_up)
        };
        self.step_unless("create_key", create).await
    }

    /// Whether the token has an object that is called like the key `name`.
    ///
    /// # Errors
    /// [`HsmError`] if the token cannot be asked.
    pub async fn has_key(&self, name: KeyName) -> Result<bool, HsmError> {
        self.step("find_key", move |connection, prefix| connection.has(prefix, name)).await
    }

    /// Takes the key `name`, which is in the token, into service.
    ///
    /// # Errors
    /// [`HsmError`] if it is not there, or not as it must be.
    pub async fn adopt_key(&self, name: KeyName) -> Result<KeyInfo, HsmError> {
        self.step("adopt_key", move |connection, prefix| connection.adopt(prefix, name)).await
    }

    /// Removes every object of the key `name` from the token, if there are any. There is no way back.
    ///
    /// # Errors
    /// [`HsmError`] if the token does not remove them.
    pub async fn destroy_key(&self, name: KeyName) -> Result<(), HsmError> {
        let destroy = move |connection: &Connection, prefix: &str, given_up: &dyn Fn() -> bool| {
            connection.destroy(prefix, name, given_up)
        };
        self.step_unless("destroy_key", destroy).await
    }

    /// The check value of the key `name` for the vault `context`. A connection that is made anew must find the key from
    /// now on.
    ///
    /// # Errors
    /// [`HsmError`] if the token does not hold or use the key.
    pub async fn record_key(&self, name: KeyName, context: Vec<u8>) -> Result<CheckValue, HsmError> {
        // The connection that is in service may have been made since, and know nothing of the key: before its value is
        // made, and again before it is expected.
        let check = move |connection: &Connection, prefix: &str| {
            connection.find_key(prefix, name)?;
            connection.check_value(name, &context)
        };
        let value = self.step("record_key", check).await?;
        self.link().expect_key(name, value.clone());
        let find = move |connection: &Connection, prefix: &str| connection.find_key(prefix, name);
        match self.step("record_key", find).await {
            Ok(()) => Ok(value),
            Err(error) => {
                self.release_key(name);
                Err(error)
            }
        }
    }

    /// A connection that is made anew need not find the key `name` any more.
    pub fn release_key(&self, name: KeyName) {
        self.link().forget_key(name);
    }

    async fn step<T: Send + 'static>(
        &self,
        called: &'static str,
        step: impl FnOnce(&Connection, &str) -> Result<T, SetupError> + Send + 'static,
    ) -> Result<T, HsmError> {
        self.step_unless(called, move |connection, prefix, _| step(connection, prefix)).await
    }

    /// A step that can ask whether nobody waits for it any more; counted under `called`.
    async fn step_unless<T: Send + 'static>(
        &self,
        called: &'static str,
        step: impl FnOnce(&Connection, &str, &dyn Fn() -> bool) -> Result<T, SetupError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (answer, receiver) = oneshot::channel();
        let link = Arc::clone(self.link());
        // Not one of the runtime's blocking threads: it waits for those when it ends, and a module may hang.
        std::thread::Builder::new()
            .name("hsm-keys".to_owned())
            .spawn(move || {
                let done = run(&link, |connection, prefix| step(connection, prefix, &|| answer.is_closed()));
                drop(answer.send(done));
            })
            .map_err(|error| HsmError::Unavailable(error.to_string()))?;
        let done = tokio::time::timeout(STEP_TIMEOUT, receiver).await;
        if done.is_err() {
            // It keeps the control session, without which no later step can be made, for as long as it hangs.
            self.link().distrust("a step of a key's life does not come back");
        }
        let done = done.map_or(Err(HsmError::TimedOut), |done| {
            done.unwrap_or_else(|_| Err(HsmError::Unavailable("an HSM thread ended".to_owned())))
        });
        self.link().stats().told(called, 1, &done);
        done
    }
}

fn run<T>(link: &Link, step: impl FnOnce(&Connection, &str) -> Result<T, SetupError>) -> Result<T, HsmError> {
    let connection = link.connection()?;
    // The module stays initialised for as long as the step lasts.
    let visit = connection.visit().map_err(|error| HsmError::Unavailable(error.to_string()))?;
    let done = step(&connection, link.key_prefix());
    drop(visit);
    done.map_err(|error| {
        let told = error.to_string();
        if let SetupError::Pkcs11(error) = error {
            // Where keys are no working copies, nobody else uses the control session. The module's own trouble is left
            // to workers: a token that is full says no more than that it failed, and serves on.
            let fault = Fault::Call(error);
            if matches!(fault.class(), Class::Session | Class::Login | Class::Keys) {
                link.report(connection.generation, &fault);
            }
        }
        HsmError::Unavailable(told)
    })
}

impl Connection {
    fn create(
        &self,
        prefix: &str,
        name: KeyName,
        given_up: &dyn Fn() -> bool,
    ) -> Result<KeyInfo, SetupError> {
        let session = self.writing_session()?;
        let made = generate(self.pkcs11(), &session, prefix, name)?;
        if given_up() {
            // Whoever gave up has removed what there was of the name, and may have made another of it by now: these
            // objects and no others are in the way.
            for object in made {
                session.destroy_object(object)?;
            }
            return Err(SetupError::Key(format!("key {name} was made too late")));
        }
        self.adopt(prefix, name)
    }

    /// Takes the key `name` into service, unless it is.
    fn find_key(&self, prefix: &str, name: KeyName) -> Result<(), SetupError> {
        match self.keys.load().key(name) {
            Some(_) => Ok(()),
            None => self.adopt(prefix, name).map(drop),
        }
    }

    pub(super) fn adopt(&self, prefix: &str, name: KeyName) -> Result<KeyInfo, SetupError> {
        let control = self.control();
        let mut found = KeyRing::find(self.library(), &control, prefix, &|is| is == name)?;
        found.use_working_copies(&control);
        found.seal_references(&control)?;
        let info = found.infos().next();
        let info = info.ok_or_else(|| SetupError::Key(format!("the token holds no key {name}")))?;
        self.keys.store(Arc::new(self.keys.load().joined(found)));
        Ok(info)
    }

    fn has(&self, prefix: &str, name: KeyName) -> Result<bool, SetupError> {
        let control = self.control();
        if !control.find_objects(&labelled(prefix, name))?.is_empty() {
            return Ok(true);
        }
        // A session that is logged out finds no private object, and says no more than that.
        if self.is_logged_in(&control) {
            Ok(false)
        } else {
            Err(Pkcs11Error::Pkcs11(RvError::UserNotLoggedIn, Function::FindObjects).into())
        }
    }

    fn destroy(&self, prefix: &str, name: KeyName, given_up: &dyn Fn() -> bool) -> Result<(), SetupError> {
        // Whoever gave up may have made another key of the name by now.
        let too_late = || Err(SetupError::Key(format!("key {name} was to be removed too late")));
        if given_up() {
            return too_late();
        }
        self.keys.store(Arc::new(self.keys.load().without(name)));
        // A token that nobody may change can have lost it by other means.
        if !self.has(prefix, name)? {
            return Ok(());
        }
        let session = self.writing_session()?;
        // The working copy goes as well: it has the same label.
        for object in session.find_objects(&labelled(prefix, name))? {
            if given_up() {
                return too_late();
            }
            session.destroy_object(object)?;
        }
        if self.has(prefix, name)? {
            return Err(SetupError::Key(format!("key {name} is still in the token")));
        }
        Ok(())
    }

    fn check_value(&self, name: KeyName, context: &[u8]) -> Result<CheckValue, SetupError> {
        let control = self.control();
        CheckValue::make(&Operator { session: &control, keys: &self.keys.load() }, name, context)
    }
}

fn labelled(prefix: &str, name: KeyName) -> [Attribute; 1] {
    [Attribute::Label(name.label(prefix).into_bytes())]
}
