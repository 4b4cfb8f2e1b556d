//! A payment by envelope: a service seals a card into a JWT, a gateway verifies and opens it.
//!
//! ```text
//! VAULT_SOCKET=run/dev/vaultd.sock VAULT_TOKEN_FILE=run/dev/token.jwt cargo run --example gateway
//! ```
//!
//! Uses a test card. The gateway needs nothing of the vault to verify an envelope but its public keys; opening it
//! is what the vault does. Expired, invalid and replayed envelopes are told apart, by both.
// A program for people: what it has to say goes to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{error::Error, process::ExitCode, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use vault_client::{CardData, Code, EnvelopeClaims, SealEnvelopeAnswer, SealEnvelopeRequest, VaultClient};

/// The name the vault seals under.
const ISSUER: &str = "payment-service";
/// The name of this gateway.
const AUDIENCE: &str = "payment-gateway";
/// How long a payment may take from the customer's click to the gateway.
const LIFETIME_SECONDS: u64 = 30 * 60;
/// How far the vault's clock may be behind ours, in seconds: it opens an envelope until its own says that it has ended.
const CLOCKS_APART_SECONDS: u64 = 65;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match pay().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn pay() -> Result<(), Box<dyn Error>> {
    let vault = VaultClient::from_env()?;

    let envelope = seal(&vault, LIFETIME_SECONDS, true).await?;
    println!("  sealed    {} until {:.0}", envelope.jti, envelope.expires_at);

    let claims = verify(&vault, &envelope.jwt).await?;
    println!("  verified  RS256, {} → {}, tenant {}", claims.iss, claims.aud, claims.tenant);

    let opened = vault.open_envelope(&envelope.jwt).await?;
    let card = &opened.meta_data;
    let cvv = if card.cvv.is_some() { "with its CVV" } else { "without a CVV" };
    println!("  opened    {} {cvv}: pay now", masked(card.card_number.expose()));

    println!("  again     {}", refusal(&vault, &envelope.jwt, Code::EnvelopeReplayed).await?);
    invalid(&vault, &envelope.jwt).await?;
    expired(&vault).await
}

async fn seal(
    vault: &VaultClient,
    seconds: u64,
    single_use: bool,
) -> Result<SealEnvelopeAnswer, vault_client::Error> {
    let meta_data = CardData {
        card_number: "4111 1111 1111 1111".into(),
        expiry_date: "12/30".into(),
        cvv: Some("123".into()),
    };
    let request = SealEnvelopeRequest {
        meta_data,
        audience: Some(AUDIENCE.to_owned()),
        expires_in: Some(seconds),
        single_use: Some(single_use),
    };
    vault.seal_envelope(&request).await
}

/// The claims of an envelope that the vault signed for this gateway and that has not ended. Any JOSE library does.
async fn verify(vault: &VaultClient, jwt: &str) -> Result<EnvelopeClaims, Box<dyn Error>> {
    let kid = decode_header(jwt)?.kid.ok_or("the envelope names no key")?;
    // A real gateway keeps the key set, and asks for it again when it meets a key id that it does not know.
    let keys = vault.jwks().await?.keys;
    let key = keys.iter().find(|key| key.kid == kid).ok_or("the envelope's key is none of the vault's")?;

    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&[AUDIENCE]);
    rules.set_required_spec_claims(&["iss", "aud", "exp"]);
    rules.leeway = 0;
    let key = DecodingKey::from_rsa_components(&key.n, &key.e)?;
    Ok(decode::<EnvelopeClaims>(jwt, &key, &rules)?.claims)
}

/// Shows that an envelope of which one bit was changed is invalid.
async fn invalid(vault: &VaultClient, jwt: &str) -> Result<(), Box<dyn Error>> {
    let (signed, signature) = jwt.rsplit_once('.').ok_or("the envelope is no JWT")?;
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let changed = format!("{signed}.{first}{}", signature.get(1..).unwrap_or_default());
    match verify(vault, &changed).await {
        Err(error) if is(error.as_ref(), &ErrorKind::InvalidSignature) => {}
        _ => return Err("the changed envelope was taken for a signed one".into()),
    }
    println!("  changed   {}", refusal(vault, &changed, Code::EnvelopeInvalid).await?);
    Ok(())
}

/// Shows that an envelope whose time is over has expired, which is not the same as invalid.
async fn expired(vault: &VaultClient) -> Result<(), Box<dyn Error>> {
    let envelope = seal(vault, 1, false).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    match verify(vault, &envelope.jwt).await {
        Err(error) if is(error.as_ref(), &ErrorKind::ExpiredSignature) => {}
        _ => return Err("the envelope that has ended was taken for a good one".into()),
    }
    for _ in 0..CLOCKS_APART_SECONDS {
        if vault.open_envelope(&envelope.jwt).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("  too late  {}", refusal(vault, &envelope.jwt, Code::EnvelopeExpired).await?);
    Ok(())
}

/// The vault's words on an envelope that it must refuse with `code`.
async fn refusal(vault: &VaultClient, jwt: &str, code: Code) -> Result<String, Box<dyn Error>> {
    match vault.open_envelope(jwt).await {
        Err(error) if error.code() == Some(code) => Ok(format!("{code}: {}", code.title())),
        Err(error) => Err(error.into()),
        Ok(_) => Err(format!("the vault opened an envelope that is {code}").into()),
    }
}

fn is(error: &(dyn Error + 'static), kind: &ErrorKind) -> bool {
    error.downcast_ref::<jsonwebtoken::errors::Error>().is_some_and(|error| error.kind() == kind)
}

/// First six and last four digits, the others as `*`.
fn masked(pan: &str) -> String {
    let digits = || pan.chars().filter(char::is_ascii_digit);
    let hidden = 6..digits().count().saturating_sub(4);
    digits().enumerate().map(|(place, digit)| if hidden.contains(&place) { '*' } else { digit }).collect()
}
