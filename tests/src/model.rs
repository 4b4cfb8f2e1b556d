//! A vault as it ought to be, without cards, keys, sockets or disks. Cards and templates are numbers; a token is known by the
//! order in which it was given out.

use std::ops::Not as _;

/// What a caller or fate does. A token's number is taken modulo how many there are.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A caller gives a card.
    Tokenize(u8, Template),
    /// A caller wants the card of a token.
    Detokenize(usize),
    /// A caller has a token deleted.
    Delete(usize),
    /// A caller asks which tokens a card has.
    Search(u8),
    /// The daemon is stopped and started.
    Restart,
    /// It is killed and started.
    Kill,
    /// A caller gives a card, and the daemon is killed so many microseconds later.
    KillTokenizing(u8, u64),
    /// A caller has a token deleted, and the daemon is killed so many microseconds later.
    KillDeleting(usize, u64),
}

/// What a token looks like, and whether a card has one or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// One for a card.
    Default,
    /// One for a card, of digits.
    Numeric,
    /// A new one each time.
    Once,
}

impl Template {
    /// Its name in the configuration of a development vault.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Numeric => "numeric",
            Self::Once => "once",
        }
    }
}

/// The tokens that were given out: card and template, and nothing once it is deleted.
#[derive(Debug, Default)]
pub struct Model(Vec<Option<(u8, Template)>>);

impl Model {
    /// The token that a card gets, and whether it is a new one.
    pub fn tokenize(&mut self, card: u8, template: Template) -> (usize, bool) {
        let known = self.0.iter().position(|token| *token == Some((card, template)));
        if let Some(known) = known.filter(|_| template != Template::Once) {
            return (known, false);
        }
        self.0.push(Some((card, template)));
        (self.0.len() - 1, true)
    }

    /// The card of a token.
    pub fn detokenize(&self, token: usize) -> Option<u8> {
        self.0[token].map(|(card, _)| card)
    }

    /// Deletes a token; says whether it was there.
    pub fn delete(&mut self, token: usize) -> bool {
        self.0[token].take().is_some()
    }

    /// The tokens of a card.
    pub fn of(&self, card: u8) -> Vec<usize> {
        (0..self.0.len()).filter(|token| self.detokenize(*token) == Some(card)).collect()
    }

    /// The token that `number` stands for, if any was given out.
    pub fn token(&self, number: usize) -> Option<usize> {
        self.0.is_empty().not().then(|| number % self.0.len())
    }

    /// How many tokens were given out.
    pub fn given(&self) -> usize {
        self.0.len()
    }
}
