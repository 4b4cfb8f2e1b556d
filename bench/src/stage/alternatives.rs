//! The vault beside what a user might take instead, in turn.

use anyhow::Result;

use crate::{
    rival::{Flask, Postgres, Rival, What},
    run::{Run, say},
    side::Side,
    subjects::Subjects,
};

/// Samples of new cards, known cards and reads, a second.
pub(crate) type Rates = [Vec<f64>; 3];

/// What was found.
#[derive(Debug)]
pub(crate) struct Alternatives {
    pub(crate) vault: Rates,
    /// Of each alternative, or why there are none.
    pub(crate) rivals: Vec<(&'static str, Result<Rates, &'static str>)>,
}

/// Starts what is installed, and measures all of them interleaved.
pub(crate) fn measure(run: &Run<'_>, subjects: &mut Subjects) -> Result<Alternatives> {
    let records = run.options.records();
    let mut rivals: [(&str, Option<Box<dyn Rival>>); 2] = [
        ("Flask and SQLite", Flask::start(run, records)?.map(|rival| -> Box<dyn Rival> { Box::new(rival) })),
        (
            "PostgreSQL with pgcrypto",
            Postgres::start(records)?.map(|rival| -> Box<dyn Rival> { Box::new(rival) }),
        ),
    ];
    let mut found = Alternatives {
        vault: Rates::default(),
        rivals: rivals
            .each_ref()
            .map(|(name, rival)| (*name, rival.as_ref().map(|_| Rates::default()).ok_or("not installed")))
            .into(),
    };
    let rounds = run.options.samples_of_curves();
    for round in 1..=rounds {
        say(&format!("the alternatives, round {round} of {rounds}"))?;
        for (place, what) in What::ALL.into_iter().enumerate() {
            found.vault[place].push(subjects.sample(run.load, what.side())?.rate);
            for ((_, rival), (_, rates)) in rivals.iter_mut().zip(&mut found.rivals) {
                if let (Some(rival), Ok(rates)) = (rival, rates) {
                    rates[place].push(rival.sample(run.load, what, run.options.time())?);
                }
            }
        }
    }
    Ok(found)
}

impl What {
    /// The same of the vault.
    fn side(self) -> Side {
        match self {
            Self::New => Side::TokenizeNew,
            Self::Known => Side::TokenizeSeen,
            Self::Read => Side::Detokenize,
        }
    }
}
