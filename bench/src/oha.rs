//! A second pair of eyes: the same ratio by `oha`, a load generator that is not ours.
//!
//! It costs more CPU a request than [`crate::load`] on both sides of the ratio, so its rates are lower; its
//! ratio should tell the same story. The JWT stands in its argument list: it is a development vault's, gone a
//! minute later.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{connection::Target, load::Route};

/// Request bodies that oha is given: it reads all of them first.
pub(crate) const MAX_BODIES: usize = 10_000;

/// The program and its input.
#[derive(Debug)]
pub(crate) struct Oha {
    program: PathBuf,
    /// Request bodies, one a line.
    bodies: PathBuf,
}

impl Oha {
    /// The first `oha` on the path or in `target/tools/bin`; its bodies will lie in `dir`.
    pub(crate) fn find(dir: &Path) -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places = env::split_paths(&path).chain([PathBuf::from("target/tools/bin")]);
        let program = places.find_map(|place| Some(place.join("oha")).filter(|program| program.is_file()));
        let program = program.context("no oha on PATH or in target/tools/bin: cargo install --locked oha")?;
        Ok(Self { program, bodies: dir.join("bodies") })
    }

    /// Sets what is sent.
    pub(crate) fn write_bodies(&self, bodies: impl Iterator<Item = String>) -> Result<()> {
        let mut file = BufWriter::new(File::create(&self.bodies).context("making oha's bodies")?);
        for body in bodies {
            writeln!(file, "{body}")?;
        }
        file.flush().context("writing oha's bodies")
    }

    /// Requests a second.
    pub(crate) fn sample(&self, target: &Target, route: Route, time: Duration) -> Result<f64> {
        let output = Command::new(&self.program)
            .args(["--no-tui", "--output-format", "json", "--no-color", "-m", "POST"])
            .arg("--unix-socket")
            .arg(&target.socket)
            .args(["-c", &route.connections.to_string()])
            .args(["-z", &format!("{}ms", time.as_millis())])
            .args(["-T", "application/json"])
            .args(target.jwt.iter().flat_map(|jwt| ["-H".to_owned(), format!("authorization: Bearer {jwt}")]))
            .arg("-Z")
            .arg(&self.bodies)
            .arg(format!("http://localhost{}", route.path))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("running {}", self.program.display()))?;
        ensure!(output.status.success(), "oha ended with {}", output.status);
        let answer: Answer = serde_json::from_slice(&output.stdout).context("reading oha's answer")?;
        let statuses = answer.status_code_distribution;
        let right = statuses.len() == 1 && statuses.contains_key(&route.expected.to_string());
        ensure!(right, "oha saw {statuses:?} where {} is right", route.expected);
        Ok(answer.summary.requests_per_sec)
    }
}

/// The part of oha's JSON that matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    summary: Summary,
    status_code_distribution: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    requests_per_sec: f64,
}
