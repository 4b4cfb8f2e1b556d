//! One rule: which calls it strikes, and how.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cryptoki_sys::CK_RV;

/// A function of the module, as far as rules need to know it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name in the standard.
    pub(crate) name: &'static str,
    /// Whether it is called with a session.
    pub(crate) takes_session: bool,
    /// Whether it gives out bytes whose number it says.
    pub(crate) writes: bool,
}

/// What is done to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails with this value.
    Error(CK_RV),
    /// It waits at least the one and at most the other time.
    Latency(Duration, Duration),
    /// It waits for so long, or until the rule is gone.
    Hang(Option<Duration>),
    /// Every session is closed before it.
    LoseSessions,
    /// Its own session is closed before it, and no other.
    LoseSession,
    /// The user is logged out before it.
    LoseLogin,
    /// Every object handle becomes invalid before it.
    StaleHandles,
    /// Its output is so many bytes longer.
    WrongLength(isize),
}

impl Fault {
    /// Whether a call of `function` can be struck like this.
    pub(crate) fn fits(&self, function: &Function) -> bool {
        match self {
            Self::LoseSession | Self::LoseLogin => function.takes_session,
            Self::WrongLength(_) => function.writes,
            Self::Error(_) | Self::Latency(..) | Self::Hang(_) | Self::LoseSessions | Self::StaleHandles => {
                true
            }
        }
    }
}

/// A rule as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    /// The functions; `None` for `*`.
    pub(crate) functions: Option<Vec<&'static Function>>,
    /// What happens.
    pub(crate) fault: Fault,
    /// The chance of each call, 0 to 1.
    pub(crate) rate: f64,
    /// Calls that pass first.
    pub(crate) after: u64,
    /// How often it strikes.
    pub(crate) count: u64,
}

/// A rule in force.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) order: Order,
    seed: u64,
    calls: AtomicU64,
    strikes: AtomicU64,
}

impl Rule {
    /// A rule that has seen no call yet; its chances follow from `seed`.
    pub(crate) fn new(order: Order, seed: u64) -> Self {
        Self { order, seed, calls: AtomicU64::new(0), strikes: AtomicU64::new(0) }
    }

    /// Counts a call of `function`, and says whether it is struck: then its number, of which [`Rule::random`] makes
    /// more.
    pub(crate) fn strikes(&self, function: &Function) -> Option<u64> {
        if !self.covers(function) {
            return None;
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call < self.order.after || self.random(call).f64() >= self.order.rate {
            return None;
        }
        let one_more = |strikes: u64| (strikes < self.order.count).then(|| strikes + 1);
        self.strikes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| call)
    }

    /// Whether the rule is about `function`.
    pub(crate) fn covers(&self, function: &Function) -> bool {
        self.order.fault.fits(function)
            && match &self.order.functions {
                Some(functions) => functions.contains(&function),
                None => !NOT_MEANT_BY_ALL.contains(&function.name),
            }
    }

    /// Whether it has struck as often as it may.
    pub(crate) fn is_spent(&self) -> bool {
        self.strikes.load(Ordering::Relaxed) >= self.order.count
    }

    /// A time between the two, the same for the same call of the same seed.
    pub(crate) fn time_between(&self, least: Duration, most: Duration, call: u64) -> Duration {
        let mut random = self.random(call);
        // The first draw decided whether the rule strikes.
        random.f64();
        least + most.saturating_sub(least).mul_f64(random.f64())
    }

    fn random(&self, call: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(call.wrapping_mul(GOLDEN_RATIO)))
    }
}

/// Called once, at the beginning and the end: troubled only if they are named.
const NOT_MEANT_BY_ALL: [&str; 2] = ["C_Initialize", "C_Finalize"];
/// Spreads consecutive numbers over all of 64 bits.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    static SIGN: Function = Function { name: "C_Sign", takes_session: true, writes: true };
    static OPEN: Function = Function { name: "C_OpenSession", takes_session: false, writes: false };
    static INITIALIZE: Function = Function { name: "C_Initialize", takes_session: false, writes: false };

    fn order() -> Order {
        Order { functions: None, fault: Fault::Error(5), rate: 1.0, after: 0, count: u64::MAX }
    }

    fn struck(order: Order, seed: u64, calls: usize) -> Vec<bool> {
        let rule = Rule::new(order, seed);
        (0..calls).map(|_| rule.strikes(&SIGN).is_some()).collect()
    }

    #[test]
    fn a_rule_begins_and_ends_as_it_says() {
        assert_eq!(struck(order(), 1, 3), [true, true, true]);
        let some = Order { after: 2, count: 1, ..order() };
        assert_eq!(struck(some.clone(), 1, 5), [false, false, true, false, false]);
        let rule = Rule::new(Order { after: 0, ..some }, 1);
        assert!(!rule.is_spent());
        assert!(rule.strikes(&SIGN).is_some() && rule.is_spent());
    }

    #[test]
    fn a_rate_is_kept_and_follows_from_the_seed() {
        let some = Order { rate: 0.1, ..order() };
        let first = struck(some.clone(), 42, 10_000);
        let hits = first.iter().filter(|struck| **struck).count();
        assert!((900..=1_100).contains(&hits), "{hits}");
        assert_eq!(struck(some.clone(), 42, 10_000), first);
        assert_ne!(struck(some.clone(), 43, 10_000), first);
        let few = struck(Order { count: 7, ..some }, 42, 10_000);
        assert_eq!(few.iter().filter(|struck| **struck).count(), 7);
    }

    #[test]
    fn only_what_is_named_and_fits_is_counted() {
        let named = Rule::new(Order { functions: Some(vec![&OPEN]), ..order() }, 1);
        assert!(named.strikes(&OPEN).is_some() && named.strikes(&SIGN).is_none());
        let all = Rule::new(order(), 1);
        assert!(all.strikes(&INITIALIZE).is_none() && all.strikes(&OPEN).is_some());
        let length = Rule::new(Order { fault: Fault::WrongLength(1), count: 1, ..order() }, 1);
        assert!(length.strikes(&OPEN).is_none() && length.strikes(&SIGN).is_some());
        assert!(!Fault::LoseLogin.fits(&OPEN) && Fault::LoseLogin.fits(&SIGN));
        assert!(!Fault::LoseSession.fits(&OPEN) && Fault::LoseSession.fits(&SIGN));
    }

    #[test]
    fn times_vary_between_their_ends() {
        let rule = Rule::new(order(), 7);
        let (least, most) = (Duration::from_millis(1), Duration::from_millis(3));
        let times: Vec<_> = (0..100).map(|call| rule.time_between(least, most, call)).collect();
        assert!(times.iter().all(|time| (least..=most).contains(time)));
        assert!(times.iter().any(|time| *time < Duration::from_micros(1_500)));
        assert!(times.iter().any(|time| *time > Duration::from_micros(2_500)));
        assert_eq!(rule.time_between(least, least, 3), least);
    }
}
