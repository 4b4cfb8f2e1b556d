//! What the daemon does from time to time while it serves.

use std::{sync::Arc, time::Duration};

use crate::{
    audit::{Audit, Event},
    auth::Authenticator,
    config::Config,
    guards::Guards,
    vault::{Keys, Vault, settled_s},
};

/// Removes tokens that have ended, and tells the audit log.
pub(super) async fn sweep(vault: Vault, config: Config, audit: Audit) {
    let mut ticks = tokio::time::interval(config.store.sweep_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Lets a caller who comes a little late hear "expired" rather than "unknown".
    let grace_s = config.store.expired_grace.as_secs();
    loop {
        ticks.tick().await;
        let told = |tokens| {
            let detail = format!("removed {tokens} tokens that have ended");
            audit.event(&Event { event: "tokens.swept", detail: Some(&detail), ..Event::default() });
            tracing::info!(tokens, "removed tokens that have ended");
        };
        if let Err(error) = vault.sweep(settled_s().saturating_sub(grace_s), told).await {
            tracing::error!(%error, "cannot remove tokens that have ended");
        }
    }
}

/// Rotates keys that near their last encryption, and says once a day which ones an operator should see to.
pub(super) async fn keep_keys(keys: Keys) {
    const PAUSE: Duration = Duration::from_hours(24);
    let warn = async {
        loop {
            match keys.report() {
                Ok(reports) => {
                    for (report, warning) in
                        reports.iter().filter_map(|report| Some((report, report.warning?)))
                    {
                        tracing::warn!(key = %report.name, advice = warning.advice(), "a key needs an operator");
                    }
                }
                Err(error) => tracing::error!(%error, "the keys cannot be looked at"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::join!(keys.tend(), warn);
}

/// Takes over changed key files of issuers without being told: a key that is removed must stop working.
pub(super) async fn watch_issuers(auth: Arc<Authenticator>) {
    const PAUSE: Duration = Duration::from_secs(1);
    /// Of a look that may never end; after a reload there is another.
    const PATIENCE: Duration = Duration::from_secs(5);
    loop {
        tokio::time::sleep(PAUSE).await;
        let _ = tokio::time::timeout(PATIENCE, auth.refresh()).await;
    }
}

/// Forgets callers for whom nothing counts any more.
pub(super) async fn tidy_guards(guards: Guards) {
    const PAUSE: Duration = Duration::from_mins(1);
    loop {
        tokio::time::sleep(PAUSE).await;
        if let Err(error) = guards.tidy().await {
            tracing::error!(%error, "cannot remove what the guards count no more");
        }
    }
}
