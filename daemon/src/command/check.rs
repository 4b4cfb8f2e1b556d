//! `vaultd check`: everything that is wrong, at once. Starts nothing and changes nothing.

use std::{fmt::Display, os::unix::fs::FileTypeExt, path::Path};

use zeroize::Zeroizing;

use super::{
    CommandError,
    boot::{hsm_settings, key_objections, module_environment, one_thread, unfinished_keys, with_advice},
    issuers::{load_one, objection},
    measure::{measure, recommended},
    peers,
};
use crate::{
    audit::Audit,
    config::Config,
    hsm::{
        self, Finding, Hsm, HsmError, KeyInfo, KeyName, OpenRequest, Operation, Purpose, SealRequest,
        SetupError,
    },
    sandbox::{
        allow_locked_memory, check_private_dir, check_private_file, check_unalterable_file, harden,
        lock_memory,
    },
    store::{OpenError, SCHEMA_VERSION, Store},
    vault::{inspect, last_signed},
};

/// How far a check goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Whether every record is opened and compared with indexes and census.
    pub deep: bool,
    /// Whether the token's trials, with keys that are not kept, and its speed are left out.
    pub quick: bool,
}

/// Checks the vault that the file at `path` describes; `say` is given a line for each finding.
///
/// # Errors
/// [`CommandError`] if anything is wrong; the lines say what.
pub fn check(path: &Path, options: CheckOptions, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    harden().map_err(|error| CommandError::new("cannot restrict the process", error))?;
    let mut report = Report { say, wrong: 0 };
    let config_file = check_unalterable_file(&config.path);
    report.result(format!("config {}", config.path.display()), config_file);
    config.warnings.iter().for_each(|warning| report.note(warning));
    if options.deep {
        // Every card is opened.
        allow_locked_memory();
        if let Err(why) = lock_memory() {
            report.note(format!("memory is not locked, and card data may be swapped to disk: {why}"));
        }
    }
    let has_pin = files(&config, &mut report);
    // Before the store starts its thread.
    let environment = module_environment(&config);
    let store = store(&config, &mut report);
    let is_served = matches!(store, Err(Closed::Served));
    let store = store.ok();
    let token = token(&config, has_pin, options.quick, environment, store.as_ref(), &mut report);
    let (hsm, settings) = token.unzip();
    if let Some(store) = &store {
        keys(hsm.as_ref(), store, &mut report);
        audit(&config, store, &mut report);
    }
    if options.deep && is_served {
        report.wrong("--deep looks at the records of a vault that is stopped: stop vaultd first");
    } else if options.deep {
        records(hsm.as_ref(), store.as_ref(), &mut report);
    }
    if let Some(store) = &store {
        store.close();
    }
    let measured_by = hsm.as_ref().and_then(|hsm| hsm.keys().ok()).and_then(newest_fingerprint);
    if let Some(hsm) = hsm {
        hsm.close();
    }
    match measured_by.zip(settings) {
        Some(_) if options.quick => {}
        // Whoever measures takes the token's time from those who serve.
        Some(_) if store.is_none() => {
            report.note("the token is not measured while vaultd runs, nor without a store");
        }
        Some((_, settings)) if settings.pin.is_none() => {
            report.note("the token is not measured: it could ask for its PIN at each of some logins");
        }
        Some((key, settings)) => speed(&settings, key, &mut report),
        None => {}
    }
    match report.wrong {
        0 => Ok(()),
        1 => Err(CommandError::Failed("1 thing is wrong".to_owned())),
        n => Err(CommandError::Failed(format!("{n} things are wrong"))),
    }
}

struct Report<'a> {
    say: &'a mut dyn FnMut(&str),
    wrong: usize,
}

impl Report<'_> {
    fn good(&mut self, what: impl Display) {
        (self.say)(&format!("ok    {what}"));
    }

    fn note(&mut self, what: impl Display) {
        (self.say)(&format!("note  {what}"));
    }

    fn wrong(&mut self, what: impl Display) {
        self.wrong += 1;
        (self.say)(&format!("WRONG {what}"));
    }

    /// Says what was found of a module; nothing comes back if it could not be asked.
    fn findings(&mut self, found: Result<Vec<Finding>, SetupError>) -> Option<()> {
        match found {
            Ok(findings) => {
                for finding in findings {
                    match finding {
                        Finding::Good(line) => self.good(line),
                        Finding::Note(line) => self.note(line),
                        Finding::Wrong(line) => self.wrong(line),
                    }
                }
                Some(())
            }
            Err(error) => {
                self.wrong(error);
                None
            }
        }
    }

    /// Says of a thing that it is good, or what is wrong with it.
    fn result<T, E: Display>(&mut self, what: impl Display, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.good(what);
                Some(value)
            }
            Err(error) => {
                self.wrong(error);
                None
            }
        }
    }
}

/// Files, directories and names; says whether the PIN can be read, or none is needed.
fn files(config: &Config, report: &mut Report<'_>) -> bool {
    let private = [("store.dir", &config.store.dir), ("audit.dir", &config.audit.dir)];
    for (key, path) in private {
        let checked = check_private_dir(path).map_err(|error| format!("{key}: {}", with_advice(&error)));
        report.result(format!("{key} {}", path.display()), checked);
    }
    let has_pin = config.hsm.pin_file.as_ref().is_none_or(|path| {
        let pin = check_private_file(path).map_err(|error| format!("hsm.pin_file: {error}"));
        report.result(format!("hsm.pin_file {}", path.display()), pin).is_some()
    });
    for issuer in &config.issuers {
        let loaded = load_one(issuer).map_err(|error| objection(&issuer.name, &issuer.keys, &error));
        report.result(format!("issuer {:?}, keys {}", issuer.name, issuer.keys.display()), loaded);
    }
    if let Err(error) = peers::resolve(config, None) {
        report.wrong(error);
    }
    if config.issuers.is_empty() && config.peers.is_empty() {
        report.note("neither issuers nor peers are configured: nobody can call this vault");
    }
    for socket in [&config.server.socket, &config.server.admin_socket] {
        let dir = socket.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !dir.is_dir() {
            report.wrong(format!("the socket {} has no directory to be in: make it", socket.path.display()));
        }
        let found = std::fs::symlink_metadata(&socket.path);
        if found.is_ok_and(|found| !found.file_type().is_socket()) {
            report.wrong(format!("{} exists and is not a socket: move it away", socket.path.display()));
        }
    }
    has_pin
}

/// Whether the audit log goes as far as the store remembers.
fn audit(config: &Config, store: &Store, report: &mut Report<'_>) {
    let dir = &config.audit.dir;
    let inspected = last_signed(store)
        .map_err(|error| error.to_string())
        .and_then(|mark| Audit::inspect(dir, &store.vault_id(), mark).map_err(|error| error.to_string()));
    let inspected = inspected.map_err(|error| format!("audit.dir: {error}"));
    report.result("audit log, from the last checkpoint on".to_owned(), inspected);
}

/// The token and its keys, if they can be used, and how they were reached.
fn token(
    config: &Config,
    has_pin: bool,
    quick: bool,
    environment: Result<(), SetupError>,
    store: Option<&Store>,
    report: &mut Report<'_>,
) -> Option<(Hsm, hsm::Settings)> {
    if let Err(error) = environment {
        report.wrong(error);
        return None;
    }
    report.findings(hsm::examine(&config.hsm.library, &config.hsm.token))?;
    if !has_pin {
        report.note("the keys are not looked at without the PIN");
        return None;
    }
    let unfinished = store.map(unfinished_keys).transpose();
    let settings = unfinished.and_then(|unfinished| hsm_settings(config, unfinished.unwrap_or_default()));
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            report.wrong(error);
            return None;
        }
    };
    // A PIN that is refused is not tried again.
    if !quick {
        report.findings(hsm::rehearse(&settings))?;
    }
    let hsm = match Hsm::open(&settings) {
        Ok(hsm) => hsm,
        Err(error) => {
            report.wrong(error);
            return None;
        }
    };
    let found = report.result("the keys can be used", hsm.keys()).unwrap_or_default();
    for key in &found {
        report.good(format!("key {}: made in the token, sensitive, not extractable", key.name));
    }
    for purpose in Purpose::ALL {
        // That there is one is for the comparison with the store to say.
        let newest = found.iter().map(|key| key.name).filter(|name| name.purpose == purpose).max();
        if let Some(Err(error)) = newest.map(|key| try_key(&hsm, key)) {
            report.wrong(format!("a trial of the newest {purpose} key failed: {error}"));
        }
    }
    Some((hsm, settings))
}

/// Why the store is not looked into; it was said.
enum Closed {
    /// A vaultd that runs has it open.
    Served,
    /// Something else.
    Unusable,
}

/// The store, if nobody else has it open.
fn store(config: &Config, report: &mut Report<'_>) -> Result<Store, Closed> {
    match Store::open_as_it_is(&config.store.dir, config.store.cache_bytes, config.store.queue) {
        Ok(store) => {
            report.good(format!("store {}", store.path().display()));
            match store.schema() {
                Ok(SCHEMA_VERSION) => {}
                Ok(found) => report.note(format!(
                    "the store has schema {found}: `vaultd serve` brings it to schema {SCHEMA_VERSION}, which an older \
                     vaultd does not open"
                )),
                Err(error) => report.wrong(error),
            }
            Ok(store)
        }
        Err(error @ OpenError::OlderSchema { .. }) => {
            report.note(format!(
                "{error}, which an older vaultd does not open, and nothing more of it was looked at"
            ));
            Err(Closed::Unusable)
        }
        Err(OpenError::InUse(path)) => {
            report.note(format!("store {} is in use by a running vaultd: not looked into", path.display()));
            Err(Closed::Served)
        }
        Err(error) => {
            report.wrong(error);
            Err(Closed::Unusable)
        }
    }
}

/// Whether the keys of `hsm` belong to the store.
fn keys(hsm: Option<&Hsm>, store: &Store, report: &mut Report<'_>) {
    match hsm.map(|hsm| key_objections(hsm, store)) {
        None => report.note("whether the keys belong to this store is not known without the token"),
        Some(Ok(objections)) if objections.is_empty() => report.good("keys and store belong together"),
        Some(Ok(objections)) => objections.iter().for_each(|objection| report.wrong(objection)),
        Some(Err(error)) => report.wrong(error),
    }
}

/// Every record, in the token and in the indexes.
fn records(hsm: Option<&Hsm>, store: Option<&Store>, report: &mut Report<'_>) {
    let Some((hsm, store)) = hsm.zip(store) else {
        report.wrong("the records cannot be looked at without token and store");
        return;
    };
    let looked = one_thread().and_then(|runtime| Ok(runtime.block_on(inspect(hsm, store))?));
    match looked {
        Ok(found) if found.wrong.is_empty() => {
            report.good(format!("{} records: each opens, and indexes and census agree", found.records));
        }
        Ok(found) => found.wrong.iter().for_each(|(what, times)| report.wrong(format!("{times} {what}"))),
        Err(error) => report.wrong(error),
    }
}

fn newest_fingerprint(keys: Vec<KeyInfo>) -> Option<KeyName> {
    keys.into_iter().map(|key| key.name).filter(|name| name.purpose == Purpose::Fingerprint).max()
}

/// How fast the token is, and how many sessions suit it.
fn speed(settings: &hsm::Settings, key: KeyName, report: &mut Report<'_>) {
    let measured = match measure(settings, key) {
        Ok(measured) => measured,
        Err(error) => return report.wrong(format!("the token cannot be measured: {error}")),
    };
    let rates: Vec<_> =
        measured.iter().map(|one| format!("{:.0}/s with {}", one.rate, one.sessions)).collect();
    report.good(format!("HMAC operations by sessions: {}", rates.join(", ")));
    if let Some(best) = recommended(&measured) {
        let is = settings.sessions;
        let advice = if best == is { "leave it" } else { "change it" };
        report.note(format!("hsm.sessions is {is}, and {best} suits this token: {advice}"));
    }
}

/// One real operation with `key`.
fn try_key(hsm: &Hsm, key: KeyName) -> Result<(), CommandError> {
    const TEXT: &[u8] = b"vaultd check";
    let tried = one_thread()?.block_on(async {
        match key.purpose.operation() {
            Operation::Seal => {
                let request =
                    SealRequest { key, aad: TEXT.to_vec(), plaintext: Zeroizing::new(TEXT.to_vec()) };
                let sealed = hsm.seal(vec![request]).await?;
                let requests =
                    sealed.into_iter().map(|sealed| OpenRequest { key, aad: TEXT.to_vec(), sealed });
                let opened = hsm.open_sealed(requests.collect()).await?;
                match opened.first() {
                    Some(Some(text)) if text.as_slice() == TEXT => Ok(()),
                    _ => Err(HsmError::Unavailable("what was sealed does not open".to_owned())),
                }
            }
            Operation::Mac => {
                let message = || Zeroizing::new(TEXT.to_vec());
                let macs = hsm.mac(key, vec![message(), message()]).await?;
                match macs.as_slice() {
                    [first, second] if first == second => Ok(()),
                    _ => Err(HsmError::Unavailable("the same message has two MACs".to_owned())),
                }
            }
            Operation::Sign => hsm.sign(key, TEXT.to_vec()).await.map(drop),
        }
    });
    Ok(tried?)
}
