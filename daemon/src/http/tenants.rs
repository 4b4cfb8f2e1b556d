//! What is counted and bounded for each tenant.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Instant,
};

use super::{app::App, bucket::Bucket, problem::Failure};
use crate::metrics::Page;

/// Tenants that are counted by name; those after them are counted as one. An issuer may name any number.
const MAX_NAMED: usize = 1_000;
/// The label of requests that were refused before their tenant was known.
const UNKNOWN: &str = "";
/// The label of tenants beyond [`MAX_NAMED`].
const OTHERS: &str = "…";

/// Where a request's tenant is noted once it is known. Travels as an extension of the request.
#[derive(Clone, Default)]
pub(super) struct TenantOf(Arc<OnceLock<Arc<Tenant>>>);

/// Every tenant that has called.
pub(super) struct Tenants {
    /// Requests a second that one tenant may make; any number if `None`.
    most_per_second: Option<u32>,
    allowances: Mutex<Allowances>,
    by_name: RwLock<HashMap<String, Arc<Tenant>>>,
    unknown: Arc<Tenant>,
}

/// What each tenant has left, those beyond [`MAX_NAMED`] too.
#[derive(Default)]
struct Allowances {
    by_name: HashMap<String, Bucket>,
    /// How many there were after those were dropped that had everything left.
    kept: usize,
}

#[derive(Default)]
pub(super) struct Tenant {
    name: String,
    requests: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl App {
    /// Notes that a request is `tenant`'s, and refuses it if there are too many.
    pub(super) fn admit_tenant(&self, tenant: &str, tenant_of: Option<&TenantOf>) -> Result<(), Failure> {
        let admitted = self.tenants().admit(tenant, tenant_of);
        admitted.inspect_err(|_| self.guards().stats().rate_limited("tenant_requests"))
    }
}

impl Tenants {
    pub(super) fn new(most_per_second: Option<u32>) -> Self {
        let unknown = Arc::new(Tenant { name: UNKNOWN.to_owned(), ..Tenant::default() });
        Self { most_per_second, allowances: Mutex::default(), by_name: RwLock::default(), unknown }
    }

    /// As [`App::admit_tenant`], but counts no refusal.
    fn admit(&self, name: &str, tenant_of: Option<&TenantOf>) -> Result<(), Failure> {
        if let Some(TenantOf(place)) = tenant_of {
            let _ = place.set(self.tenant(name));
        }
        let Some(most) = self.most_per_second else { return Ok(()) };
        let mut allowances = self.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        if allowances.take(name, most.into(), Instant::now()) {
            return Ok(());
        }
        let detail = "this tenant makes more requests a second than it may: slow down";
        Err(Failure::too_fast("tenant", most, detail))
    }

    /// Counts a request that was answered.
    pub(super) fn count(&self, tenant_of: &TenantOf, route: &'static str, code: &'static str) {
        let tenant = tenant_of.0.get().unwrap_or(&self.unknown);
        let mut requests = tenant.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, code)).or_default() += 1;
    }

    /// Writes the counts.
    pub(super) fn write(&self, page: &mut Page) {
        let mut family = page.counters("vaultd_requests_total", "Requests that were answered.");
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let mut tenants: Vec<_> = by_name.values().chain([&self.unknown]).collect();
        tenants.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for tenant in tenants {
            for ((route, code), count) in &*tenant.requests.lock().unwrap_or_else(PoisonError::into_inner) {
                family.sample(&[("route", route), ("code", code), ("tenant", &tenant.name)], count);
            }
        }
    }

    fn tenant(&self, name: &str) -> Arc<Tenant> {
        if let Some(tenant) = self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(tenant);
        }
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let name = if by_name.len() < MAX_NAMED { name } else { OTHERS };
        let tenant = by_name.entry(name.to_owned());
        Arc::clone(tenant.or_insert_with(|| Arc::new(Tenant { name: name.to_owned(), ..Tenant::default() })))
    }
}

impl Allowances {
    /// Takes one of the tenant `name`, who has `most`, all of which come back within a second.
    fn take(&mut self, name: &str, most: f64, now: Instant) -> bool {
        if let Some(bucket) = self.by_name.get_mut(name) {
            return bucket.take(most, most, now);
        }
        // An issuer may name any number of tenants: those who have not called for a second need no place.
        if self.by_name.len() >= 2 * self.kept.max(MAX_NAMED) {
            self.by_name.retain(|_, bucket| !bucket.is_full(most, most, now));
            self.kept = self.by_name.len();
        }
        self.by_name.entry(name.to_owned()).or_insert_with(|| Bucket::full(most, now)).take(most, most, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_tenant_has_a_bucket_of_its_own() {
        let tenants = Tenants::new(Some(2));
        let admitted = |name: &str| tenants.admit(name, None).is_ok();
        assert!(admitted("a") && admitted("a") && !admitted("a"));
        assert!((0..2 * MAX_NAMED).all(|n| admitted(&n.to_string())), "however many there are");
        assert!(admitted("b") && admitted("b") && !admitted("b"));
    }

    #[test]
    fn tenants_that_have_everything_left_need_no_place() {
        let (mut allowances, began) = (Allowances::default(), Instant::now());
        for n in 0..10 * MAX_NAMED {
            // A thousand a second.
            assert!(allowances.take(
                &n.to_string(),
                2.0,
                began + Duration::from_millis(n.try_into().unwrap())
            ));
        }
        assert!(allowances.by_name.len() <= 2 * MAX_NAMED, "{}", allowances.by_name.len());
    }

    #[test]
    fn what_is_not_named_is_counted_as_one() {
        let tenants = Tenants::new(None);
        for n in 0..MAX_NAMED + 5 {
            let of = TenantOf::default();
            assert!(tenants.admit(&n.to_string(), Some(&of)).is_ok());
            tenants.count(&of, "/v1/tokenize", "ok");
        }
        tenants.count(&TenantOf::default(), "other", "missing_token");
        let mut page = Page::default();
        tenants.write(&mut page);
        let text = page.into_text();
        assert!(text.contains("tenant=\"…\"} 5\n"), "{text}");
        assert!(text.contains("{route=\"other\",code=\"missing_token\",tenant=\"\"} 1\n"));
    }
}
