//! What the domain shows a scrape: keys, the rewrap job, and its engines.

use super::{KeyReport, Vault};
use crate::{hsm::Operation, metrics::Page};

impl Vault {
    /// Writes how engines, keys and the rewrap job stand. What cannot be read from the store is left out: a zero would
    /// look like a loss.
    pub fn write_metrics(&self, page: &mut Page) {
        self.hsm.write_metrics(page);
        self.store.write_metrics(page);
        if let Ok(reports) = self.keys.report() {
            self.write_keys(page, &reports);
        }
        let Ok(rewrap) = self.rewrap_report() else { return };
        for (name, help, value) in [
            ("vaultd_rewrap_running", "1 while a rewrap is on its way, else 0.", u64::from(rewrap.running)),
            (
                "vaultd_rewrap_waiting",
                "1 while it waits for the HSM or the store, else 0.",
                u64::from(rewrap.waiting),
            ),
            ("vaultd_rewrap_done_records", "Records the last rewrap has brought to new keys.", rewrap.done),
            ("vaultd_rewrap_failed_records", "Records the last rewrap could not open.", rewrap.failed),
            ("vaultd_rewrap_left_records", "Records that retired keys hold.", rewrap.left),
        ] {
            page.gauges(name, help).sample(&[], value);
        }
    }

    fn write_keys(&self, page: &mut Page, reports: &[KeyReport]) {
        let mut states = page.gauges("vaultd_key_state", "1, for the state that each key is in.");
        for KeyReport { name, state, .. } in reports {
            let version = name.version.to_string();
            let labels = [
                ("purpose", name.purpose.as_str()),
                ("version", version.as_str()),
                ("state", state.as_str()),
            ];
            states.sample(&labels, 1);
        }
        let live = || reports.iter().filter(|report| report.state.is_live());
        let mut each = |name, help, value: &dyn Fn(&KeyReport) -> Option<u64>| {
            let mut family = page.gauges(name, help);
            for report in live() {
                let (key, version) = (report.name, report.name.version.to_string());
                if let Some(value) = value(report) {
                    family.sample(&[("purpose", key.purpose.as_str()), ("version", &version)], value);
                }
            }
        };
        each("vaultd_key_age_seconds", "How old the key is.", &|report| Some(report.age_s));
        each("vaultd_key_cryptoperiod_seconds", "How long the key is to be used.", &|report| {
            Some(report.ends_at_s.saturating_sub(report.created_at_s))
        });
        each("vaultd_key_records", "Records that depend on the key.", &|report| report.records);
        each("vaultd_key_encryptions", "Encryptions that were counted under the key.", &|report| {
            report.encryptions
        });
        let most = self.keys.max_encryptions();
        each("vaultd_key_encryptions_max", "The most encryptions under the key.", &|report| {
            (report.name.purpose.operation() == Operation::Seal).then_some(most)
        });
    }
}
