//! The Flask server with SQLite.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Guarded, Rival, What, find, text};
use crate::{
    connection::Target,
    fill::read_tokens,
    load::Load,
    payload::{self, Pans, Random},
    run::{Run, say},
    side::Side,
};

/// The server, and what it knows.
#[derive(Debug)]
pub(crate) struct Flask {
    target: Target,
    known: u64,
    pans: Arc<Pans>,
    tokens: Arc<Vec<String>>,
    _server: Guarded,
}

impl Flask {
    /// Starts it with `records` tokens; none if it is not installed.
    pub(crate) fn start(run: &Run<'_>, records: u64) -> Result<Option<Self>> {
        let Some(gunicorn) = find("gunicorn", [PathBuf::from(VENV).join("bin")]) else { return Ok(None) };
        let python = gunicorn.with_file_name("python");
        if !python.is_file() {
            return Ok(None);
        }
        say(&format!("filling Flask and SQLite with {records} tokens"))?;
        let dir = run.dir.join("flask");
        fs::create_dir(&dir).context("making a directory")?;
        fs::write(dir.join("flask_sqlite.py"), include_str!("../../alternatives/flask_sqlite.py"))?;
        let tokens = fill(&std::path::absolute(python)?, &dir, run.seed, records)?;
        let server = Command::new(std::path::absolute(gunicorn)?)
            .args(["--worker-class", "gthread", "--workers", "2", "--threads", "32", "--keep-alive", "60"])
            .args(["--log-level", "warning", "--bind", &format!("unix:{}", text(&dir.join("socket")))])
            .arg("flask_sqlite:app")
            .current_dir(&dir)
            .env("CARDS", dir.join("cards.sqlite"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log"))?)
            .spawn()
            .context("starting gunicorn")?;
        let server = Guarded(server);
        let target = Target { socket: dir.join("socket"), jwt: None };
        let tokens = Arc::new(tokens);
        let route = Side::DetokenizeAlone.route().context("a detokenize is a request")?;
        let body = payload::detokenize(&tokens, Random::new(0, 0));
        run.load.first_answer(&target, route, body, Instant::now()).context("waiting for Flask")?;
        let pans = Arc::new(Pans::after(run.seed, records));
        Ok(Some(Self { target, known: records, pans, tokens, _server: server }))
    }
}

impl Rival for Flask {
    fn sample(&mut self, load: &Load, what: What, time: Duration) -> Result<f64> {
        let random = |lane| Random::new(self.pans.drawn(), lane);
        let (target, pans) = (&self.target, &self.pans);
        let ask = |side: Side| side.route().context("a request has a route");
        let seen = match what {
            What::New => load.run(target, ask(Side::TokenizeNew)?, time, |_| payload::tokenize_new(pans)),
            What::Known => {
                let bodies = |lane| payload::tokenize_seen(pans, self.known, random(lane));
                load.run(target, ask(Side::TokenizeSeen)?, time, bodies)
            }
            What::Read => {
                let bodies = |lane| payload::detokenize(&self.tokens, random(lane));
                load.run(target, ask(Side::Detokenize)?, time, bodies)
            }
        };
        Ok(seen.context("asking Flask")?.rate)
    }
}

/// Makes tokens before the server runs.
fn fill(python: &Path, dir: &Path, seed: u64, records: u64) -> Result<Vec<String>> {
    let (cards, tokens) = (dir.join("pans"), dir.join("tokens"));
    let pans = Pans::new(seed);
    let mut file = std::io::BufWriter::new(File::create(&cards)?);
    for index in 0..records {
        writeln!(file, "{}", pans.at(index))?;
    }
    file.flush()?;
    let status = Command::new(python)
        .arg("flask_sqlite.py")
        .current_dir(dir)
        .env("CARDS", dir.join("cards.sqlite"))
        .stdin(File::open(&cards)?)
        .stdout(File::create(&tokens)?)
        .status()
        .context("starting Python")?;
    ensure!(status.success(), "filling SQLite ended with {status}");
    read_tokens(&tokens)
}

/// Where `make bench` installs it.
const VENV: &str = "target/bench-venv";
