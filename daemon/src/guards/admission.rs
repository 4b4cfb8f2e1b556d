//! Whether cards may be revealed to a caller: counted first, revealed afterwards.

use std::sync::{Arc, MutexGuard, atomic::Ordering};

use super::{
    Guards, Kind, MOST_METERS, RevealLimits,
    meter::{Counts, Left, Meter},
    window::Look,
};
use crate::{store::StoreError, vault::now_s};

/// Names of the limits in `RateLimit` fields: by kind, then by the place of a [`Left`].
const NAMES: [[&str; 3]; 3] = [
    ["subject-second", "subject-hour", "subject-day"],
    ["tenant-second", "tenant-hour", "tenant-day"],
    ["uid-second", "uid-hour", "uid-day"],
];
const BATCH_NAMES: [&str; 3] = ["subject-batch", "tenant-batch", "uid-batch"];
/// Spans of the limits, in seconds, by the place of a [`Left`].
const SPANS_S: [u64; 3] = [1, 3_600, 86_400];
/// The same limits as metrics name them.
const METRIC_NAMES: [&str; 3] = ["requests_per_second", "pans_per_hour", "pans_per_day"];

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'c> {
    /// The `iss` of its JWT.
    pub issuer: &'c str,
    /// Its `sub`.
    pub subject: &'c str,
    /// The tenant it acts for.
    pub tenant: &'c str,
    /// Its user id.
    pub uid: u32,
}

/// A card as the guards know it: a hash of what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card(u64);

/// How much of a limit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The limit's name, as in `subject-hour`.
    pub policy: &'static str,
    /// How much is left.
    pub left: usize,
    /// In how many seconds there is more.
    pub more_in_s: u64,
}

/// What was admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// For each card, whether it may be revealed; as many as were asked for.
    pub granted: Vec<bool>,
    /// The limit that is nearest its end now; the one that refused a card, if one did.
    pub quota: Option<Quota>,
}

/// Why nothing is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A limit is reached.
    Limit(Quota),
    /// The batch is larger than the limit of this name.
    Batch(Quota),
    /// The caller was far over a limit and is locked now.
    Locked,
    /// There are too many callers to count for.
    TooManyCallers,
    /// The count cannot be made durable.
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What one look at the meters came to.
enum Step {
    Done(Option<Quota>),
    Locked,
    /// Blocks are needed first.
    Reserve,
    /// The daemon stops: nothing would be written down any more.
    Closed,
}

impl Guards {
    /// Whether nothing is limited, so that nothing needs to be counted.
    pub fn are_off(&self) -> bool {
        self.inner.rules.are_none()
    }

    /// The card that `token` of `tenant` stands for, or that an envelope of this name holds. The same for all of them
    /// where nothing needs to be counted.
    pub fn card(&self, tenant: &str, token: &[u8]) -> Card {
        if self.are_off() {
            return Card(0);
        }
        let hash = self.hash(b"vaultd guarded card v1", &[tenant.as_bytes(), token]);
        Card(hash.first_chunk().copied().map_or(0, u64::from_be_bytes))
    }

    /// A card that no other request asked for: a guess at a PAN, of which each may be another one.
    pub fn guess(&self) -> Card {
        if self.are_off() {
            return Card(0);
        }
        let number = self.inner.guesses.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let hash = self.hash(b"vaultd guarded guess v1", &[&self.inner.opened_ms.to_be_bytes(), &number]);
        Card(hash.first_chunk().copied().map_or(0, u64::from_be_bytes))
    }

    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, 3): every limit.
    pub fn policy(&self) -> String {
        let mut policies = Vec::new();
        for ((kind, names), batch) in Kind::ALL.into_iter().zip(NAMES).zip(BATCH_NAMES) {
            let limits = kind.limits(&self.inner.rules);
            let requests = limits.requests_per_second.map(u64::from);
            let wide = |limit: Option<usize>| limit.and_then(|limit| u64::try_from(limit).ok());
            let limited = [requests, wide(limits.pans_per_hour), wide(limits.pans_per_day)];
            for ((name, limit), span_s) in names.into_iter().zip(limited).zip(SPANS_S) {
                policies.extend(limit.map(|limit| format!("\"{name}\";q={limit};w={span_s}")));
            }
            policies.extend(limits.batch_items.map(|limit| format!("\"{batch}\";q={limit}")));
        }
        policies.join(", ")
    }

    /// Counts a request for `cards`, and each of them that does not count already, before they are revealed.
    ///
    /// A card that does not fit is refused alone. All of it is durable when this returns, in the sense that a crash
    /// does not give it back. `on_lock` is called if that locks the caller, whether or not it stays to hear of it.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn admit(
        &self,
        caller: &Caller<'_>,
        cards: &[Card],
        on_lock: impl FnOnce() + Send,
    ) -> Result<Admitted, Refused> {
        if self.are_off() {
            return Ok(Admitted { granted: vec![true; cards.len()], quota: None });
        }
        self.require_batch(cards.len())?;
        let meters = self.meters(caller)?;
        self.count_request(&meters)?;
        let mut granted = Vec::with_capacity(cards.len());
        loop {
            match self.count_cards(&meters, cards, &mut granted) {
                Step::Done(Some(quota)) if !cards.is_empty() && !granted.contains(&true) => {
                    return Err(Refused::Limit(quota));
                }
                Step::Done(quota) => return Ok(Admitted { granted, quota }),
                Step::Locked => {
                    if let Some(written) = self.lock(caller, "asked for far more cards than it may see") {
                        on_lock();
                        // It writes until it is done; what is left is a stop of the daemon.
                        let _ = written.await;
                    }
                    return Err(Refused::Locked);
                }
                Step::Closed => return Err(StoreError::Failed("the daemon is stopping".to_owned()).into()),
                Step::Reserve => {
                    let wanted = cards.len().saturating_sub(granted.len());
                    for (_, meter) in &meters {
                        self.reserve(meter, wanted).await?;
                    }
                }
            }
        }
    }

    fn require_batch(&self, items: usize) -> Result<(), Refused> {
        for (kind, policy) in Kind::ALL.into_iter().zip(BATCH_NAMES) {
            let most = kind.limits(&self.inner.rules).batch_items;
            if let Some(most) = most.filter(|most| items > *most) {
                self.inner.stats.rate_limited("batch_items");
                return Err(Refused::Batch(Quota { policy, left: most, more_in_s: 1 }));
            }
        }
        Ok(())
    }

    /// The meters that count for `caller`, always in the same order.
    fn meters(&self, caller: &Caller<'_>) -> Result<Vec<(Kind, Arc<Meter>)>, Refused> {
        let limited =
            Kind::ALL.into_iter().filter(|kind| *kind.limits(&self.inner.rules) != RevealLimits::default());
        limited
            .map(|kind| {
                let name = match kind {
                    Kind::Subject => {
                        self.meter_name(kind, &[caller.issuer.as_bytes(), caller.subject.as_bytes()])
                    }
                    Kind::Tenant => self.meter_name(kind, &[caller.tenant.as_bytes()]),
                    Kind::Uid => self.meter_name(kind, &[&caller.uid.to_be_bytes()]),
                };
                Ok((kind, self.meter(kind, name, MOST_METERS).ok_or(Refused::TooManyCallers)?))
            })
            .collect()
    }

    fn count_request(&self, meters: &[(Kind, Arc<Meter>)]) -> Result<(), Refused> {
        let step = self.step();
        let mut counts = all(meters);
        for (kind, counts) in &mut counts {
            if let Some(left) = counts.requests(step).filter(|left| left.cards == 0) {
                return Err(self.refused(quota(*kind, &left)));
            }
        }
        for (_, counts) in &mut counts {
            counts.take_request();
        }
        Ok(())
    }

    /// Counts the cards that are not in `granted` yet, up to the first for which a block is needed.
    fn count_cards(&self, meters: &[(Kind, Arc<Meter>)], cards: &[Card], granted: &mut Vec<bool>) -> Step {
        let now_s = now_s();
        let mut counts = all(meters);
        if self.inner.closed.load(Ordering::SeqCst) {
            return Step::Closed;
        }
        let mut refused_by = None;
        for Card(card) in cards.iter().skip(granted.len()) {
            let mut full = None;
            let mut reserve = false;
            for (kind, counts) in &mut counts {
                let (look, left) = counts.look(*card, now_s);
                reserve |= look == Look::Reserve;
                let left = left.map(|left| quota(*kind, &left));
                // Until there is room in all of them.
                full = left.into_iter().chain(full).max_by_key(|quota: &Quota| quota.more_in_s);
            }
            if full.is_some() {
                let mut subject = counts.iter_mut().filter(|(kind, _)| *kind == Kind::Subject);
                if subject.any(|(_, counts)| counts.refuse(*card, now_s)) {
                    return Step::Locked;
                }
                refused_by = refused_by.or(full);
                granted.push(false);
            } else if reserve {
                return Step::Reserve;
            } else {
                for (_, counts) in &mut counts {
                    counts.take(*card, now_s);
                }
                granted.push(true);
            }
        }
        if let Some(quota) = refused_by {
            let refusal = self.refused(quota);
            return Step::Done(if let Refused::Limit(quota) = refusal { Some(quota) } else { None });
        }
        Step::Done(nearest(&counts, now_s))
    }

    /// Counts a refusal.
    fn refused(&self, quota: Quota) -> Refused {
        let place = NAMES.iter().find_map(|names| names.iter().position(|name| *name == quota.policy));
        let name = place.and_then(|place| METRIC_NAMES.get(place)).copied().unwrap_or_default();
        self.inner.stats.rate_limited(name);
        Refused::Limit(quota)
    }

    /// Makes a block durable for each window of `meter` that has no room for `wanted` cards; to its end, even if the
    /// caller goes away.
    async fn reserve(&self, meter: &Arc<Meter>, wanted: usize) -> Result<(), Refused> {
        let (guards, meter) = (self.clone(), Arc::clone(meter));
        let reserved = tokio::spawn(async move {
            let _turn = meter.reserving.lock().await;
            let (plans, rows) = meter.plan(wanted, now_s());
            if plans.iter().all(Option::is_none) {
                return Ok(());
            }
            guards.inner.next_row.fetch_max(meter.next_row().saturating_add(1), Ordering::Relaxed);
            guards.inner.store.change_windows(rows).await?;
            meter.begin(&plans);
            Ok(())
        });
        let stopped = || StoreError::Failed("the reservation was stopped".to_owned());
        reserved.await.unwrap_or_else(|_| Err(stopped())).map_err(Refused::Store)
    }
}

/// The counts of all meters at once.
fn all(meters: &[(Kind, Arc<Meter>)]) -> Vec<(Kind, MutexGuard<'_, Counts>)> {
    meters.iter().map(|(kind, meter)| (*kind, meter.counts())).collect()
}

/// The limit that is nearest its end.
fn nearest(counts: &[(Kind, MutexGuard<'_, Counts>)], now_s: u64) -> Option<Quota> {
    let left = counts.iter().flat_map(|(kind, counts)| counts.left(now_s).map(|left| (*kind, left)));
    let nearest = left.reduce(|one, other| if other.1.is_nearer_its_end(&one.1) { other } else { one });
    nearest.map(|(kind, left)| quota(kind, &left))
}

fn quota(kind: Kind, left: &Left) -> Quota {
    let kind = Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default();
    let policy = NAMES.get(kind).and_then(|names| names.get(left.place)).copied().unwrap_or_default();
    Quota { policy, left: left.cards, more_in_s: left.more_in_s }
}
