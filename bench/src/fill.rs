//! Fills a vault's store with tokens, without the daemon: `vaultd`'s own domain, HSM and store in one process.
//!
//! What lies between them when a service asks (HTTP, JSON, a durable audit entry for each card) is left out, so that ten
//! million tokens are a matter of minutes. Every record is what the daemon would have made: fingerprinted and sealed by
//! the token, checked and committed by the store's writer.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use secrecy::SecretString;
use tokio::task::JoinSet;
use vaultd::{
    audit::Audit,
    card::Pan,
    config::Config,
    hsm::{self, Hsm},
    store::Store,
    vault::{Keys, NewCard, Vault},
};

use crate::{
    number::{float, grouped},
    payload::Pans,
};

/// The hidden subcommand.
pub(crate) const SUBCOMMAND: &str = "fill";

/// What is to be filled, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Fill {
    /// The configuration of a vault that does not run.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// The deck of PANs.
    #[arg(long)]
    pub(crate) seed: u64,
    /// How many of it, from its start.
    #[arg(long)]
    pub(crate) records: u64,
    /// Where tokens are written, one a line.
    #[arg(long)]
    pub(crate) tokens: PathBuf,
    /// Every how manieth token is written.
    #[arg(long)]
    pub(crate) every: u64,
}

impl Fill {
    /// Has another process of this program do it: the module's environment can be set by a process with one thread only.
    pub(crate) fn in_child(&self) -> Result<()> {
        let program = std::env::current_exe().context("finding this program")?;
        let status = Command::new(program)
            .args([SUBCOMMAND, "--config"])
            .arg(&self.config)
            .args(["--seed", &self.seed.to_string(), "--records", &self.records.to_string(), "--tokens"])
            .arg(&self.tokens)
            .args(["--every", &self.every.to_string()])
            .stdin(Stdio::null())
            .status()
            .context("starting the filler")?;
        ensure!(status.success(), "filling {} ended with {status}", self.config.display());
        Ok(())
    }

    /// The subcommand.
    pub(crate) fn run(&self) -> Result<()> {
        let config = Config::load(&self.config)?;
        let variables = config.hsm.environment.iter();
        hsm::set_module_environment(variables.map(|(name, value)| (name.as_str(), value.as_str())))?;
        // From here on there may be threads.
        let hsm = Hsm::open(&settings(&config)?)?;
        let store = Store::open(&config.store.dir, CACHE_BYTES, config.store.queue)?;
        let audit = Audit::unkept(config.audit.clone(), &store.vault_id());
        let keys = Keys::new(hsm.clone(), store.clone(), audit, config.keys.clone())?;
        let (templates, envelopes) = (config.templates.clone(), config.envelopes.clone());
        let vault = Vault::new(keys, templates, envelopes, config.rewrap_pace);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let filled = runtime.block_on(self.fill(&vault));
        store.close();
        hsm.close();
        filled
    }

    async fn fill(&self, vault: &Vault) -> Result<()> {
        let pans = Pans::new(self.seed);
        let file = File::create(&self.tokens).with_context(|| format!("making {}", self.tokens.display()))?;
        let (mut tokens, mut progress) = (BufWriter::new(file), Progress::new(self.records));
        let mut parts = JoinSet::new();
        let mut begun = 0;
        while begun < self.records || !parts.is_empty() {
            while begun < self.records && parts.len() < PARTS {
                let end = (begun + PART).min(self.records);
                let cards = (begun..end).map(|index| card(pans.at(index))).collect::<Result<Vec<_>>>()?;
                let (vault, first) = (vault.clone(), begun);
                parts.spawn(async move { (first, vault.tokenize(TENANT, cards).await) });
                begun = end;
            }
            let Some(part) = parts.join_next().await else { continue };
            let (first, made) = part.context("a task of the filler died")?;
            progress.add(made.len())?;
            for (index, made) in (first..).zip(made) {
                let made = made.map_err(|error| anyhow!("card {index} got no token: {error}"))?;
                ensure!(made.created, "the vault takes a new PAN for one it knows");
                if index.is_multiple_of(self.every) {
                    writeln!(tokens, "{}", made.token)?;
                }
            }
        }
        tokens.into_inner().context("writing tokens")?.sync_all().context("writing tokens")
    }
}

/// The tokens that a filler has written.
pub(crate) fn read_tokens(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn settings(config: &Config) -> Result<hsm::Settings> {
    let read = |path: &PathBuf| fs::read_to_string(path).context("reading the PIN");
    let pin = config.hsm.pin_file.as_ref().map(read).transpose()?;
    Ok(hsm::Settings {
        library: config.hsm.library.clone(),
        token: config.hsm.token.clone(),
        pin: pin.map(|pin| SecretString::from(pin.trim())),
        key_prefix: config.hsm.key_prefix.clone(),
        unfinished: Vec::new(),
        sessions: config.hsm.sessions,
        queue: config.hsm.queue,
        call_timeout: PATIENCE,
        max_written_off: config.hsm.max_written_off,
    })
}

fn card(pan: u64) -> Result<NewCard> {
    let pan = Pan::parse(&pan.to_string())?;
    let (template, holder, expiry, expires_in_s) = (None, None, None, None);
    Ok(NewCard { pan, template, holder, expiry, expires_in_s, metadata: vault_api::Metadata::default() })
}

/// Says how far it is, to somebody who looks.
struct Progress {
    all: u64,
    done: u64,
    begin: Instant,
    told: Instant,
}

impl Progress {
    fn new(all: u64) -> Self {
        Self { all, done: 0, begin: Instant::now(), told: Instant::now() }
    }

    fn add(&mut self, count: usize) -> io::Result<()> {
        self.done += u64::try_from(count).unwrap_or(u64::MAX);
        if self.told.elapsed() < TELL || !io::stderr().is_terminal() {
            return Ok(());
        }
        self.told = Instant::now();
        let rate = float(self.done) / self.begin.elapsed().as_secs_f64();
        let (done, all) = (grouped(float(self.done)), grouped(float(self.all)));
        writeln!(io::stderr(), "bench:   {done} of {all} tokens, {}/s", grouped(rate))
    }
}

/// The tenant of a development vault.
const TENANT: &str = "dev";
/// Cards that are given to the domain at once, and how many such parts: enough that the writer always finds a large group
/// waiting, few enough for the queues.
const PART: u64 = 2_000;
const PARTS: usize = 8;
/// Holds the index of ten million cards, whose rows are written in no order.
const CACHE_BYTES: usize = 2 << 30;
/// An operation waits behind many others here.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(10);
