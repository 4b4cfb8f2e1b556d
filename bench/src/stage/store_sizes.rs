//! What an operation costs as the store grows, with the default page cache.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;

use super::restarts::{self, Big};
use crate::{
    number::median,
    payload::{self, Pans, Random},
    run::{Run, say},
    side::Side,
    vault::{Place, Vault},
};

/// Rates with one size of the store.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Point {
    /// Tokens at first; new ones add some.
    pub(crate) tokens: u64,
    pub(crate) detokenize_per_second: f64,
    pub(crate) tokenize_seen_per_second: f64,
    pub(crate) tokenize_new_per_second: f64,
}

/// A vault of one size.
struct Sized {
    records: u64,
    vault: Vault,
    tokens: Arc<Vec<String>>,
    seed: u64,
    fresh: Arc<Pans>,
    rates: [Vec<f64>; 3],
}

/// Measures all sizes, interleaved; with `big`, ten million as well.
pub(crate) fn measure(run: &Run<'_>, big: Option<&Big>) -> Result<Vec<Point>> {
    let mut all = Vec::new();
    for (number, records) in run.options.pick(&SIZES[..2], &SIZES, &SIZES).iter().copied().enumerate() {
        say(&format!("filling a vault with {records} tokens"))?;
        let place = Place::make(run.program, run.dir, &format!("z{number}"), Ok)?;
        let tokens = place.fill(run.seed, records, records.div_ceil(MOST_TOKENS))?;
        all.push(Sized::new(run, &place, records, Arc::new(tokens), run.seed)?);
    }
    if let Some(big) = big {
        all.push(Sized::new(run, &big.place, restarts::RECORDS, Arc::clone(&big.tokens), big.seed)?);
    }
    let rounds = run.options.samples_of_curves();
    // New tokens come last: they make a small store a larger one.
    for sides in [&SIDES[..2], &SIDES[2..]] {
        for round in 1..=rounds {
            say(&format!("stores of {} sizes, round {round} of {rounds}", all.len()))?;
            for sized in &mut all {
                for side in sides {
                    sized.sample(run, *side)?;
                }
            }
        }
    }
    Ok(all.iter().map(Sized::point).collect())
}

impl Sized {
    fn new(run: &Run<'_>, place: &Place, records: u64, tokens: Arc<Vec<String>>, seed: u64) -> Result<Self> {
        let fresh = Arc::new(Pans::after(seed, 2 * restarts::FAR + run.seed));
        Ok(Self { records, vault: place.serve()?, tokens, seed, fresh, rates: Default::default() })
    }

    fn sample(&mut self, run: &Run<'_>, side: Side) -> Result<()> {
        let Some(route) = side.route() else { return Ok(()) };
        let (load, target, time) = (run.load, self.vault.target()?, run.options.time());
        let choice = run.seed ^ self.fresh.drawn();
        let random = |lane| Random::new(choice, lane);
        let seen = match side {
            Side::TokenizeNew => load.run(&target, route, time, |_| payload::tokenize_new(&self.fresh)),
            Side::TokenizeSeen => {
                let deck = Arc::new(Pans::new(self.seed));
                let bodies = |lane| payload::tokenize_seen(&deck, self.records, random(lane));
                load.run(&target, route, time, bodies)
            }
            _ => load.run(&target, route, time, |lane| payload::detokenize(&self.tokens, random(lane))),
        };
        let seen = seen.map_err(|error| self.vault.explain(error))?;
        let place = SIDES.iter().position(|one| *one == side).unwrap_or_default();
        self.rates[place].push(seen.rate);
        Ok(())
    }

    fn point(&self) -> Point {
        let [detokenize, seen, new] = &self.rates;
        Point {
            tokens: self.records,
            detokenize_per_second: median(detokenize),
            tokenize_seen_per_second: median(seen),
            tokenize_new_per_second: median(new),
        }
    }
}

/// Tokens of the smaller stores.
const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const SIDES: [Side; 3] = [Side::Detokenize, Side::TokenizeSeen, Side::TokenizeNew];
/// Tokens that are read: as many as of ten million.
const MOST_TOKENS: u64 = 1_000_000;
