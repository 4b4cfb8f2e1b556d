//! A disk as it is at one moment of a record, and what a power failure leaves of it.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use super::{Trace, file::File, trace::Change};

/// What a power failure leaves of that which is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Durable,
    /// All: it was only the program that ended.
    All,
    /// All up to a moment, another one for each file.
    Beginning,
    /// Any sectors, any names.
    Sectors,
}

impl Left {
    /// Each once.
    pub const EACH: [Self; 4] = [Self::Durable, Self::All, Self::Beginning, Self::Sectors];

    /// One by chance; the last, which is the worst, more often.
    pub fn any(random: &mut fastrand::Rng) -> Self {
        random.choice([Self::EACH.as_slice(), &[Self::Sectors; 2]].concat()).unwrap()
    }
}

/// The number of a file, never used again.
type FileId = usize;

/// Names that changed at once: what each leads to from then on.
type Names = Vec<(PathBuf, Option<FileId>)>;

/// A directory.
#[derive(Clone, Debug, Default)]
struct Dir {
    durable: BTreeMap<PathBuf, FileId>,
    pending: Vec<Names>,
    syncs: BTreeMap<u64, usize>,
}

/// Directories and the files in them.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    dirs: BTreeMap<PathBuf, Dir>,
    file_of: HashMap<u64, FileId>,
    dir_of: HashMap<u64, PathBuf>,
    applied: usize,
}

impl Disk {
    /// Does what was done up to the change number `point` of `trace`, and has not been done yet.
    pub fn advance(&mut self, trace: &Trace, point: usize) {
        while self.applied < point {
            self.apply(&trace.changes[self.applied].1);
            self.applied += 1;
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Opened { ino, is_dir: true, path, .. } => {
                self.dir_of.insert(*ino, path.clone());
                self.dirs.entry(path.clone()).or_default();
            }
            Change::Opened { ino, is_new, path, .. } => {
                if *is_new {
                    let id = self.files.len();
                    self.files.push(File::default());
                    self.file_of.insert(*ino, id);
                    self.name(vec![(path.clone(), Some(id))]);
                }
                assert!(self.file_of.contains_key(ino), "{} was there before", path.display());
            }
            Change::Written { ino, offset, bytes } => self.file(*ino).write(*offset, bytes.clone()),
            Change::Resized { ino, len } => self.file(*ino).resize(*len),
            Change::SyncBegins { ino, number } => match self.dir_of.get(ino) {
                Some(path) => {
                    let dir = self.dirs.get_mut(path).unwrap();
                    dir.syncs.insert(*number, dir.pending.len());
                }
                None => self.file(*ino).sync_begins(*number),
            },
            Change::Synced { ino, number } => match self.dir_of.get(ino) {
                Some(path) => self.dirs.get_mut(path).unwrap().synced(*number),
                None => self.file(*ino).synced(*number),
            },
            Change::Renamed { from, to } => {
                let names = self.dir(from).names(usize::MAX, |_| true);
                let id = names[from];
                self.name(vec![(to.clone(), Some(id)), (from.clone(), None)]);
            }
            Change::Removed { path } => self.name(vec![(path.clone(), None)]),
        }
    }

    /// What a power failure leaves, by path.
    pub fn left(&self, left: Left, random: &mut fastrand::Rng) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut content = BTreeMap::new();
        for dir in self.dirs.values() {
            let names = match left {
                Left::Durable => dir.durable.clone(),
                Left::All => dir.names(usize::MAX, |_| true),
                Left::Beginning => dir.names(random.usize(..=dir.pending.len()), |_| true),
                Left::Sectors => dir.names(usize::MAX, |_| random.bool()),
            };
            for (path, id) in names {
                content.insert(path, self.files[id].left(left, random));
            }
        }
        content
    }

    /// Makes the directories as a power failure leaves them.
    pub fn restore(&self, left: Left, random: &mut fastrand::Rng) {
        for dir in self.dirs.keys() {
            for entry in fs::read_dir(dir).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
        for (path, bytes) in self.left(left, random) {
            fs::write(path, bytes).unwrap();
        }
    }

    /// The content of `path` as a program sees it now; `None` if there is no such file.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let id = *self.dir(path).names(usize::MAX, |_| true).get(path)?;
        Some(self.files[id].left(Left::All, &mut fastrand::Rng::with_seed(0)))
    }

    fn file(&mut self, ino: u64) -> &mut File {
        let id = self.file_of[&ino];
        &mut self.files[id]
    }

    fn dir(&self, path: &Path) -> &Dir {
        static NONE: Dir = Dir { durable: BTreeMap::new(), pending: Vec::new(), syncs: BTreeMap::new() };
        self.dirs.get(path.parent().unwrap()).unwrap_or(&NONE)
    }

    fn name(&mut self, names: Names) {
        let dir = names[0].0.parent().unwrap().to_owned();
        self.dirs.entry(dir).or_default().pending.push(names);
    }
}

impl Dir {
    fn synced(&mut self, number: u64) {
        let covered = self.syncs.remove(&number).unwrap();
        self.durable = self.names(covered, |_| true);
        self.pending.drain(..covered);
        for other in self.syncs.values_mut() {
            *other = other.saturating_sub(covered);
        }
    }

    /// The names after those of the first `kept` changes that `is_kept` picks.
    fn names(&self, kept: usize, mut is_kept: impl FnMut(&Names) -> bool) -> BTreeMap<PathBuf, FileId> {
        let mut names = self.durable.clone();
        for change in self.pending.iter().take(kept).filter(|change| is_kept(change)) {
            for (path, id) in change {
                match id {
                    Some(id) => names.insert(path.clone(), *id),
                    None => names.remove(path),
                };
            }
        }
        names
    }
}
