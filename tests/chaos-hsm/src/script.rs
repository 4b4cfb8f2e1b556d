//! The file with the faults, as text.

use std::time::Duration;

use cryptoki_sys::CK_RV;

use crate::{
    code,
    forward::FUNCTIONS,
    rule::{Fault, Function, Order, Rule},
};

/// The rules of a file, in their order.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) rules: Vec<Rule>,
}

impl Script {
    /// Reads `text`; an error says the line and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut seed = DEFAULT_SEED;
        let mut orders = Vec::new();
        for (line, number) in text.lines().zip(1_u32..) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            let at_line = |reason: String| format!("line {number}: {reason}");
            match words.as_slice() {
                [] => {}
                ["seed", value] => {
                    seed = value.parse().map_err(|_| at_line(format!("the seed {value} is no number")))?;
                }
                [value] => orders.push(outage(value).map_err(at_line)?),
                [functions, words @ ..] => orders.push(order(functions, words).map_err(at_line)?),
            }
        }
        let seeds = std::iter::repeat_with({
            let mut random = fastrand::Rng::with_seed(seed);
            move || random.u64(..)
        });
        Ok(Self {
            rules: orders.into_iter().zip(seeds).map(|(order, seed)| Rule::new(order, seed)).collect(),
        })
    }

    /// Whether one of the rules is `order`.
    pub(crate) fn holds(&self, order: &Order) -> bool {
        self.rules.iter().any(|rule| rule.order == *order)
    }

    /// By how much an output of `function` may turn out longer than it is.
    pub(crate) fn growth(&self, function: &Function) -> usize {
        let growths = self.rules.iter().filter(|rule| rule.covers(function) && !rule.is_spent());
        let growths = growths.filter_map(|rule| match rule.order.fault {
            Fault::WrongLength(by) => usize::try_from(by).ok(),
            _ => None,
        });
        growths.sum()
    }
}

/// The short form: a return value alone.
fn outage(value: &str) -> Result<Order, String> {
    let error = error(value).map_err(|_| {
        format!("{value} is neither a return value nor followed by a fault (error, latency, …)")
    })?;
    let functions = FUNCTIONS.iter().copied().filter(|function| OUTAGE.contains(&function.name)).collect();
    Ok(Order { functions: Some(functions), ..always(error) })
}

fn order(functions: &str, words: &[&str]) -> Result<Order, String> {
    let (settings, fault): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.contains('='));
    let fault = match fault.as_slice() {
        ["error", value] => error(value)?,
        ["latency", range] => {
            let (least, most) = range.split_once("..").unwrap_or((range, range));
            let (least, most) = (time(least)?, time(most)?);
            if least > most {
                return Err(format!("{range} ends before it begins"));
            }
            Fault::Latency(least, most)
        }
        ["hang"] => Fault::Hang(None),
        ["hang", limit] => Fault::Hang(Some(time(limit)?)),
        ["lose-sessions"] => Fault::LoseSessions,
        ["lose-session"] => Fault::LoseSession,
        ["lose-login"] => Fault::LoseLogin,
        ["stale-handles"] => Fault::StaleHandles,
        ["wrong-length", by] => match by.parse() {
            Ok(by) if by != 0 => Fault::WrongLength(by),
            _ => return Err(format!("wrong-length {by} is not by how many bytes, such as -1 or +1")),
        },
        other => return Err(format!("`{}` is no fault, or lacks its value: {FAULTS}", other.join(" "))),
    };
    let mut order = Order { functions: listed(functions, &fault)?, ..always(fault) };
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap_or_default();
        let wrong = || format!("{setting}: rate= is a chance from 0 to 1, after= and count= are numbers");
        match name {
            "rate" => {
                let rate = value.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
                order.rate = rate.ok_or_else(wrong)?;
            }
            "after" => order.after = value.parse().map_err(|_| wrong())?,
            "count" => order.count = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    Ok(order)
}

fn always(fault: Fault) -> Order {
    Order { functions: None, fault, rate: 1.0, after: 0, count: u64::MAX }
}

/// The functions of a comma-separated list; `None` for all.
fn listed(names: &str, fault: &Fault) -> Result<Option<Vec<&'static Function>>, String> {
    if names == "*" {
        return Ok(None);
    }
    let found = names.split(',').map(|name| {
        let function = FUNCTIONS.iter().copied().find(|function| function.name == name);
        let function = function.ok_or_else(|| format!("{name} is no function that can be troubled"))?;
        if !fault.fits(function) {
            return Err(match fault {
                Fault::WrongLength(_) => format!("{name} says no length of an output that could be wrong"),
                _ => format!("{name} is not called with a session"),
            });
        }
        Ok(function)
    });
    found.collect::<Result<_, _>>().map(Some)
}

fn error(value: &str) -> Result<Fault, String> {
    const OK: CK_RV = cryptoki_sys::CKR_OK;
    match code::parse(value) {
        Some(OK) => Err("CKR_OK is no error".to_owned()),
        Some(value) => Ok(Fault::Error(value)),
        None => Err(format!("{value} is no CKR_* of the standard and no number")),
    }
}

/// A whole number with its unit.
fn time(text: &str) -> Result<Duration, String> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let of: fn(u64) -> Duration = match unit {
        "us" | "µs" => Duration::from_micros,
        "ms" => Duration::from_millis,
        "s" => Duration::from_secs,
        _ => return Err(format!("{text} is no time, such as 500us, 1ms or 10s")),
    };
    number.parse().map(of).map_err(|_| format!("{text} is no time, such as 500us, 1ms or 10s"))
}

const FAULTS: &str = "error CKR_…, latency TIME, hang [TIME], lose-sessions, lose-session, lose-login, stale-handles, wrong-length N";
/// What fails when a return value stands alone: every operation on data, and every new session.
const OUTAGE: [&str; 5] = ["C_OpenSession", "C_Encrypt", "C_Decrypt", "C_Sign", "C_GenerateRandom"];
/// Without a `seed`, two runs of the same calls fail at the same places.
const DEFAULT_SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Order {
        let script = Script::parse(text).unwrap();
        assert_eq!(script.rules.len(), 1, "{text}");
        script.rules[0].order.clone()
    }

    #[test]
    fn every_kind_of_rule_is_read() {
        let millisecond = Duration::from_millis(1);
        for (text, fault) in [
            ("* error CKR_DEVICE_ERROR", Fault::Error(0x30)),
            ("* error 0x31", Fault::Error(0x31)),
            ("* latency 1ms", Fault::Latency(millisecond, millisecond)),
            ("* latency 500us..2s", Fault::Latency(Duration::from_micros(500), Duration::from_secs(2))),
            ("* hang", Fault::Hang(None)),
            ("* hang 10s", Fault::Hang(Some(Duration::from_secs(10)))),
            ("* lose-sessions", Fault::LoseSessions),
            ("* lose-session", Fault::LoseSession),
            ("* lose-login", Fault::LoseLogin),
            ("* stale-handles", Fault::StaleHandles),
            ("* wrong-length -1", Fault::WrongLength(-1)),
            ("* wrong-length +1", Fault::WrongLength(1)),
        ] {
            assert_eq!(only(text), always(fault), "{text}");
        }
    }

    #[test]
    fn options_functions_and_comments_are_read() {
        let text = "\n# a comment\n  C_Sign,C_Encrypt rate=0.5 error 5 after=3 count=2 # another\n";
        let order = only(text);
        let names: Vec<_> = order.functions.iter().flatten().map(|function| function.name).collect();
        assert_eq!(names, ["C_Sign", "C_Encrypt"]);
        assert!((order.rate - 0.5).abs() < f64::EPSILON);
        assert_eq!((order.after, order.count), (3, 2));
        assert!(Script::parse(" \n# nothing\n").unwrap().rules.is_empty());
    }

    #[test]
    fn a_return_value_alone_is_an_outage() {
        let order = only("0x30\n");
        assert_eq!(order.fault, Fault::Error(0x30));
        assert_eq!(order.functions.unwrap().len(), OUTAGE.len(), "each of them exists");
        assert_eq!(only("CKR_TOKEN_NOT_PRESENT").fault, Fault::Error(0xE0));
    }

    #[test]
    fn the_seed_decides_and_is_the_same_without_one() {
        let struck = |text: &str| {
            let script = Script::parse(&format!("{text}\n* error 5 rate=0.5")).unwrap();
            (0..64).map(|_| script.rules[0].strikes(FUNCTIONS[2]).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(struck(""), struck(""));
        assert_eq!(struck("seed 42"), struck("seed 42"));
        assert_ne!(struck("seed 42"), struck("seed 43"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, reason) in [
            ("nonsense", "neither a return value"),
            ("C_Sing error 5", "C_Sing is no function"),
            ("C_GetFunctionList error 5", "is no function that can be troubled"),
            ("C_Sign explode", "`explode` is no fault"),
            ("C_Sign error", "`error` is no fault, or lacks its value"),
            ("C_Sign error CKR_NOPE", "CKR_NOPE is no CKR_*"),
            ("C_Sign error CKR_OK", "CKR_OK is no error"),
            ("C_Sign latency 1", "1 is no time"),
            ("C_Sign latency 3ms..1ms", "ends before it begins"),
            ("C_Sign latency ms", "ms is no time"),
            ("C_Sign wrong-length 0", "wrong-length 0"),
            ("C_GenerateRandom wrong-length -1", "C_GenerateRandom says no length"),
            ("C_OpenSession lose-login", "C_OpenSession is not called with a session"),
            ("C_Sign error 5 rate=2", "rate=2"),
            ("C_Sign error 5 often=2", "often=2"),
            ("C_Sign error 5 count=-1", "count=-1"),
            ("seed x", "the seed x is no number"),
        ] {
            let error = Script::parse(&format!("* latency 1ms\n{text}\n")).unwrap_err();
            assert!(error.starts_with("line 2: ") && error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_rules_that_are_shown_to_operators_are_understood() {
        let page = include_str!("../../../docs/operations.md");
        let rules = page.split_once("```text\nCKR_").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
        assert_eq!(Script::parse(&format!("CKR_{rules}")).unwrap().rules.len(), 5);
        let own = include_str!("lib.rs").split("//! ```").nth(1).unwrap().trim_start_matches("text");
        assert_eq!(Script::parse(&own.replace("//! ", "")).unwrap().rules.len(), 9);
    }

    #[test]
    fn growth_is_announced_as_long_as_it_may_come() {
        let script = Script::parse("C_Sign wrong-length +2 count=1\nC_Sign wrong-length -1").unwrap();
        let sign = FUNCTIONS.iter().find(|function| function.name == "C_Sign").unwrap();
        assert_eq!(script.growth(sign), 2);
        assert!(script.rules[0].strikes(sign).is_some());
        assert_eq!(script.growth(sign), 0);
    }
}
