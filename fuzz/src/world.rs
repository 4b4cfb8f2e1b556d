//! What targets work on that need more than bytes: a token of SoftHSM2 in the process, and a configuration.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use secrecy::SecretString;
use tempfile::TempDir;
use vaultd::{
    audit::Audit,
    config::Config,
    hsm::{self, Hsm, KeyName, Provisioner, Purpose},
    store::{KeyState, Store, StoredKey},
    vault::now_ms,
};

const TOKEN: &str = "fuzz";
/// Of a token that ends with the process.
const PIN: &str = "fuzz-user-pin";
/// Where distributions put SoftHSM2.
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
];
/// The id of every vault here.
const VAULT: [u8; 16] = [7; 16];
const CACHE_BYTES: usize = 1 << 20;
const QUEUE: usize = 256;

static WORLD: OnceLock<World> = OnceLock::new();

/// The token and the rules; there is one in a process.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) hsm: Hsm,
    /// Made once for each key: some take a signature.
    check_values: Mutex<BTreeMap<KeyName, Vec<u8>>>,
}

/// Makes the world. To be called before anything else: the module is told of its token by the environment, which can be
/// set while there is one thread.
pub fn prepare() {
    assert!(WORLD.set(World::new()).is_ok(), "there is one world");
}

/// The world that [`prepare`] has made.
pub(crate) fn world() -> &'static World {
    WORLD.get().expect("the target prepares the world")
}

/// A directory of its own for `what`, in memory where `TMPDIR` is.
pub(crate) fn scratch(what: &str) -> TempDir {
    tempfile::Builder::new().prefix(what).tempdir().expect("a place for files")
}

impl World {
    fn new() -> Self {
        // Nothing is dropped at the end of a process that libFuzzer ends: `scripts/fuzz` removes what TMPDIR holds.
        let dir = scratch("world").keep();
        let softhsm = dir.join("softhsm2.conf");
        let tokens = dir.join("tokens");
        fs::create_dir(&tokens).expect("a place for the token");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(&softhsm, text).expect("a place for the token's configuration");
        let conf = softhsm.to_str().expect("a path in UTF-8");
        hsm::set_module_environment([("SOFTHSM2_CONF", conf)]).expect("one thread");
        let config = configuration(&dir);
        let settings = settings(&config);
        let officer = SecretString::from("fuzz-officer-pin");
        hsm::initialize_token(&settings.library, TOKEN, &officer, &SecretString::from(PIN))
            .expect("a new token");
        let mut token = Provisioner::open(&settings).expect("the token opens");
        for purpose in Purpose::ALL {
            token.ensure(purpose).expect("the token makes a key");
        }
        token.close().expect("the token closes");
        let hsm = Hsm::open(&settings).expect("the token serves");
        Self { config, hsm, check_values: Mutex::default() }
    }

    /// An empty store in `dir` that knows every key of the token as the active one of its purpose.
    pub(crate) async fn new_store(&self, dir: &Path) -> Store {
        let store = Store::create(dir, VAULT, CACHE_BYTES, QUEUE).expect("a new store");
        for info in self.hsm.keys().expect("the token has keys") {
            let known = self.check_values.lock().expect("nobody panics").get(&info.name).cloned();
            let value = match known {
                Some(value) => value,
                None => self.hsm.record_key(info.name, VAULT.to_vec()).await.expect("a check value").0,
            };
            self.check_values.lock().expect("nobody panics").insert(info.name, value.clone());
            let key = StoredKey::new(KeyState::Active, now_ms(), value);
            store.put_key(&info.name.to_string(), &key).expect("the store takes keys");
        }
        store
    }

    /// The store in `dir`, opened again.
    pub(crate) fn open_store(dir: &Path) -> Store {
        Store::open(dir, CACHE_BYTES, QUEUE).expect("the store opens")
    }

    /// Removes from the token what `store` does not need to begin with: all but the active keys.
    pub(crate) async fn tidy_token(&self, store: &Store) {
        for (name, key) in store.keys().expect("the store has keys") {
            if key.state != KeyState::Active {
                let name = KeyName::parse(&name).expect("a key's name");
                self.hsm.release_key(name);
                self.hsm.destroy_key(name).await.expect("the token removes a key");
            }
        }
    }

    /// An audit log that keeps nothing.
    pub(crate) fn silence(&self) -> Audit {
        Audit::unkept(self.config.audit.clone(), &VAULT)
    }
}

fn settings(config: &Config) -> hsm::Settings {
    hsm::Settings {
        library: config.hsm.library.clone(),
        token: config.hsm.token.clone(),
        pin: Some(SecretString::from(PIN)),
        key_prefix: config.hsm.key_prefix.clone(),
        unfinished: Vec::new(),
        sessions: 2,
        queue: QUEUE,
        call_timeout: Duration::from_secs(20),
        max_written_off: 1,
    }
}

fn configuration(dir: &Path) -> Config {
    let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    let module = module.expect("SoftHSM2 is installed (apt-get install softhsm2)");
    let text = format!(
        r#"
[server]
socket = "{dir}/vaultd.sock"
admin_socket = "{dir}/admin.sock"
[hsm]
module = "{module}"
token_label = "{TOKEN}"
pin_file = "{dir}/hsm.pin"
[store]
dir = "{dir}/store"
[audit]
dir = "{dir}/audit"
[tokens]
default_template = "default"
[tokens.templates.default]
format = "uuid"
[tokens.templates.numeric]
format = "numeric"
keep_first = 6
keep_last = 4
[tokens.templates.opaque]
format = "opaque"
[tokens.templates.once]
format = "uuid"
reuse = "never"
"#,
        dir = dir.display(),
        module = module.display(),
    );
    Config::parse(Path::new("fuzz.toml"), &text).unwrap_or_else(|errors| panic!("{errors}"))
}
