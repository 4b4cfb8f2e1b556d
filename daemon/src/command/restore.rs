//! `vaultd restore`: makes a store from a backup, or says whether that could be done.
//!
//! What is half done has another name, so there is no store or a whole one.

use std::{
    fs::{self, File},
    io::BufReader,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use super::{
    CommandError,
    backup::is_nobody,
    boot::{hsm_settings, module_environment, one_thread},
    draft::{move_into_place, move_over},
    progress::bytes_bar,
    restore_keys::KeyPlan,
};
use crate::{
    audit::{Audit, Event, OpenError as LogError},
    backup::{BackupError, Header, Locked, Unlocked},
    config::Config,
    hsm::Hsm,
    sandbox::{harden, make_private_dir},
    store::{Importer, OpenError, Store, StoredKey},
    vault::{last_signed, remember},
};

/// Where a store is made before it gets its name.
const DRAFT_DIR: &str = "restoring";

/// What `vaultd restore` is to do.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The backup.
    pub from: PathBuf,
    /// Whether it is only to be found out if it could be restored.
    pub check: bool,
}

/// Restores the store of the vault that the file at `path` describes; `say` is told what was done.
///
/// # Errors
/// [`CommandError`]; then there is no more of a store than before.
pub fn restore(path: &Path, options: &RestoreOptions, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    harden().map_err(|error| CommandError::new("cannot restrict the process", error))?;
    // Before a store starts its thread.
    module_environment(&config)?;
    let place = if options.check { None } else { Some(Place::find(&config)?) };
    let wrong = |error: BackupError| CommandError::Failed(complaint(&options.from, &error));
    let file = File::open(&options.from).map_err(|error| wrong(error.into()))?;
    let bar = bytes_bar(file.metadata().map_err(|error| wrong(error.into()))?.len());
    let locked = Locked::read(BufReader::new(bar.wrap_read(file))).map_err(wrong)?;
    let hsm = Open(Hsm::open(&hsm_settings(&config, Vec::new())?)?);
    let unlocked = one_thread()?.block_on(locked.unlock(&hsm.0)).map_err(wrong)?;
    let done = match &place {
        None => check(unlocked, &hsm.0, wrong),
        Some(place) => {
            let dir = config.store.dir.join(DRAFT_DIR);
            let made = into(&config, &dir, place, unlocked, &hsm.0, wrong);
            // Nothing where it is whole and has its name.
            let _ = fs::remove_dir_all(&dir);
            made
        }
    };
    bar.finish_and_clear();
    let (header, lines) = done?;
    let (verb, time) = (if options.check { "can be restored" } else { "restored" }, header.time);
    say(&format!("{verb}: {}, as of {time}", header.summary()));
    for line in &lines {
        say(line);
    }
    Ok(())
}

/// Closed however the command ends.
struct Open(Hsm);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn complaint(from: &Path, error: &BackupError) -> String {
    let advice = match error {
        BackupError::NotABackup | BackupError::Io(_) => "give the file that `vaultd backup` has written",
        BackupError::NoKey(_) | BackupError::OtherVault(_) => {
            "nothing was restored: give the vault's own token, or correct [hsm]"
        }
        BackupError::Format(_)
        | BackupError::Schema(_)
        | BackupError::Hsm(_)
        | BackupError::Setup(_)
        | BackupError::Store(_) => "nothing was restored",
        _ => "nothing was restored: take another copy of it, or an earlier backup",
    };
    format!("{}: {error}; {advice}", from.display())
}

/// Where the store is to be.
struct Place {
    path: PathBuf,
    /// A store without records, as `vaultd init` makes one. As long as it is open no vaultd can serve it.
    empty: Option<Store>,
}

impl Place {
    /// The place that `config` names, unless a store with records is there, or somebody serves.
    fn find(config: &Config) -> Result<Self, CommandError> {
        let (path, socket) = (Store::file(&config.store.dir), &config.server.admin_socket.path);
        let refused = |what: &str| {
            Err(CommandError::Failed(format!(
                "{what}, and a restore replaces none: stop vaultd, and move {} away",
                path.display()
            )))
        };
        let empty = match Store::open(&config.store.dir, config.store.cache_bytes, config.store.queue) {
            Err(OpenError::Missing(_)) => None,
            Err(OpenError::InUse(_)) => return refused("there is a store in use"),
            Err(error) => return refused(&format!("there is a store that does not open ({error})")),
            Ok(store) => Some(store),
        };
        let place = Self { path: path.clone(), empty };
        let records = place.empty.as_ref().map_or(Ok(0), Store::records)?;
        if records > 0 {
            return refused(&format!("there is a store with {records} records"));
        }
        match UnixStream::connect(socket) {
            Err(error) if is_nobody(&error) => Ok(place),
            _ => Err(CommandError::Failed(format!(
                "somebody serves on {}: stop vaultd, and the sockets that systemd has opened for it",
                socket.display()
            ))),
        }
    }

    /// Gives the store `made` its name.
    fn take(&self, made: &Path) -> Result<(), CommandError> {
        let moved = match self.empty {
            Some(_) => move_over(made, &self.path),
            None => move_into_place(made, &self.path),
        };
        moved.map_err(|error| CommandError::new(&self.path.display().to_string(), error))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(empty) = &self.empty {
            empty.close();
        }
    }
}

/// What was done, and what is worth knowing of it.
type Done = Result<(Header, Vec<String>), CommandError>;

/// Reads the whole backup and changes nothing.
fn check(
    unlocked: Unlocked<impl std::io::Read>,
    hsm: &Hsm,
    wrong: impl Fn(BackupError) -> CommandError,
) -> Done {
    let mut recorded = Vec::new();
    let header = unlocked.read_rows(|row| {
        recorded.extend(row.as_key()?);
        Ok(())
    });
    let header = header.map_err(wrong)?;
    let lines = plan(&header, &recorded, hsm)?.lines();
    Ok((header, lines))
}

/// Makes the store in `dir`, and gives it its name.
fn into(
    config: &Config,
    dir: &Path,
    place: &Place,
    unlocked: Unlocked<impl std::io::Read>,
    hsm: &Hsm,
    wrong: impl Fn(BackupError) -> CommandError,
) -> Done {
    make_private_dir(&config.store.dir).map_err(|error| CommandError::new("store.dir", error))?;
    make_private_dir(&config.audit.dir).map_err(|error| CommandError::new("audit.dir", error))?;
    clear(dir)?;
    make_private_dir(dir).map_err(|error| CommandError::new("store.dir", error))?;
    let mut importer = Importer::create(dir, config.store.cache_bytes)?;
    let mut recorded = Vec::new();
    let header = unlocked.read_rows(|row| {
        recorded.extend(row.as_key()?);
        Ok(importer.add(row)?)
    });
    let header = header.map_err(wrong)?;
    importer.finish()?;
    let plan = plan(&header, &recorded, hsm)?;
    let store = Store::open(dir, config.store.cache_bytes, config.store.queue)?;
    let settled = settle(config, &store, &header, &plan, hsm);
    store.close();
    drop(store);
    let mut lines = plan.lines();
    lines.extend(settled?);
    place.take(&Store::file(dir))?;
    lines.push(format!("next: `vaultd check --config {}`, then start vaultd", config.path.display()));
    Ok((header, lines))
}

/// Removes what a restore has left that was cut short.
fn clear(dir: &Path) -> Result<(), CommandError> {
    if let Err(error @ OpenError::InUse(_)) = Store::open(dir, 1 << 20, 1).map(|store| store.close()) {
        return Err(CommandError::new("another restore is on its way", error));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CommandError::new(&dir.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

fn plan(header: &Header, recorded: &[(String, StoredKey)], hsm: &Hsm) -> Result<KeyPlan, CommandError> {
    let vault_id = header.vault_id().ok_or_else(|| CommandError::Failed(BackupError::Header.to_string()))?;
    KeyPlan::new(recorded, &vault_id, hsm)
}

/// Brings the keys of the restored `store` up to date, and tells the audit log. Gives what is worth knowing.
fn settle(
    config: &Config,
    store: &Store,
    header: &Header,
    plan: &KeyPlan,
    hsm: &Hsm,
) -> Result<Vec<String>, CommandError> {
    if header.vault_id() != Some(store.vault_id()) {
        return Err(CommandError::Failed(
            "the backup holds the store of another vault than it says".to_owned(),
        ));
    }
    let runtime = one_thread()?;
    let mut lines = runtime.block_on(plan.carry_out(config, store, hsm))?;
    if let Some(mark) = header.audit.mark() {
        // The log went as far as this, which may be further than the last line that was signed.
        runtime.block_on(remember(store, mark))?;
    }
    let detail = format!("a backup of {}: {}", header.time, header.summary());
    match Audit::open(config.audit.clone(), &store.vault_id(), last_signed(store)?) {
        Ok(audit) => {
            audit.event(&Event { event: "restore", detail: Some(&detail), ..Event::default() });
            let written = runtime.block_on(audit.probe());
            audit.close();
            written.map_err(|error| CommandError::new("the audit log", error))?;
        }
        Err(LogError::Damaged(why)) => lines.push(format!(
            "the audit log does not go as far as the backup ({why}): put back what was there, or accept the loss on the \
             record with `vaultd audit resume`, before vaultd is started"
        )),
        Err(error) => return Err(CommandError::new("audit.dir", error)),
    }
    Ok(lines)
}
