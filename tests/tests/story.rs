//! What people do with a vault, in the order in which they do it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vault_client::{Brand, Code, Metadata, MetadataValue, Sensitive, TokenPatch, TokenizeRequest};
use vault_tests::{Module, Pans, Vault, luhn_valid, not_run, until};

const PAN: &str = "4111111111111111";
/// For what comes by itself about once a second.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_checkout_swaps_a_card_for_a_token_and_back() {
    let vault = Vault::start();
    let client = vault.client();
    let new = client.tokenize(&TokenizeRequest::new("4111 1111-1111 1111")).await.unwrap();
    assert!(new.created);
    assert_eq!(
        (new.masked_pan.as_str(), new.bin.as_str(), new.last4.as_str()),
        ("411111******1111", "411111", "1111")
    );
    assert_eq!((new.brand, new.template.as_str(), new.expires_at), (Brand::Visa, "default", None));

    let seen = client.tokenize(&TokenizeRequest::new(PAN)).await.unwrap();
    assert_eq!((seen.created, &seen.token, seen.created_at), (false, &new.token, new.created_at));

    let card = client.detokenize(&new.token).await.unwrap();
    assert_eq!((card.pan.expose(), card.expiry_date.is_none()), (PAN, true));
    assert_eq!(client.detokenize_masked(&new.token).await.unwrap(), "411111******1111");
}

#[tokio::test]
async fn what_comes_with_a_card_stays_with_it() {
    let vault = Vault::start();
    let client = vault.client();
    let mut request = TokenizeRequest::new(PAN);
    request.expiry_date = Some("12/2031".into());
    request.holder = Some(Sensitive::from("Ada Lovelace"));
    request.expires_in = Some(3_600);
    request.metadata = Some(Metadata([("order".to_owned(), MetadataValue::Text("A-1".to_owned()))].into()));
    let token = client.tokenize(&request).await.unwrap().token;

    assert_eq!(client.detokenize(&token).await.unwrap().expiry_date.unwrap().expose(), "12/2031");
    let record = client.token(&token).await.unwrap();
    assert_eq!(record.holder.unwrap().expose(), "Ada Lovelace");
    assert_eq!(record.metadata, request.metadata.unwrap());
    assert_eq!(record.key_version, 1);
    let lifetime = record.expires_at.unwrap().as_second() - record.created_at.as_second();
    assert_eq!(lifetime, 3_600);

    let patch = TokenPatch { metadata: Some(Metadata::default()), expires_in: Some(60) };
    let changed = client.update(&token, &patch).await.unwrap();
    assert_eq!(changed.metadata, Metadata::default());
    assert!(changed.expires_at.unwrap() < record.expires_at.unwrap());
    assert_eq!(changed.holder.unwrap().expose(), "Ada Lovelace", "what is not named stays");
    assert_eq!(client.detokenize(&token).await.unwrap().pan.expose(), PAN);

    client.delete(&token).await.unwrap();
    assert_eq!(client.token(&token).await.unwrap_err().code(), Some(Code::UnknownToken));
    assert!(client.tokenize(&request_of(PAN)).await.unwrap().created, "nothing of it was left behind");
}

#[tokio::test]
async fn templates_say_how_tokens_look() {
    let vault = Vault::start_with(|config| {
        config + "\n[tokens.templates.loose]\nformat = \"opaque\"\nrequire_luhn = false\nexpires_in = 60\n"
    });
    let client = vault.client();
    let tokenize = async |pan: &str, template: &str| {
        let mut request = TokenizeRequest::new(pan);
        request.template = Some(template.to_owned());
        client.tokenize(&request).await.unwrap()
    };
    let numeric = tokenize(PAN, "numeric").await.token;
    assert_eq!((numeric.len(), &numeric[..6], &numeric[12..]), (16, "411111", "1111"));
    assert_ne!(numeric, PAN);
    let opaque = tokenize(PAN, "opaque").await.token;
    assert!(opaque.starts_with("tok_"), "{opaque}");
    let uuid = tokenize(PAN, "default").await.token;
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "7"));
    for token in [&numeric, &opaque, &uuid] {
        assert_eq!(client.detokenize(token).await.unwrap().pan.expose(), PAN);
    }
    let (first, second) = (tokenize(PAN, "once").await, tokenize(PAN, "once").await);
    assert!(first.created && second.created && first.token != second.token);

    let loose = tokenize("4111111111111112", "loose").await;
    assert!(loose.expires_at.is_some(), "the template's lifetime");
    assert_eq!(
        client.tokenize(&request_of("4111111111111112")).await.unwrap_err().code(),
        Some(Code::InvalidPan)
    );
}

#[tokio::test]
async fn numeric_tokens_never_pass_luhn_and_never_repeat() {
    let vault = Vault::start();
    let client = vault.client();
    let mut pans = Pans::new();
    let mut tokens = std::collections::HashSet::new();
    for _ in 0..100 {
        let requests: Vec<_> = pans
            .take(1_000)
            .iter()
            .map(|pan| TokenizeRequest { template: Some("numeric".to_owned()), ..request_of(pan) })
            .collect();
        for (request, answer) in requests.iter().zip(client.tokenize_batch(&requests).await.unwrap()) {
            let token = answer.unwrap().token;
            let pan = request.pan.expose();
            assert_eq!((&token[..6], &token[12..]), (&pan[..6], &pan[12..]));
            // Nor is it a PAN in the vault: those all have a check digit that fits.
            assert!(!luhn_valid(&token) && luhn_valid(pan), "{token} could be a card");
            assert!(tokens.insert(token));
        }
    }
}

#[tokio::test]
async fn a_short_card_keeps_its_digits_until_there_are_no_more_tokens() {
    let vault = Vault::start_with(|config| {
        config
            + "[tokens.templates.many]\nformat = \"numeric\"\nkeep_first = 6\nkeep_last = 4\nreuse = \"never\"\n"
    });
    let client = vault.client();
    let many = |pan| TokenizeRequest { template: Some("many".to_owned()), ..request_of(pan) };
    let amex = client.tokenize(&many("378282246310005")).await.unwrap().token;
    assert_eq!((amex.len(), &amex[..6], &amex[11..]), (15, "378282", "0005"));

    // Of a hundred, ten have a check digit that fits.
    let mut tokens = std::collections::HashSet::new();
    let full = loop {
        match client.tokenize(&many("469635870295")).await {
            Ok(new) => {
                assert_eq!((new.token.len(), &new.token[..6], &new.token[8..]), (12, "469635", "0295"));
                assert!(tokens.insert(new.token) && tokens.len() <= 90);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(full.code(), Some(Code::TokenSpaceExhausted));
    assert!(tokens.len() > 30, "{}", tokens.len());
}

#[tokio::test]
async fn a_settlement_swaps_thousands_and_one_bad_item_fails_alone() {
    let vault = Vault::start();
    let client = vault.client();
    let pans = Pans::new().take(999);
    let mut requests: Vec<_> = pans.iter().map(|pan| request_of(pan)).collect();
    requests.insert(500, request_of("4111111111111112"));
    let answers = client.tokenize_batch(&requests).await.unwrap();
    assert_eq!(answers[500].as_ref().unwrap_err().code(), Some(Code::InvalidPan));
    let mut tokens: Vec<_> = answers.into_iter().flatten().map(|answer| answer.token).collect();
    assert_eq!(tokens.len(), 999);
    tokens.push("00000000-0000-7000-8000-000000000000".to_owned());
    let cards = client.detokenize_batch(&tokens).await.unwrap();
    for (pan, card) in pans.iter().zip(&cards) {
        assert_eq!(card.as_ref().unwrap().pan.expose(), pan);
    }
    assert_eq!(cards[999].as_ref().unwrap_err().code(), Some(Code::UnknownToken));
}

#[tokio::test]
async fn the_same_card_in_two_tenants_has_unrelated_tokens() {
    let vault = Vault::start();
    let other = vault.minter().mint(&json!({ "tenant": "other" }));
    let other = vault_client::VaultClient::builder(vault.socket()).token(other.into()).build().unwrap();
    let (mine, theirs) = (vault.client(), other);
    for template in ["default", "numeric", "opaque", "once"] {
        let request = TokenizeRequest { template: Some(template.to_owned()), ..request_of(PAN) };
        let (a, b) = (mine.tokenize(&request).await.unwrap(), theirs.tokenize(&request).await.unwrap());
        assert!(a.created && b.created && a.token != b.token, "{template}");
        assert_eq!(mine.detokenize(&b.token).await.unwrap_err().code(), Some(Code::UnknownToken));
        assert_eq!(theirs.detokenize(&b.token).await.unwrap().pan.expose(), PAN);
    }
}

#[tokio::test]
async fn a_card_whose_token_was_deleted_gets_an_unrelated_one() {
    let vault = Vault::start();
    let client = vault.client();
    for template in ["default", "numeric", "opaque", "once"] {
        let request = TokenizeRequest { template: Some(template.to_owned()), ..request_of(PAN) };
        let old = client.tokenize(&request).await.unwrap().token;
        client.delete(&old).await.unwrap();
        let new = client.tokenize(&request).await.unwrap();
        assert!(new.created && new.token != old, "{template}");
        assert_eq!(client.detokenize(&old).await.unwrap_err().code(), Some(Code::UnknownToken));
    }
}

#[tokio::test]
async fn tokens_that_have_ended_are_swept() {
    let vault = Vault::start_with(|config| {
        config.replace("[store]\n", "[store]\nsweep_interval_seconds = 1\nexpired_grace_seconds = 0\n")
    });
    let client = vault.client();
    let token =
        client.tokenize(&TokenizeRequest { expires_in: Some(1), ..request_of(PAN) }).await.unwrap().token;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended = Instant::now();
    loop {
        let code = client.detokenize(&token).await.unwrap_err().code();
        if code == Some(Code::UnknownToken) {
            break;
        }
        assert_eq!(code, Some(Code::TokenExpired));
        assert!(ended.elapsed() < PATIENCE, "it is not swept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until(PATIENCE, "the log says so", || vault.log().contains("removed tokens that have ended"));
}

#[tokio::test]
async fn a_developer_starts_twice_and_the_data_is_still_there() {
    let mut vault = Vault::start();
    let token = vault.client().tokenize(&request_of(PAN)).await.unwrap().token;
    assert!(vault.stop().success());
    assert!(!vault.socket().exists(), "the socket goes with the daemon");
    let check = vault.run("check");
    assert!(check.status.success(), "{check:?}");
    let init = vault.run("init");
    let said = String::from_utf8_lossy(&init.stdout).into_owned();
    assert!(
        init.status.success() && said.contains("kept key vaultd-record-v1") && !said.contains("created"),
        "{said}"
    );
    vault.restart();
    assert_eq!(vault.client().detokenize(&token).await.unwrap().pan.expose(), PAN);
    let answer = vault.client().tokenize(&request_of(PAN)).await.unwrap();
    assert_eq!((answer.created, answer.token), (false, token));
}

#[test]
fn curl_lines_of_the_banner_work_when_pasted() {
    if Module::of_this_run() != Module::Softhsm2 {
        not_run("vaultd dev makes a SoftHSM2 token");
        return;
    }
    let vault = Vault::start();
    let banner = vault.banner().join("\n");
    let lines: Vec<_> = banner.split("\n\n").filter(|paragraph| paragraph.starts_with("curl ")).collect();
    let [tokenize, detokenize] = lines[..] else { panic!("{banner}") };
    let paste = |line: &str| -> Value {
        let output = vault.limit_curl(Command::new("sh").args(["-c", line])).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let answer = paste(tokenize);
    assert_eq!(answer["masked_pan"], "411111******1111");
    assert_eq!(paste(&detokenize.replace("TOKEN", answer["token"].as_str().unwrap())), json!({ "pan": PAN }));
}

#[tokio::test]
async fn what_needs_no_jwt_needs_none() {
    let vault = Vault::start();
    let client = vault_client::VaultClient::builder(vault.socket()).build().unwrap();
    assert_eq!(client.health().await.unwrap().status, "ok");
    let ready = client.readiness().await.unwrap();
    assert!(ready.ready && ready.checks.keys().eq(["audit", "hsm", "store"]));
    let keys = client.jwks().await.unwrap().keys;
    assert_eq!((keys.len(), keys[0].kty.as_str(), keys[0].alg.as_str()), (1, "RSA", "RS256"));
    assert!(keys[0].n.len() * 3 / 4 >= 384, "RSA-3072");
    assert!(client.openapi().await.unwrap()["openapi"].as_str().unwrap().starts_with("3.1"));
}

fn request_of(pan: &str) -> TokenizeRequest {
    TokenizeRequest::new(pan)
}
