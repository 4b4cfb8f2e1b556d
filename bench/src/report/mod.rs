//! What is written at the end of a run: the tables, and the file with everything behind them.

mod beside;
mod budget;
mod json;
mod row;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::row::Row;
use crate::{
    Options,
    goal::Met,
    number::{float, grouped},
    run::Findings,
};

/// A run, ready to be read.
#[derive(Debug)]
pub(crate) struct Report {
    head: String,
    tables: Vec<(&'static str, Vec<Row>)>,
    json: Value,
    at: Timestamp,
}

impl Report {
    /// The report of `findings`.
    pub(crate) fn new(findings: &Findings, options: &Options, seed: u64) -> Self {
        let at = Timestamp::now();
        let mut tables = vec![("the budget", budget::rows(findings))];
        if let Some(sampled) = &findings.sampled {
            tables.push(("for orientation", budget::peer(sampled)));
            tables.extend(
                sampled.alternatives.as_ref().map(|found| ("the alternatives", beside::alternatives(found))),
            );
        }
        tables.push(("besides", beside::rows(findings)));
        tables.retain(|(_, rows)| !rows.is_empty());
        let mut json = json::all(findings);
        json["at"] = json!(at.to_string());
        json["run"] = json!({
            "seed": seed,
            "samples": options.samples(),
            "seconds": options.time().as_secs_f64(),
            "cache_mib": options.cache_mib,
        });
        json["tables"] = json!(tables);
        Self { head: head(findings, options, seed, at), tables, json, at }
    }

    /// Writes the tables.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.head)?;
        for (title, rows) in &self.tables {
            row::print(out, title, rows)?;
        }
        let judged = || self.tables.iter().flat_map(|(_, rows)| rows).filter_map(|row| row.met);
        let met = judged().filter(|met| *met != Met::No).count();
        writeln!(out, "{met} of {} goals are met", judged().count())
    }

    /// Writes everything into a directory of its own in `dir`, and gives that.
    pub(crate) fn save(&self, dir: &Path) -> Result<PathBuf> {
        let dir = dir.join(self.at.strftime("%Y%m%dT%H%M%SZ").to_string());
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let write = |name: &str, text: &[u8]| {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        let text = serde_json::to_string_pretty(&self.json).context("writing the results")?;
        write("results.json", (text + "\n").as_bytes())?;
        let mut tables = Vec::new();
        self.print(&mut tables)?;
        write("tables.md", &tables)?;
        Ok(dir)
    }
}

/// On which machine, and how.
fn head(findings: &Findings, options: &Options, seed: u64, at: Timestamp) -> String {
    let on = &findings.machine;
    let machine = format!(
        "{}: {} cores of {}, Linux {}, {}, load {} at first\n",
        at.strftime("%Y-%m-%d"),
        on.cores,
        on.cpu,
        on.kernel,
        on.filesystem,
        on.load
    );
    let Some(sampled) = &findings.sampled else { return machine };
    format!(
        "{machine}medians of {} samples of {} s, {} tokens at first and {} at last, store.cache_mib = {}, --seed {seed}\n",
        options.samples(),
        options.time().as_secs_f64(),
        grouped(float(sampled.tokens.0)),
        grouped(float(sampled.tokens.1)),
        options.cache_mib,
    )
}
