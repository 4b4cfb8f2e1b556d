//! Somebody who edits an audit log.

mod scene;
mod text;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use scene::{Scene, WAYS};
use text::meaning;

type Files = BTreeMap<String, Vec<u8>>;

/// A log in a directory, its files as they were, and another vault's log to take lines from.
pub struct Tamperer {
    dir: PathBuf,
    original: Files,
    foreign: Rc<Files>,
}

/// An edit that was made.
pub struct Edit {
    /// What was done, to which file.
    pub what: String,
    changed: Vec<String>,
}

impl Tamperer {
    /// Somebody who can write to the log in `dir`, and has the log of another vault.
    pub fn new(dir: &Path, foreign: &Path) -> Self {
        Self { dir: dir.to_owned(), original: read(dir), foreign: Rc::new(read(foreign)) }
    }

    /// Makes one edit in the directory, after which the log says something else.
    pub fn edit(&self, random: &mut fastrand::Rng) -> Edit {
        loop {
            let (name, way) = WAYS[random.usize(..WAYS.len())];
            let mut scene = Scene {
                files: self.original.clone(),
                foreign: Rc::clone(&self.foreign),
                random: random.fork(),
                at: String::new(),
            };
            let done = way(&mut scene);
            let Scene { files, at, .. } = scene;
            if done.is_none() || meaning(&files) == meaning(&self.original) {
                continue;
            }
            let names = self.original.keys().chain(files.keys());
            let mut changed: Vec<String> =
                names.filter(|name| self.original.get(*name) != files.get(*name)).cloned().collect();
            changed.dedup();
            for name in &changed {
                write(&self.dir.join(name), files.get(name));
            }
            return Edit { what: format!("{name}: {at}"), changed };
        }
    }

    /// Takes an edit back.
    pub fn undo(&self, edit: &Edit) {
        for name in &edit.changed {
            write(&self.dir.join(name), self.original.get(name));
        }
    }
}

fn read(dir: &Path) -> Files {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_name() != "keys.json");
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn write(path: &Path, bytes: Option<&Vec<u8>>) {
    match bytes {
        Some(bytes) => fs::write(path, bytes).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
}
