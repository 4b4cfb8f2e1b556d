//! A window on trial: held against the truth about what it let through, over restarts of both kinds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    rows::Row,
    window::{BLOCKS_PER_LIMIT, Look, RowChanges, Window},
};

const SPAN_S: u64 = 60;

/// A window with its disk, and the truth about what it let through.
struct Trial {
    limit: usize,
    window: Window,
    disk: BTreeMap<u64, Row>,
    now_s: u64,
    revealed: Vec<(u64, u64)>,
}

impl Trial {
    fn new(limit: usize) -> Self {
        let window = Window::new(SPAN_S, limit, None, 0);
        Self { limit, window, disk: BTreeMap::new(), now_s: 1_000, revealed: Vec::new() }
    }

    fn write(&mut self, changes: RowChanges) {
        changes.remove.iter().for_each(|row| drop(self.disk.remove(row)));
        self.disk.extend(changes.put);
    }

    /// Whether `card` is revealed.
    fn ask(&mut self, card: u64) -> bool {
        let mut look = self.window.look(card, self.now_s);
        if look == Look::Reserve {
            let (plan, changes) = self.window.plan(1, self.now_s).unwrap();
            self.write(changes);
            self.window.begin(&plan);
            look = self.window.look(card, self.now_s);
        }
        assert_ne!(look, Look::Reserve);
        if look == Look::Room {
            self.window.take(card, self.now_s);
            self.revealed.push((self.now_s, card));
        }
        look != Look::Full
    }

    fn restart(&mut self, clean: bool) {
        if clean {
            let changes = self.window.written_down();
            self.write(changes);
        }
        self.window = Window::new(SPAN_S, self.limit, None, 0);
        for (number, row) in self.disk.clone() {
            let changes = self.window.load(number, row, self.now_s);
            self.write(changes);
        }
    }

    /// New cards that the last `SPAN_S` seconds have seen.
    fn counting(&self) -> Vec<u64> {
        let recent = self.revealed.iter().filter(|(at_s, _)| at_s + SPAN_S >= self.now_s);
        recent.map(|(_, card)| *card).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Ask(u64),
    Wait(u64),
    Restart,
    Crash,
}

fn events(crashes: u32) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        20 => (0_u64..60).prop_map(Event::Ask),
        6 => (0_u64..9).prop_map(Event::Wait),
        1 => (50_u64..80).prop_map(Event::Wait),
        1 => Just(Event::Restart),
        crashes => Just(Event::Crash),
    ];
    prop::collection::vec(event, 1..400)
}

proptest! {
    #[test]
    fn without_crashes_it_is_exact(limit in 1_usize..50, events in events(0)) {
        let mut trial = Trial::new(limit);
        for event in events {
            match event {
                Event::Ask(card) => {
                    let counting = trial.counting();
                    let expected = counting.contains(&card) || counting.len() < limit;
                    prop_assert_eq!(trial.ask(card), expected);
                }
                Event::Wait(seconds) => trial.now_s += seconds,
                Event::Restart | Event::Crash => trial.restart(true),
            }
        }
    }

    #[test]
    fn no_crash_gives_more_than_the_limit(limit in 1_usize..50, events in events(2)) {
        let mut trial = Trial::new(limit);
        for event in events {
            match event {
                Event::Ask(card) => drop(trial.ask(card)),
                Event::Wait(seconds) => trial.now_s += seconds,
                Event::Restart => trial.restart(true),
                Event::Crash => trial.restart(false),
            }
            prop_assert!(trial.counting().len() <= limit, "{:?}", trial.counting());
            prop_assert!(trial.disk.len() <= limit + 2, "rows are forgotten");
        }
    }

    #[test]
    fn a_crash_costs_one_block_at_most(limit in 20_usize..200, used in 0_usize..200) {
        let mut trial = Trial::new(limit);
        let cards: Vec<_> = (0..u64::try_from(used.min(limit)).unwrap()).collect();
        prop_assert!(cards.iter().all(|card| trial.ask(*card)));
        trial.restart(false);
        let again = cards.iter().filter(|card| trial.window.look(**card, trial.now_s) != Look::Known).count();
        let block = limit / BLOCKS_PER_LIMIT;
        prop_assert!(again <= block, "{} cards are forgotten", again);
        prop_assert!(trial.window.left() + cards.len() + block >= limit);
    }
}

#[test]
fn a_block_is_durable_before_it_is_used() {
    let mut window = Window::new(SPAN_S, 100, None, 7);
    assert_eq!(window.look(1, 0), Look::Reserve);
    let (plan, changes) = window.plan(1, 0).unwrap();
    assert_eq!(changes.put, [(7, Row::Open { cards: 5 })]);
    assert_eq!(window.look(1, 0), Look::Reserve, "not yet durable");
    window.begin(&plan);
    assert_eq!(window.look(1, 0), Look::Room);
    assert!(window.plan(1, 0).is_none(), "there is room");
}

#[test]
fn what_is_refused_locks_at_its_line_and_is_counted_once() {
    let mut trial = Trial::new(2);
    trial.window = Window::new(SPAN_S, 2, Some(4), 0);
    assert!(trial.ask(1) && trial.ask(2) && !trial.ask(3));
    assert!(!trial.window.refuse(3, trial.now_s));
    assert!(!trial.window.refuse(3, trial.now_s), "the same card again");
    assert!(trial.window.refuse(4, trial.now_s));
    trial.window.forgive();
    assert!(!trial.window.refuse(3, trial.now_s));
}

#[test]
fn more_is_promised_when_there_is_more() {
    let mut trial = Trial::new(1);
    assert!(trial.ask(1) && !trial.ask(2));
    let wait_s = trial.window.more_in_s(trial.now_s);
    trial.now_s += wait_s - 1;
    assert!(!trial.ask(2));
    trial.now_s += 1;
    assert!(trial.ask(2));
}

#[test]
fn a_clock_that_goes_back_gives_nothing() {
    let mut trial = Trial::new(2);
    assert!(trial.ask(1));
    trial.now_s -= 500;
    assert!(trial.ask(2) && !trial.ask(3));
    trial.restart(true);
    assert!(!trial.ask(3));
    trial.now_s += SPAN_S + 1;
    assert!(trial.ask(3), "and it takes no longer than the span from the restart on");
}

#[test]
fn a_clock_that_was_ahead_keeps_nobody_for_longer_than_the_span() {
    let mut trial = Trial::new(2);
    assert!(trial.ask(1));
    trial.now_s += 10_000;
    assert!(trial.ask(2));
    trial.now_s -= 10_000;
    assert!(trial.ask(2) && trial.ask(3) && !trial.ask(4), "the first has counted for its time");
    trial.now_s += SPAN_S + 1;
    assert!(trial.ask(4) && trial.ask(5) && !trial.ask(6));
    assert!(trial.disk.len() <= 4, "{:?}", trial.disk);
}
