//! A second vault whose HSM is slow and wide, as one across a network is: SoftHSM2 behind the fault-injecting module
//! (`tests/chaos-hsm`), which delays each operation, on many sessions. The ceiling needs no measuring: it is what the
//! sessions can do if they never rest.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use toml::{Table, Value};

use crate::{
    connection::Target,
    cpu::Ticks,
    load::{Load, Route, Seen},
    number::{float, rate},
    payload::{self, Random},
    vault::{Place, Vault},
};

/// The vault, with tokens in it.
#[derive(Debug)]
pub(crate) struct SlowVault {
    vault: Vault,
    target: Target,
    tokens: Arc<Vec<String>>,
}

impl SlowVault {
    /// Makes one in `dir` with `program`; the module is the one beside it.
    pub(crate) fn start(program: &Path, dir: &Path, seed: u64) -> Result<Self> {
        let module = program.with_file_name("libchaos_hsm.so");
        ensure!(module.exists(), "{} is missing: `cargo build --release -p chaos-hsm`", module.display());
        // Beside its configuration, which the sandbox lets the module see.
        let fault = dir.join(NAME).join("fault");
        let place = Place::make(program, dir, NAME, |config| slowed(&config, &module, &fault))?;
        let tokens = Arc::new(place.fill(seed, TOKENS, 1)?);
        let vault = place.serve()?;
        let target = vault.target()?;
        // Not before: tokens are made the faster without.
        let script = format!("C_Decrypt latency {}us\n", LATENCY.as_micros());
        fs::write(&fault, script).with_context(|| format!("writing {}", fault.display()))?;
        let sleepers =
            punctual(vault.pid()).context("having the HSM's threads sleep no longer than a millisecond")?;
        ensure!(
            sleepers > SESSIONS,
            "{sleepers} threads of the HSM's: one for each session and one beside them"
        );
        Ok(Self { vault, target, tokens })
    }

    /// Detokenizes for `time`, one operation of the HSM for each request; and who had the processor meanwhile.
    pub(crate) fn sample(&self, load: &Load, time: Duration, choice: u64) -> Result<(Seen, Ticks)> {
        let begin = Ticks::now(self.vault.pid())?;
        let bodies = |lane| payload::detokenize(&self.tokens, Random::new(choice, lane));
        let seen = load.run(&self.target, ROUTE, time, bodies);
        let seen = seen.map_err(|error| self.vault.explain(error))?;
        Ok((seen, Ticks::now(self.vault.pid())?.since(begin)))
    }
}

/// Operations a second when every session always waits for the HSM.
pub(crate) fn ceiling() -> f64 {
    float(SESSIONS) * rate(1, LATENCY)
}

/// Has the threads that stand for an HSM be woken when they asked for, and not up to 50 µs later together with others, as the
/// system does by itself (proc(5), `timerslack_ns`): an HSM across a network does not wait for timers. Says how many they are.
fn punctual(pid: u32) -> Result<u64> {
    let mut sleepers = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        if name.trim_end().strip_prefix("hsm-").is_some_and(|number| number.parse::<u64>().is_ok()) {
            let id = task.file_name().into_string().ok().context("a thread without a number")?;
            fs::write(format!("/proc/{id}/timerslack_ns"), "1")?;
            sleepers += 1;
        }
    }
    Ok(sleepers)
}

/// A development vault's configuration with `module` before the module it has.
fn slowed(config: &str, module: &Path, fault: &Path) -> Result<String> {
    let mut config: Table = config.parse().context("parsing vaultd.toml")?;
    let path = |path: &Path| path.to_str().map(Value::from).context("a path that is not UTF-8");
    let hsm = config.get_mut("hsm").and_then(Value::as_table_mut).context("vaultd.toml without [hsm]")?;
    let real = hsm.insert("module".to_owned(), path(module)?).context("vaultd.toml without hsm.module")?;
    hsm.insert("sessions".to_owned(), Value::Integer(i64::try_from(SESSIONS)?));
    let environment = hsm.entry("environment").or_insert_with(|| Value::Table(Table::new()));
    let environment = environment.as_table_mut().context("hsm.environment is no table")?;
    environment.insert("CHAOS_HSM_MODULE".to_owned(), real);
    environment.insert("CHAOS_HSM_FAULT".to_owned(), path(fault)?);
    Ok(config.to_string())
}

/// The name of its directory.
const NAME: &str = "s";
/// The figures: an HSM that takes a millisecond, and its sessions.
const LATENCY: Duration = Duration::from_millis(1);
pub(crate) const SESSIONS: u64 = 32;
const ROUTE: Route = Route { path: "/v1/detokenize", expected: 200, connections: CONNECTIONS };
/// Twice the sessions twice over: whoever has his answer is replaced at once.
pub(crate) const CONNECTIONS: u64 = 128;
/// Enough that no two callers meet.
const TOKENS: u64 = 10_000;
