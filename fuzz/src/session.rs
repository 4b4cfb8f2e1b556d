//! One life of a vault over a store: from opening it to closing it.

use std::{path::Path, time::Duration};

use tokio::runtime::{Builder, Runtime};
use vaultd::{
    store::Store,
    vault::{Keys, Vault, finish_key_changes},
};

use crate::world::{World, world};

/// How long a job may take that a run waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A vault in service.
pub(crate) struct Session {
    pub(crate) runtime: Runtime,
    pub(crate) vault: Vault,
    pub(crate) store: Store,
}

impl Session {
    /// A vault with a new store in `dir`.
    pub(crate) fn begin(dir: &Path) -> Self {
        let runtime = runtime();
        let store = runtime.block_on(world().new_store(dir));
        Self::serve(runtime, store)
    }

    /// The vault whose store is in `dir`, after a restart.
    pub(crate) fn resume(dir: &Path) -> Self {
        Self::serve(runtime(), World::open_store(dir))
    }

    fn serve(runtime: Runtime, store: Store) -> Self {
        let World { config, hsm, .. } = world();
        let audit = world().silence();
        let rules = config.keys.clone();
        let vault = runtime.block_on(async {
            finish_key_changes(hsm, &store, &rules, &audit).await.expect("key changes are finished");
            let keys = Keys::new(hsm.clone(), store.clone(), audit, rules).expect("the keys serve");
            // As fast as it can be.
            let pace = Duration::ZERO;
            let vault = Vault::new(keys, config.templates.clone(), config.envelopes.clone(), pace);
            vault.load_honey().await.expect("the store is read");
            vault.resume_rewrap().expect("the store is read");
            vault
        });
        Self { runtime, vault, store }
    }

    /// Waits until no rewrap is on its way.
    pub(crate) fn settle(&self) {
        self.runtime.block_on(async {
            let settled = async {
                while self.vault.rewrap_report().expect("the store is read").running {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(PATIENCE, settled).await.expect("the rewrap ends");
        });
    }

    /// Closes the store, as the daemon does when it stops: what it does in the background is cut off.
    pub(crate) fn end(self) {
        let Self { runtime, vault, store } = self;
        drop(vault);
        drop(runtime);
        store.close();
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}
