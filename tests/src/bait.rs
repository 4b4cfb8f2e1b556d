//! What a hostile module is tempted with, and whether it was touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixListener,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Files, a process and a socket of the user whom the hostile module runs as, all of them none of its business.
pub struct Bait {
    dir: TempDir,
    victim: Child,
    socket: UnixListener,
    before: BTreeMap<PathBuf, String>,
}

impl Bait {
    /// Bait of the user and group `owner`. Making it another's than one's own takes root.
    pub fn of(owner: (u32, u32)) -> Self {
        let dir = tempfile::Builder::new().prefix("bait").tempdir_in("/tmp").unwrap();
        for name in ["secret", "precious"] {
            fs::write(dir.path().join(name), "none of its business").unwrap();
        }
        fs::create_dir(dir.path().join("empty")).unwrap();
        let socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        socket.set_nonblocking(true).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            give(&entry.unwrap().path(), owner);
        }
        give(dir.path(), owner);
        let mut victim = Command::new("sleep");
        victim.arg("600").stdin(Stdio::null()).uid(owner.0).gid(owner.1);
        let before = look(dir.path());
        Self { victim: victim.spawn().unwrap(), dir, socket, before }
    }

    /// An order for the module, of which `{outside}` becomes the bait's directory, `{name}` its name, `{inside}` the given one, `{pid}`
    /// and `{address}` those of a process, and of a word on its stack.
    pub fn order(&self, order: &str, inside: &Path) -> String {
        let pid = self.victim.id();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let end = stack.split(['-', ' ']).nth(1).unwrap();
        let address = u64::from_str_radix(end, 16).unwrap() - 8;
        order
            .replace("{outside}", self.dir.path().to_str().unwrap())
            .replace("{name}", self.name())
            .replace("{inside}", inside.to_str().unwrap())
            .replace("{pid}", &pid.to_string())
            .replace("{address}", &address.to_string())
    }

    fn name(&self) -> &str {
        self.dir.path().file_name().unwrap().to_str().unwrap()
    }

    /// A file that would be another's work, if it were there.
    fn in_etc(&self) -> PathBuf {
        Path::new("/etc").join(self.name())
    }

    /// What became of it; empty if nothing did.
    pub fn harm(&mut self) -> Vec<String> {
        let mut harm = Vec::new();
        let after = look(self.dir.path());
        for path in self.before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            let (before, after) = (self.before.get(path), after.get(path));
            if before != after {
                harm.push(format!("{}: {before:?} became {after:?}", path.display()));
            }
        }
        if let Some(status) = self.victim.try_wait().unwrap() {
            harm.push(format!("the victim: {status}"));
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.victim.id())).unwrap_or_default();
        if limits.lines().any(|line| line.starts_with("Max open files") && line.contains(" 0 ")) {
            harm.push("the victim has no files left".to_owned());
        }
        if self.in_etc().exists() {
            harm.push(format!("{} is there", self.in_etc().display()));
        }
        if self.socket.accept().is_ok() {
            harm.push("somebody connected".to_owned());
        }
        harm
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.in_etc());
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// File permissions shall not be what keeps the module away.
fn give(path: &Path, owner: (u32, u32)) {
    chown(path, Some(owner.0), Some(owner.1)).unwrap();
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Everything about each file that could change.
fn look(dir: &Path) -> BTreeMap<PathBuf, String> {
    let all = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let (links, owner, group) = (found.nlink(), found.uid(), found.gid());
        let about = format!(
            "{:o} {links} {owner}:{group} {}.{} {text}",
            found.mode(),
            found.ctime(),
            found.ctime_nsec()
        );
        (path, about)
    });
    all.collect()
}
