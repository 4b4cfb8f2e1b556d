//! What one caller was told, and what that makes wrong from then on.

/// How many envelopes are remembered: they are large, and end.
const MOST_ENVELOPES: usize = 16;
/// How many tokens that are gone, and how many cards without one, are remembered.
const MOST_GONE: usize = 50_000;

/// Cards and tokens of one caller. No other caller deletes them.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Cards with the tokens that were acknowledged.
    living: Vec<(String, String)>,
    /// Cards that were sent, but whose token, if they have one, nobody has heard of, with one that it is not.
    unsure: Vec<(String, Option<String>)>,
    /// Cards with tokens whose deletion was asked for and not acknowledged.
    doubtful: Vec<(String, String)>,
    /// Tokens whose deletion was acknowledged.
    gone: Vec<String>,
    /// Cards, each with an envelope it is in.
    envelopes: Vec<(String, String)>,
    /// Cards whose envelopes are not remembered.
    sent: Vec<String>,
}

impl Ledger {
    /// `token` was acknowledged for `pan`, which had none.
    pub(crate) fn made(&mut self, pan: String, token: String) {
        self.living.push((pan, token));
    }

    /// Nobody knows whether `pan` has a token, but that it is not `gone`.
    pub(crate) fn unsure(&mut self, pan: String, gone: Option<String>) {
        put(&mut self.unsure, (pan, gone));
    }

    /// A card whose token nobody knows, and one that it is not; it is not remembered any more.
    pub(crate) fn take_unsure(&mut self) -> Option<(String, Option<String>)> {
        self.unsure.pop()
    }

    /// A card and its token; it is not remembered any more.
    pub(crate) fn take_living(&mut self) -> Option<(String, String)> {
        (!self.living.is_empty()).then(|| self.living.swap_remove(fastrand::usize(..self.living.len())))
    }

    /// The token of `pan` may be deleted or not.
    pub(crate) fn doubtful(&mut self, pan: String, token: String) {
        self.doubtful.push((pan, token));
    }

    /// A card and its token, which may be deleted or not; it is not remembered any more.
    pub(crate) fn take_doubtful(&mut self) -> Option<(String, String)> {
        self.doubtful.pop()
    }

    /// The deletion of `token` was acknowledged. Its card may get another.
    pub(crate) fn deleted(&mut self, pan: String, token: String) {
        put(&mut self.gone, token.clone());
        put(&mut self.unsure, (pan, Some(token)));
    }

    /// A card and an envelope it is in.
    pub(crate) fn sealed(&mut self, pan: String, jwt: String) {
        if self.envelopes.len() == MOST_ENVELOPES {
            self.sent.push(self.envelopes.remove(0).0);
        }
        self.envelopes.push((pan, jwt));
    }

    /// Envelopes that were made before a leap of the clock may be over.
    pub(crate) fn forget_envelopes(&mut self) {
        self.sent.extend(self.envelopes.drain(..).map(|(pan, _)| pan));
    }

    /// Any of the cards that have a token.
    pub(crate) fn any(&self) -> Option<(String, String)> {
        pick(&self.living)
    }

    /// Any of the envelopes.
    pub(crate) fn any_envelope(&self) -> Option<(String, String)> {
        pick(&self.envelopes)
    }

    /// Any token whose deletion was acknowledged.
    pub(crate) fn any_gone(&self) -> Option<String> {
        fastrand::choice(&self.gone).cloned()
    }

    /// Every card that has a token, with it.
    pub(crate) fn living(&self) -> &[(String, String)] {
        &self.living
    }

    /// Every token whose deletion was acknowledged.
    pub(crate) fn gone(&self) -> &[String] {
        &self.gone
    }

    /// Every card number that was sent.
    pub(crate) fn pans(&self) -> impl Iterator<Item = &str> {
        let with_token = self.living.iter().chain(&self.doubtful).chain(&self.envelopes);
        let without = self.unsure.iter().map(|(pan, _)| pan).chain(&self.sent);
        with_token.map(|(pan, _)| pan).chain(without).map(String::as_str)
    }
}

/// Adds `one`; if there are too many, another is forgotten.
fn put<T>(many: &mut Vec<T>, one: T) {
    if many.len() < MOST_GONE {
        many.push(one);
    } else {
        many[fastrand::usize(..MOST_GONE)] = one;
    }
}

fn pick(pairs: &[(String, String)]) -> Option<(String, String)> {
    (!pairs.is_empty()).then(|| pairs[fastrand::usize(..pairs.len())].clone())
}
