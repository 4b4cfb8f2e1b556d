//! `vaultd restore`: makes a store from a backup, or says whether that could be done.
//!
//! What is half done has another name, so there is no store or a whole one.

use std::{
    fs::{self, File, TryLockError},
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
        Some(place) => into(&config, place, unlocked, &hsm.0, wrong),
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
        let empty =
            match Store::open_as_it_is(&config.store.dir, config.store.cache_bytes, config.store.queue) {
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

/// Where a store is made: nobody else makes one there meanwhile, and it goes when it is dropped.
struct DraftDir {
    dir: PathBuf,
    _lock: File,
}

impl DraftDir {
    /// Takes the place in `store_dir`, and removes what a restore has left that was cut short.
    fn begin(store_dir: &Path) -> Result<Self, CommandError> {
        let failed = |path: &Path, error| CommandError::new(&path.display().to_string(), error);
        // Of the directory that stays: one on what is removed would keep nobody out.
        let lock = File::open(store_dir).map_err(|error| failed(store_dir, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CommandError::Failed(format!(
                    "another restore is on its way in {}: wait for it, or end it",
                    store_dir.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(store_dir, error)),
        }
        let dir = store_dir.join(DRAFT_DIR);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&dir, error)),
            _ => {}
        }
        make_private_dir(&dir).map_err(|error| CommandError::new("store.dir", error))?;
        Ok(Self { dir, _lock: lock })
    }
}

impl Drop for DraftDir {
    fn drop(&mut self) {
        // A store that is whole is elsewhere by now.
        let _ = fs::remove_dir_all(&self.dir);
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

/// Makes the store beside where it is to be, and gives it its name.
fn into(
    config: &Config,
    place: &Place,
    unlocked: Unlocked<impl std::io::Read>,
    hsm: &Hsm,
    wrong: impl Fn(BackupError) -> CommandError,
) -> Done {
    make_private_dir(&config.store.dir).map_err(|error| CommandError::new("store.dir", error))?;
    make_private_dir(&config.audit.dir).map_err(|error| CommandError::new("audit.dir", error))?;
    let draft = DraftDir::begin(&config.store.dir)?;
    let mut importer = Importer::create(&draft.dir, config.store.cache_bytes)?;
    let mut recorded = Vec::new();
    let header = unlocked.read_rows(|row| {
        recorded.extend(row.as_key()?);
        Ok(importer.add(row)?)
    });
    let header = header.map_err(wrong)?;
    importer.finish()?;
    let plan = plan(&header, &recorded, hsm)?;
    let store = Store::open(&draft.dir, config.store.cache_bytes, config.store.queue)?;
    let settled = settle(config, &store, &header, &plan, hsm).and_then(|lines| {
        Ok((lines, Audit::open(config.audit.clone(), &store.vault_id(), last_signed(&store)?)))
    });
    store.close();
    drop(store);
    let (settled, audit) = settled?;
    let mut lines = plan.lines();
    lines.extend(settled);
    let take = || place.take(&Store::file(&draft.dir));
    match audit {
        Ok(audit) => {
            let taken = on_record(&audit, &header, take);
            audit.close();
            taken?;
        }
        Err(LogError::Damaged(why)) => {
            take()?;
            lines.push(format!(
                "the audit log does not go as far as the backup ({why}): put back what was there, or accept the loss on \
                 the record with `vaultd audit resume`, before vaultd is started"
            ));
        }
        Err(error) => return Err(CommandError::new("audit.dir", error)),
    }
    lines.push(format!("next: `vaultd check --config {}`, then start vaultd", config.path.display()));
    Ok((header, lines))
}

/// Tells the audit log before the restored store gets its name by `take`, so that none is in service unseen; and, if that
/// fails, that it has not.
fn on_record(
    audit: &Audit,
    header: &Header,
    take: impl FnOnce() -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let runtime = one_thread()?;
    let tell = |detail: &str| {
        audit.event(&Event { event: "restore", detail: Some(detail), ..Event::default() });
        runtime.block_on(audit.probe()).map_err(|error| CommandError::new("the audit log", error))
    };
    tell(&format!("a backup of {}: {}", header.time, header.summary()))?;
    let taken = take();
    if let Err(error) = &taken {
        // What is wrong with the log as well is of no use to whom it is told.
        let _ = tell(&format!("failed: {error}"));
    }
    taken
}

fn plan(header: &Header, recorded: &[(String, StoredKey)], hsm: &Hsm) -> Result<KeyPlan, CommandError> {
    let vault_id = header.vault_id().ok_or_else(|| CommandError::Failed(BackupError::Header.to_string()))?;
    KeyPlan::new(recorded, &vault_id, hsm)
}

/// Brings the keys of the restored `store` up to date. Gives what is worth knowing.
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
    let lines = runtime.block_on(plan.carry_out(config, store, hsm))?;
    if let Some(mark) = header.audit.mark() {
        // The log went as far as this, which may be further than the last line that was signed.
        runtime.block_on(remember(store, mark))?;
    }
    Ok(lines)
}
