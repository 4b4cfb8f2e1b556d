//! The machine a run was made on: figures without it mean nothing.

use std::{fs, path::Path, thread};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// What there is to know about it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The file system below the stores.
    pub(crate) filesystem: String,
    /// Load averages over 1, 5 and 15 minutes when the run began: a busy machine measures badly.
    pub(crate) load: String,
}

impl Machine {
    /// This machine, with the data in `dir`, which must be on a disk.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let cpu = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name.trim());
        let filesystem = filesystem(dir)?;
        ensure!(
            !matches!(filesystem.as_str(), "tmpfs" | "ramfs"),
            "{} is on {filesystem}, where a durable commit costs nothing: give --out on a disk",
            dir.display()
        );
        Ok(Self {
            cpu: cpu.to_owned(),
            cores: thread::available_parallelism().context("counting cores")?.get(),
            kernel: first_words("/proc/sys/kernel/osrelease", 1)?,
            filesystem,
            load: first_words("/proc/loadavg", 3)?,
        })
    }
}

/// The type of the file system that holds `dir`: of the deepest mount point above it, the last one mounted
/// there.
fn filesystem(dir: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let mut best = (0, "unknown");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else { continue };
        if dir.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), kind);
        }
    }
    Ok(best.1.to_owned())
}

fn first_words(file: &str, count: usize) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    Ok(text.split_whitespace().take(count).collect::<Vec<_>>().join(" "))
}
