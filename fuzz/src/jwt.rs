//! Bearer tokens: none is taken that its issuer has not signed for this vault and this time.

use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use vaultd::{
    auth::{Authenticator, Issuers, Peer, ScopeSet, Settings},
    store::Store,
};

use crate::{issuer::Signer, world::scratch};

const NOW_S: u64 = 1_800_000_000;
const LEEWAY_S: u64 = 30;
const PEER: Peer = Peer { uid: 0, gid: 0, pid: None };
const GOOD: (&str, &str) = (
    r#"{"alg":"RS256","kid":"k"}"#,
    r#"{"iss":"i","sub":"s","aud":"vaultd","iat":1800000000,"exp":1800000100,"tenant":"north"}"#,
);

struct Fixture {
    authenticator: Authenticator,
    signer: Signer,
    runtime: Runtime,
    _dir: TempDir,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let settings = Settings {
        audience: "vaultd".to_owned(),
        leeway_s: LEEWAY_S,
        cache_entries: 10,
        single_use: ScopeSet::default(),
        replay_entries: 10,
    };
    let (signer, issuer) = Signer::new();
    let issuers = Issuers { by_name: [("i".to_owned(), issuer)].into() };
    let dir = scratch("jwt");
    let store = Store::create(dir.path(), [0; 16], 1 << 20, 16).expect("a new store");
    let authenticator = Authenticator::new(settings, issuers, Box::new(|| None), store);
    let runtime = Builder::new_current_thread().build().expect("a runtime without drivers");
    let good = format!("Bearer {}", signer.sign(GOOD.0.as_bytes(), GOOD.1.as_bytes()));
    let taken = runtime.block_on(authenticator.identify(Some(good.as_bytes()), PEER, NOW_S));
    assert!(taken.is_ok(), "nothing that is signed would be taken");
    Fixture { authenticator, signer, runtime, _dir: dir }
});

/// With a first byte `h`, the others are the value of an `Authorization` header, which nobody has signed. Else they are
/// a header and claims, with a line feed between them, that the issuer signs.
pub fn jwt(bytes: &[u8]) {
    let Fixture { authenticator, signer, runtime, .. } = &*FIXTURE;
    let identify = |value: &[u8]| runtime.block_on(authenticator.identify(Some(value), PEER, NOW_S));
    let Some((kind, rest)) = bytes.split_first() else { return };
    if *kind == b'h' {
        assert!(identify(rest).is_err());
        return;
    }
    let (header, claims) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    let claims = claims.strip_prefix(b"\n").unwrap_or_default();
    if let Ok(caller) = identify(format!("Bearer {}", signer.sign(header, claims)).as_bytes()) {
        assert_eq!(caller.issuer(), "i");
        assert!(!caller.subject().is_empty() && !caller.tenant().is_empty());
        expect_good(header, claims);
    }
}

/// What holds of every JWT that is taken, as another reader of JSON sees it.
fn expect_good(header: &[u8], claims: &[u8]) {
    let header: Value = serde_json::from_slice(header).expect("a header that was taken is JSON");
    let claims: Value = serde_json::from_slice(claims).expect("claims that were taken are JSON");
    assert_eq!(header["alg"], "RS256");
    assert!(header.get("crit").is_none());
    let audience = &claims["aud"];
    assert!(
        *audience == "vaultd" || audience.as_array().is_some_and(|all| all.iter().any(|one| one == "vaultd"))
    );
    let date = |name: &str| claims[name].as_f64();
    let (now, leeway) = (1_800_000_000_f64, 30_f64);
    let (iat, exp) = (date("iat").expect("it has a beginning"), date("exp").expect("it has an end"));
    assert!(iat < now + leeway + 1.0 && exp + leeway + 1.0 > now && exp - iat < 3_601.0);
    assert!(date("nbf").is_none_or(|nbf| nbf < now + leeway + 1.0));
    assert!(claims.get("approves").is_none_or(Value::is_null));
}
