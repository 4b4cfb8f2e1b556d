//! No JWT is accepted that the issuer has not signed, whatever it looks like.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use vaultd::{
    auth::{Authenticator, Issuer, IssuerKeys, Issuers, Peer, ScopeSet, Settings},
    jose::KeySet,
    store::Store,
};

/// The key of RFC 7638, 3.1, whose private half nobody here has.
const KEYS: &str = r#"{"keys":[{"kty":"RSA","kid":"k","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}]}"#;

struct Fixture {
    authenticator: Authenticator,
    runtime: Runtime,
    _dir: TempDir,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let settings = Settings {
        audience: "vaultd".to_owned(),
        leeway_s: 30,
        cache_entries: 10,
        single_use: ScopeSet::default(),
        replay_entries: 10,
    };
    let keys = KeySet::parse(KEYS).ok().expect("the RFC's key is a key");
    let keys = IssuerKeys::File(keys);
    let issuer = Issuer { keys, max_lifetime_s: u64::MAX, scopes: ScopeSet::all(), tenants: None };
    let issuers = Issuers { by_name: [("i".to_owned(), issuer)].into() };
    let dir = tempfile::tempdir().expect("a place for the store");
    let store = Store::create(dir.path(), [0; 16], 1 << 20, 16).expect("a new store");
    let authenticator = Authenticator::new(settings, issuers, Box::new(|| None), store);
    let runtime = Builder::new_current_thread().build().expect("a runtime without drivers");
    Fixture { authenticator, runtime, _dir: dir }
});

fuzz_target!(|header: &[u8]| {
    let peer = Peer { uid: 0, gid: 0, pid: None };
    let Fixture { authenticator, runtime, .. } = &*FIXTURE;
    let caller = authenticator.identify(Some(header), peer, 1_800_000_000);
    assert!(runtime.block_on(caller).is_err());
});
