//! Disks that are full on command.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Vault, not_run};

/// A small file system of its own in the place of a directory. It goes when this is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts the directory `dir` of a vault that is stopped on a disk of `kib` KiB. Only root may; `None` says why not.
    pub fn under(dir: &Path, kib: u32) -> Option<Self> {
        let kept = dir.with_extension("kept");
        fs::rename(dir, &kept).unwrap();
        fs::create_dir(dir).unwrap();
        let size = format!("size={kib}k,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir).output();
        if !mounted.unwrap().status.success() {
            not_run("only root can make a disk that is full");
            return None;
        }
        let disk = Self(dir.to_owned());
        let files = kept.join(".");
        assert!(Command::new("cp").arg("-a").args([&files, dir]).status().unwrap().success());
        Some(disk)
    }

    /// Fills it.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

impl Vault {
    /// Sets a limit of the running daemon by `prlimit`, such as `--fsize=4096`: how a disk is full, or memory at its end, for
    /// this process only. A soft limit alone, written `SOFT:`, can be lifted again.
    pub fn limit(&self, limit: &str) {
        let limited = Command::new("prlimit").args(["--pid", &self.pid().to_string(), limit]).status();
        assert!(limited.unwrap().success(), "{limit}");
    }

    /// How many files, sockets and so on the daemon has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// A field of `/proc/PID/status` in KiB, such as `VmRSS`; 0 if the daemon has ended.
    pub fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }
}
