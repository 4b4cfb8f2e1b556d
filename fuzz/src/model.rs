//! The vault as it ought to be, in a few lines: tokens, and what each stands for.

use std::collections::BTreeMap;

use vault_api::Metadata;

/// What callers choose from.
pub(crate) const TENANTS: [&str; 2] = ["north", "south"];
pub(crate) const TEMPLATES: [&str; 4] = ["default", "numeric", "opaque", "once"];
pub(crate) const PANS: [&str; 6] = [
    "4111111111111111",
    "5555555555554444",
    "378282246310005",
    "6011111111111117",
    "3530111333300000",
    "4222222222222",
];
pub(crate) const HOLDERS: [&str; 3] = ["Ada Lovelace", "Grace Hopper", "Zoë Ünal"];

/// What a token stands for. The texts are chosen from the lists above.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Card {
    pub(crate) tenant: &'static str,
    pub(crate) pan: &'static str,
    pub(crate) template: &'static str,
    pub(crate) holder: Option<&'static str>,
    pub(crate) metadata: Metadata,
    pub(crate) expires: bool,
}

/// A token, and whose it is: two tenants may have the same.
pub(crate) type Owned = (&'static str, String);

/// Every token there is, and those there were.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) cards: BTreeMap<Owned, Card>,
    pub(crate) forgotten: Vec<Owned>,
}

impl Model {
    /// The token that `card` has already.
    pub(crate) fn seen(&self, card: &Card) -> Option<&str> {
        let same = |it: &Card| (it.tenant, it.pan, it.template) == (card.tenant, card.pan, card.template);
        let seen = self.cards.iter().find(|(_, it)| card.template != "once" && same(it));
        seen.map(|((_, token), _)| token.as_str())
    }

    /// The tokens a search finds.
    pub(crate) fn found(&self, tenant: &str, holder: Option<&str>, pan: Option<&str>) -> Vec<&str> {
        let fits = |card: &Card| {
            card.tenant == tenant
                && holder.is_none_or(|holder| card.holder == Some(holder))
                && pan.is_none_or(|pan| card.pan == pan)
        };
        self.cards.iter().filter(|(_, card)| fits(card)).map(|((_, token), _)| token.as_str()).collect()
    }

    /// The token at `place` of all there are and were, with its tenant.
    pub(crate) fn token(&self, place: usize) -> Option<Owned> {
        let all: Vec<_> = self.cards.keys().chain(&self.forgotten).collect();
        (!all.is_empty()).then(|| all[place % all.len()].clone())
    }
}
