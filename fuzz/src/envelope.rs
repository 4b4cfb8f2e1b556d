//! Envelopes: none opens but what the vault has sealed.

use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;
use vault_api::CardData;
use vaultd::vault::EnvelopeWish;

use crate::{session::Session, world::scratch};

const TENANT: &str = "north";
const PAN: &str = "4111111111111111";

struct Fixture {
    session: Session,
    _dir: TempDir,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let dir = scratch("envelope");
    Fixture { session: Session::begin(dir.path()), _dir: dir }
});

/// With a first byte `t`, the others are an envelope; with `c`, claims that the vault's own key signs; with `s`, an
/// audience that an envelope is sealed for, which opens.
pub fn envelope(bytes: &[u8]) {
    let Session { runtime, vault, .. } = &FIXTURE.session;
    let Some((kind, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match kind {
        b't' => assert!(runtime.block_on(vault.open_envelope(TENANT, text, |_| ())).is_err()),
        b'c' => {
            let Ok(mut claims) = serde_json::from_str::<Value>(text) else { return };
            if claims["exp"] == "soon" {
                claims["exp"] = (vaultd::vault::now_s() + 60).into();
            }
            let signed =
                runtime.block_on(vault.keys().signer().sign("envelope+jwt", &claims)).expect("a signature");
            // The vault has sealed nothing for these claims.
            assert!(runtime.block_on(vault.open_envelope(TENANT, &signed, |_| ())).is_err());
        }
        _ => {
            let card = CardData { card_number: PAN.into(), expiry_date: "12/39".into(), cvv: None };
            let wish =
                EnvelopeWish { audience: Some(text.to_owned()), expires_in_s: None, single_use: false };
            let Ok((jwt, sealed)) = runtime.block_on(vault.seal_envelope(TENANT, &card, wish)) else {
                assert!(text.is_empty() || text.len() > 200);
                return;
            };
            assert!(!jwt.contains(PAN));
            let (opened, claims) =
                runtime.block_on(vault.open_envelope(TENANT, &jwt, |_| ())).expect("it opens");
            assert_eq!((opened.card_number.expose(), &claims, &*claims.aud), (PAN, &sealed, text));
            assert!(runtime.block_on(vault.open_envelope("south", &jwt, |_| ())).is_err());
        }
    }
}
