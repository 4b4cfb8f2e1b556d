//! The store alone is worthless, and a store that was changed does not give another card.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashSet, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::json;
use vault_tests::{Pans, Vault, chaotic, luhn_valid, rewrap, rotate, seeded_random};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const FINGERPRINTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fingerprints");
const HOLDERS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("holders");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Where a record has its template's name, with the length before it.
const TEMPLATE_PLACE: usize = 49;
const NONCE_BYTES: usize = 12;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn store(vault: &Vault) -> Database {
    Database::open(vault.path("store/vault.redb")).unwrap()
}

fn records(store: &Database) -> Rows {
    rows(&store.begin_read().unwrap().open_table(RECORDS).unwrap())
}

fn rows(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Rows {
    table
        .iter()
        .unwrap()
        .map(|row| row.unwrap())
        .map(|(k, v)| (k.value().to_vec(), v.value().to_vec()))
        .collect()
}

fn put_records(store: &Database, rows: &[(Vec<u8>, Vec<u8>)]) {
    let transaction = store.begin_write().unwrap();
    {
        let mut table = transaction.open_table(RECORDS).unwrap();
        for (key, value) in rows {
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn tokenize(vault: &Vault, jwt: &str, body: &serde_json::Value) -> String {
    let answer = vault.request_as(jwt, "POST", "/v1/tokenize", &body.to_string());
    answer.json()["token"].as_str().unwrap_or_else(|| unreachable!("{answer:?}")).to_owned()
}

fn detokenize(vault: &Vault, jwt: &str, token: &str) -> vault_tests::Answer {
    vault.request_as(jwt, "POST", "/v1/detokenize", &json!({ "token": token }).to_string())
}

/// The nonces of a record's card and of its private part, if it has one: `docs/store-format.md` says where they are.
fn nonces(record: &[u8]) -> Vec<[u8; NONCE_BYTES]> {
    let (has_private, has_holder) = (record[1] & 1 > 0, record[1] & 4 > 0);
    let parts =
        TEMPLATE_PLACE + 1 + usize::from(record[TEMPLATE_PLACE]) + if has_holder { 4 + 16 } else { 0 };
    let nonce = |place: usize| record[place..place + NONCE_BYTES].try_into().unwrap();
    if !has_private {
        return vec![nonce(parts)];
    }
    let private = parts + NONCE_BYTES + 2;
    let length = u16::from_be_bytes(record[private - 2..private].try_into().unwrap());
    vec![nonce(parts), nonce(private + usize::from(length))]
}

/// The nonce of an envelope: behind the format and the key version of what is sealed.
fn envelope_nonce(jwt: &str) -> [u8; NONCE_BYTES] {
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let sealed = URL_SAFE_NO_PAD.decode(claims["meta_data"].as_str().unwrap()).unwrap();
    sealed[5..5 + NONCE_BYTES].try_into().unwrap()
}

#[test]
fn no_nonce_is_used_twice() {
    const CARDS: usize = 1_000;
    let mut vault = Vault::start();
    let card = |pan| json!({ "pan": pan, "holder": "Ada", "metadata": { "a": 1 } });
    let items: Vec<_> = Pans::new().take(CARDS).into_iter().map(card).collect();
    let (with, without) = items.split_at(CARDS - 100);
    let without: Vec<_> = without.iter().map(|item| json!({ "pan": item["pan"] })).collect();
    for items in [with, &without] {
        let answer = vault.request("POST", "/v1/tokenize/batch", &json!({ "items": items }).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let data = json!({ "meta_data": { "card_number": "4111111111111111", "expiry_date": "12/31" } });
    let envelopes: Vec<_> = (0..20)
        .map(|_| vault.request("POST", "/v1/envelopes", &data.to_string()).json())
        .map(|sealed| envelope_nonce(sealed["jwt"].as_str().unwrap()))
        .collect();
    vault.stop();
    let records = records(&store(&vault));
    let mut all: Vec<_> = records.iter().flat_map(|(_, record)| nonces(record)).collect();
    assert_eq!((records.len(), all.len()), (CARDS, 2 * CARDS - without.len()));
    all.extend(envelopes);
    let different: HashSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "a nonce came twice");
}

#[test]
fn a_row_copied_over_another_does_not_open() {
    let mut vault = Vault::start();
    let jwt = vault.jwt();
    let other = vault.minter().mint(&json!({ "tenant": "other" }));
    let mine = [
        tokenize(&vault, &jwt, &json!({ "pan": "4111111111111111" })),
        tokenize(&vault, &jwt, &json!({ "pan": "5555555555554444" })),
    ];
    let theirs = tokenize(&vault, &other, &json!({ "pan": "378282246310005" }));
    vault.stop();

    {
        let store = store(&vault);
        let rows = records(&store);
        assert_eq!(rows.len(), 3);
        // The first tenant's rows come first, in the order of their tokens, which grow.
        put_records(
            &store,
            &[(rows[1].0.clone(), rows[0].1.clone()), (rows[2].0.clone(), rows[0].1.clone())],
        );
    }
    vault.restart();
    assert_eq!(
        detokenize(&vault, &jwt, &mine[0]).json()["pan"],
        "4111111111111111",
        "the one that was left alone"
    );
    for (jwt, token) in [(&jwt, &mine[1]), (&other, &theirs)] {
        let answer = detokenize(&vault, jwt, token);
        assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
        assert!(!answer.body.contains("4111"), "{answer:?}");
    }
    assert!(vault.log().contains("fails authentication"));
    assert_eq!(vault.request("GET", "/readyz", "").status, 200, "one bad row is not an outage");
}

#[test]
fn a_forged_record_costs_the_others_of_its_batch_nothing() {
    let mut vault = Vault::start_with(|config| chaotic(&config));
    let jwt = vault.jwt();
    let pans = ["4111111111111111", "5555555555554444", "378282246310005"];
    let tokens = pans.map(|pan| tokenize(&vault, &jwt, &json!({ "pan": pan })));
    vault.stop();
    {
        let store = store(&vault);
        let rows = records(&store);
        put_records(&store, &[(rows[2].0.clone(), rows[0].1.clone())]);
    }
    vault.restart();
    // Three, and a forged one eight times more, in turns with what is certainly good. Whatever is opened again is not opened.
    vault.trouble("C_Decrypt error CKR_DEVICE_ERROR after=19");
    let answer = vault.request("POST", "/v1/detokenize/batch", &json!({ "tokens": tokens }).to_string());
    vault.calm();
    let results = answer.json()["results"].clone();
    assert_eq!((results[0]["pan"].as_str(), results[1]["pan"].as_str()), (Some(pans[0]), Some(pans[1])));
    assert!(results[2]["error"]["code"].is_string(), "{results}");
}

#[test]
fn an_index_row_copied_over_another_does_not_give_another_cards_token() {
    /// Tenant, key version and hash, by which a card or a holder is looked up.
    const LOOKUP_BYTES: usize = 4 + 4 + 16;
    let mut vault = Vault::start();
    let jwt = vault.jwt();
    let pans = ["4111111111111111", "5555555555554444"];
    let holders = ["Ada Lovelace", "Grace Hopper"];
    let cards = [0, 1].map(|n| json!({ "pan": pans[n], "holder": holders[n] }));
    let tokens = cards.each_ref().map(|card| tokenize(&vault, &jwt, card));
    vault.stop();
    {
        let transaction = store(&vault).begin_write().unwrap();
        {
            let mut table = transaction.open_table(FINGERPRINTS).unwrap();
            let rows = rows(&table);
            table.insert(rows[0].0.as_slice(), rows[1].1.as_slice()).unwrap();
        }
        {
            // Each holder's row leads to the other's token, too.
            let mut table = transaction.open_table(HOLDERS).unwrap();
            let keys: Vec<_> = table.iter().unwrap().map(|row| row.unwrap().0.value().to_vec()).collect();
            assert_eq!(keys.len(), 2);
            for (one, other) in [(&keys[0], &keys[1]), (&keys[1], &keys[0])] {
                let key = [&one[..LOOKUP_BYTES], &other[LOOKUP_BYTES..]].concat();
                table.insert(key.as_slice(), ()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    vault.restart();
    let found = |search: serde_json::Value| {
        let answer = vault.request("POST", "/v1/tokens/search", &search.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        let found = answer.json()["tokens"].as_array().unwrap().clone();
        found.iter().map(|record| record["token"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let by_pan = [0, 1].map(|n| found(json!({ "pan": pans[n] })));
    // The row of one was written over: by it nothing is found, by the other its own.
    let own = [0, 1].map(|n| by_pan[n] == [tokens[n].as_str()]);
    let none = by_pan.each_ref().map(Vec::is_empty);
    assert!(own[0] != own[1] && none == [own[1], own[0]], "{by_pan:?}");
    let by_holder = holders.map(|holder| found(json!({ "holder": holder })));
    assert_eq!(by_holder, tokens.map(|token| vec![token]));

    let answers = cards.map(|card| vault.request("POST", "/v1/tokenize", &card.to_string()));
    let mut statuses = answers.each_ref().map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "{answers:?}");
    let both = json!({ "items": [{ "pan": "4111111111111111" }, { "pan": "5555555555554444" }] });
    let answer = vault.request("POST", "/v1/tokenize/batch", &both.to_string());
    assert_eq!(answer.status, 200, "the sound one does not suffer: {answer:?}");
}

#[test]
fn a_card_that_was_seen_before_is_in_the_record_that_is_named() {
    const FINGERPRINT: std::ops::Range<usize> = 10..26;
    let cards = ["4111111111111111", "5555555555554444", "378282246310005"].map(|pan| json!({ "pan": pan }));
    let mut vault = Vault::start();
    let jwt = vault.jwt();
    let tokens = cards.each_ref().map(|card| tokenize(&vault, &jwt, card));
    vault.stop();
    {
        let store = store(&vault);
        // The rows are in the order of their tokens, which grow.
        let rows = records(&store);
        let (mut taken, mut damaged) = (rows[0].clone(), rows[2].clone());
        // The first token is said to be that of the second card, in its record and in the index.
        taken.1[FINGERPRINT].copy_from_slice(&rows[1].1[FINGERPRINT]);
        *damaged.1.last_mut().unwrap() ^= 1;
        put_records(&store, &[taken, damaged]);
        let transaction = store.begin_write().unwrap();
        {
            let mut table = transaction.open_table(FINGERPRINTS).unwrap();
            let index = self::rows(&table);
            let row = |place: usize| {
                let mark = &rows[place].1[FINGERPRINT];
                index.iter().find(|(key, _)| key.windows(mark.len()).any(|part| part == mark)).unwrap()
            };
            table.insert(row(1).0.as_slice(), row(0).1.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    vault.restart();
    for card in &cards[1..] {
        let answer = vault.request("POST", "/v1/tokenize", &card.to_string());
        assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"), "{answer:?}");
        assert!(!tokens.iter().any(|token| answer.body.contains(token.as_str())), "{answer:?}");
    }
}

#[test]
fn a_damaged_record_that_is_deleted_leaves_no_row_to_its_card() {
    let card = json!({ "pan": "4111111111111111" });
    let mut vault = Vault::start();
    let jwt = vault.jwt();
    let token = tokenize(&vault, &jwt, &card);
    vault.stop();
    {
        let store = store(&vault);
        let mut rows = records(&store);
        rows[0].1.truncate(1);
        put_records(&store, &rows);
    }
    vault.restart();
    assert_eq!(vault.request("DELETE", &format!("/v1/tokens/{token}"), "").status, 204);
    rotate(&vault, "fingerprint");
    assert_ne!(tokenize(&vault, &jwt, &card), token);
    // What depends on each key is counted anew.
    rewrap(&vault);
    vault.stop();
    let checked = vault.run_with(&["check", "--deep", "--quick"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn what_is_shown_of_a_card_is_authenticated() {
    const BIN_PLACE: usize = 26;
    const LAST4_PLACE: usize = 30;
    const KEY_VERSION_PLACE: usize = 2;
    let mut vault = Vault::start();
    let jwt = vault.jwt();
    let tokens = [
        json!({ "pan": "4111111111111111" }),
        json!({ "pan": "5555555555554444" }),
        // To show this one, its private part alone is opened.
        json!({ "pan": "378282246310005", "metadata": { "a": 1 } }),
    ]
    .map(|card| tokenize(&vault, &jwt, &card));
    vault.stop();
    let good = records(&store(&vault));
    for place in [BIN_PLACE, KEY_VERSION_PLACE] {
        let mut rows = good.clone();
        rows.retain(|(_, value)| value[LAST4_PLACE..LAST4_PLACE + 2] != 4_444_u16.to_be_bytes());
        for (_, value) in &mut rows {
            value[place + 3] ^= 1;
        }
        assert_eq!(rows.len(), 2);
        put_records(&store(&vault), &rows);
        vault.restart();
        for token in [&tokens[0], &tokens[2]] {
            let masked = json!({ "token": token, "reveal": "masked" }).to_string();
            for answer in [
                vault.request("GET", &format!("/v1/tokens/{token}"), ""),
                vault.request("POST", "/v1/detokenize", &masked),
            ] {
                assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"), "{answer:?}");
            }
        }
        let batch = json!({ "tokens": tokens }).to_string();
        let answer = vault.request("POST", "/v1/detokenize/batch", &batch);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["results"][0]["error"]["code"], "store_unavailable");
        assert_eq!(answer.json()["results"][1]["pan"], "5555555555554444");
        assert_eq!(answer.json()["results"][2]["error"]["code"], "store_unavailable");
        vault.stop();
    }
}

#[test]
fn no_byte_of_a_record_can_be_changed() {
    let mut vault = Vault::start();
    let jwt = vault.jwt();
    let body = json!({ "pan": "4111111111111111", "expires_in": 100_000, "metadata": { "a": 1 } });
    let token = tokenize(&vault, &jwt, &body);
    vault.stop();
    let (key, good) = records(&store(&vault)).remove(0);
    // Every fourth byte, to keep the test short; the places differ from run to run.
    for place in (seeded_random().usize(..4)..good.len()).step_by(4) {
        let mut bad = good.clone();
        bad[place] ^= 1;
        put_records(&store(&vault), &[(key.clone(), bad)]);
        vault.restart();
        let card = detokenize(&vault, &jwt, &token);
        let record = vault.request("GET", &format!("/v1/tokens/{token}"), "");
        assert!(card.status >= 400 || record.status >= 400, "byte {place}: {card:?} {record:?}");
        assert!(card.status >= 400 || card.json()["pan"] == "4111111111111111", "byte {place}");
        vault.stop();
    }
}

#[test]
fn a_full_token_space_says_so() {
    let mut vault = Vault::start();
    let jwt = vault.jwt();
    let body = json!({ "pan": "4111111111111111", "template": "numeric" });
    tokenize(&vault, &jwt, &body);
    vault.stop();
    {
        let store = store(&vault);
        let (key, record) = records(&store).remove(0);
        // Tenant, form of the token, and the digits that are kept on both sides of the six that are drawn.
        let rows: Rows = (0..1_000_000)
            .map(|number| {
                let mut key = key.clone();
                let digits = key.len() - 10;
                key[digits..digits + 6].copy_from_slice(format!("{number:06}").as_bytes());
                (key, record.clone())
            })
            .collect();
        put_records(&store, &rows);
    }
    vault.restart();
    // The same BIN and last four digits, so that every number it could get is taken.
    let twin = json!({ "pan": luhn_twin(), "template": "numeric" });
    let answer = vault.request("POST", "/v1/tokenize", &twin.to_string());
    assert_eq!((answer.status, answer.code().as_str()), (409, "token_space_exhausted"));
}

/// A PAN with a good check digit, the BIN 411111 and the last four digits 1111.
fn luhn_twin() -> String {
    (0..10).map(|digit| format!("41111100000{digit}1111")).find(|pan| luhn_valid(pan)).unwrap()
}

#[test]
fn a_store_of_another_vault_is_refused() {
    let (mut one, mut two) = (Vault::start(), Vault::start());
    one.stop();
    two.stop();
    fs::copy(two.path("store/vault.redb"), one.path("store/vault.redb")).unwrap();
    for command in ["serve", "init"] {
        let output = one.run(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains("belongs to another vault"), "{command}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("vaultd:")).count(), 1, "{said}");
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let mut vault = Vault::start();
    vault.stop();
    {
        let store = store(&vault);
        let transaction = store.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("schema", 99_u32.to_be_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
    }
    let output = vault.run("serve");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("schema 99"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_card_number_is_found_in_store_log_or_audit_log() {
    let mut vault = Vault::start_with(|config| config + "\n[log]\nlevel = \"debug\"\n");
    let client = vault.client();
    let pans = Pans::new().take(10_000);
    for chunk in pans.chunks(1_000) {
        let requests: Vec<_> =
            chunk.iter().map(|pan| vault_client::TokenizeRequest::new(pan.as_str())).collect();
        let answers = client.tokenize_batch(&requests).await.unwrap();
        let tokens: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().token).collect();
        assert!(client.detokenize_batch(&tokens).await.unwrap().iter().all(Result::is_ok));
    }
    for pan in pans.iter().take(50) {
        // Ways for a card number to get into an error message.
        vault.request("POST", "/v1/tokenize", &format!("{{\"pan\":{pan}}}"));
        vault.request("POST", "/v1/tokenize", &format!("{{\"{pan}\":1}}"));
        vault.request("POST", "/v1/tokenize", pan);
        vault.request("POST", "/v1/detokenize", &format!("{{\"token\":\"{pan}\"}}"));
        vault.request("GET", &format!("/v1/tokens/{pan}"), "");
        vault.request("GET", &format!("/{pan}?{pan}"), "");
        vault.request_as(pan, "GET", "/v1/tokens/x", "");
    }
    vault.stop();
    let wanted: HashSet<&[u8]> = pans.iter().map(String::as_bytes).collect();
    let mut files = Vec::new();
    collect_files(&vault.path(""), &mut files);
    assert!(
        files.iter().any(|file| file.ends_with("vault.redb"))
            && files.iter().any(|file| file.ends_with("log"))
    );
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let found = bytes.windows(16).any(|window| window[0] == b'4' && wanted.contains(window));
        assert!(!found, "a card number is in {}", file.display());
    }
}

fn collect_files(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_files(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}
