//! What is counted for one subject, tenant or user id.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    RevealLimits,
    rate::Rate,
    rows::{Row, WINDOW_NAME_BYTES, WindowName, store_rows},
    window::{Look, Plan, RowChanges, Window},
};
use crate::store::WindowRows;

/// Bytes that name whom a meter counts for: what it is, and a hash of its name.
pub(super) const METER_NAME_BYTES: usize = WINDOW_NAME_BYTES - 1;
/// A meter's name.
pub(super) type MeterName = [u8; METER_NAME_BYTES];

/// The spans that are counted: what their windows' names end with, and seconds.
const SPANS: [(u8, u64); 2] = [(b'h', 3_600), (b'd', 86_400)];

/// Counts for one subject, tenant or user id.
#[derive(Debug)]
pub(super) struct Meter {
    name: MeterName,
    counts: Mutex<Counts>,
    /// Held by whoever makes a block durable.
    pub(super) reserving: tokio::sync::Mutex<()>,
}

/// The counts, open to one thread at a time. Nothing waits for I/O while it has them.
#[derive(Debug)]
pub(super) struct Counts {
    rate: Option<Rate>,
    /// In the order of [`SPANS`].
    windows: [Option<Window>; SPANS.len()],
}

/// Blocks that are to be made durable, in the order of [`SPANS`].
pub(super) type Plans = [Option<Plan>; SPANS.len()];

/// How much of a limit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Which limit: 0 requests, then in the order of [`SPANS`].
    pub(super) place: usize,
    pub(super) limit: usize,
    /// Cards, or requests.
    pub(super) cards: usize,
    /// In how many seconds there is more.
    pub(super) more_in_s: u64,
}

impl Left {
    /// Whether less is left of this than of `other`, in parts of their limits.
    pub(super) fn is_nearer_its_end(&self, other: &Self) -> bool {
        let parts = |one: usize, of: usize| u128::from(wide(one)) * u128::from(wide(of));
        parts(self.cards, other.limit) < parts(other.cards, self.limit)
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Meter {
    /// `first_row`: a number above that of every row there ever was.
    pub(super) fn new(name: MeterName, limits: &RevealLimits, first_row: u64) -> Self {
        let limited = [
            (limits.pans_per_hour, limits.lock_at_pans_per_hour),
            (limits.pans_per_day, limits.lock_at_pans_per_day),
        ];
        let mut wanted = SPANS.iter().zip(limited);
        let windows = std::array::from_fn(|_| {
            let ((_, span_s), (limit, lock_at)) = wanted.next()?;
            Some(Window::new(*span_s, limit?, lock_at, first_row))
        });
        let counts = Counts { rate: limits.requests_per_second.map(Rate::new), windows };
        Self { name, counts: Mutex::new(counts), reserving: tokio::sync::Mutex::default() }
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a row of the window `name`; `None` if that is not counted any more.
    pub(super) fn load(&self, name: &WindowName, number: u64, row: Row, now_s: u64) -> Option<WindowRows> {
        let span = name.last()?;
        let mut counts = self.counts();
        let (_, window) = SPANS.iter().zip(&mut counts.windows).find(|((letter, _), _)| letter == span)?;
        Some(store_rows(name, window.as_mut()?.load(number, row, now_s)))
    }

    /// Plans a block for each window that has no room for `wanted` cards and may get it.
    pub(super) fn plan(&self, wanted: usize, now_s: u64) -> (Plans, WindowRows) {
        let mut rows = WindowRows::default();
        let mut counts = self.counts();
        let mut windows = SPANS.iter().zip(&mut counts.windows);
        let plans = std::array::from_fn(|_| {
            let ((letter, _), window) = windows.next()?;
            let (plan, changes) = window.as_mut()?.plan(wanted, now_s)?;
            rows.append(store_rows(&self.window_name(*letter), changes));
            Some(plan)
        });
        (plans, rows)
    }

    /// Uses the blocks of `plans`, which are durable now.
    pub(super) fn begin(&self, plans: &Plans) {
        for (window, plan) in self.counts().windows.iter_mut().zip(plans) {
            if let (Some(window), Some(plan)) = (window, plan) {
                window.begin(plan);
            }
        }
    }

    /// A number above that of every row it has planned.
    pub(super) fn next_row(&self) -> u64 {
        self.counts().windows.iter().flatten().map(Window::next_row).max().unwrap_or(0)
    }

    /// What is to be on disk when no more cards are counted.
    pub(super) fn written_down(&self) -> WindowRows {
        self.rows(Window::written_down)
    }

    /// Whether nothing counts any more in `step` of `now_s`; then the rows that may still be on disk.
    pub(super) fn idle_rows(&self, step: u64, now_s: u64) -> Option<WindowRows> {
        let idle = self.counts().are_idle(step, now_s);
        idle.then(|| self.rows(|window| RowChanges { put: Vec::new(), remove: window.every_row() }))
    }

    fn rows(&self, of: impl Fn(&Window) -> RowChanges) -> WindowRows {
        let mut rows = WindowRows::default();
        for ((letter, _), window) in SPANS.iter().zip(&self.counts().windows) {
            if let Some(window) = window {
                rows.append(store_rows(&self.window_name(*letter), of(window)));
            }
        }
        rows
    }

    fn window_name(&self, letter: u8) -> WindowName {
        let mut name = [letter; WINDOW_NAME_BYTES];
        for (place, byte) in name.iter_mut().zip(&self.name) {
            *place = *byte;
        }
        name
    }
}

impl Counts {
    /// How many requests are left in `step`, where they are limited.
    pub(super) fn requests(&mut self, step: u64) -> Option<Left> {
        let rate = self.rate.as_mut()?;
        let left = usize::try_from(rate.left(step)).unwrap_or(usize::MAX);
        let limit = usize::try_from(rate.limit()).unwrap_or(usize::MAX);
        Some(Left { place: 0, limit, cards: left, more_in_s: 1 })
    }

    pub(super) fn take_request(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.take();
        }
    }

    /// What there is to say of `card`: the worst that a window says, and what is left of the window that is full for the
    /// longest.
    pub(super) fn look(&mut self, card: u64, now_s: u64) -> (Look, Option<Left>) {
        let (mut worst, mut full) = (Look::Known, None);
        for (place, window) in self.windows.iter_mut().enumerate() {
            let Some(window) = window else { continue };
            match window.look(card, now_s) {
                Look::Full => {
                    let also = left(place, window, now_s);
                    full = [also].into_iter().chain(full).max_by_key(|left| left.more_in_s);
                }
                Look::Reserve => worst = Look::Reserve,
                Look::Room if worst == Look::Known => worst = Look::Room,
                Look::Room | Look::Known => {}
            }
        }
        if full.is_some() { (Look::Full, full) } else { (worst, None) }
    }

    /// Counts `card` in every window, of which none is full.
    pub(super) fn take(&mut self, card: u64, now_s: u64) {
        for window in self.windows.iter_mut().flatten() {
            window.take(card, now_s);
        }
    }

    /// Notes that `card` was refused, if that was for one of these windows; says whether its caller is far over a limit now.
    pub(super) fn refuse(&mut self, card: u64, now_s: u64) -> bool {
        if self.look(card, now_s).0 != Look::Full {
            return false;
        }
        self.windows.iter_mut().flatten().any(|window| window.refuse(card, now_s))
    }

    fn are_idle(&mut self, step: u64, now_s: u64) -> bool {
        self.requests(step).is_none_or(|left| left.cards == left.limit)
            && self.windows.iter_mut().flatten().all(|window| window.is_idle(now_s))
    }

    pub(super) fn forgive(&mut self) {
        self.windows.iter_mut().flatten().for_each(Window::forgive);
    }

    /// What is left in each window.
    pub(super) fn left(&self, now_s: u64) -> impl Iterator<Item = Left> {
        let windows = self.windows.iter().enumerate();
        windows.filter_map(move |(place, window)| Some(left(place, window.as_ref()?, now_s)))
    }
}

fn left(place: usize, window: &Window, now_s: u64) -> Left {
    let (limit, cards) = (window.limit(), window.left());
    Left { place: place + 1, limit, cards, more_in_s: window.more_in_s(now_s) }
}
