//! Searches where not every record that is met is one to give.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use redb::{Database, ReadableTable, TableDefinition};
use vault_client::{SearchRequest, TokenizeRequest};
use vault_tests::{Pans, Vault};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const HOLDER: &str = "Ada Lovelace";

fn of_holder(pan: &str) -> TokenizeRequest {
    TokenizeRequest { holder: Some(HOLDER.into()), ..TokenizeRequest::new(pan) }
}

fn by_holder(limit: usize) -> SearchRequest {
    SearchRequest { holder: Some(HOLDER.into()), limit: Some(limit), ..SearchRequest::default() }
}

/// Changes when the second token was made, in the store of a vault that is stopped.
fn damage_second(vault: &Vault) {
    const CREATED_AT: usize = 33;
    let transaction = Database::open(vault.path("store/vault.redb")).unwrap().begin_write().unwrap();
    {
        let mut table = transaction.open_table(RECORDS).unwrap();
        // In the order of their tokens, which grow.
        let second = table.iter().unwrap().nth(1).unwrap().unwrap();
        let (key, mut record) = (second.0.value().to_vec(), second.1.value().to_vec());
        drop(second);
        record[CREATED_AT] ^= 1;
        table.insert(key.as_slice(), record.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_damaged_record_costs_a_search_the_others_nothing() {
    let mut vault = Vault::start();
    let client = vault.client();
    let mut tokens = Vec::new();
    for pan in Pans::new().take(5) {
        tokens.push(client.tokenize(&of_holder(&pan)).await.unwrap().token);
    }
    vault.stop();
    damage_second(&vault);
    vault.restart();
    tokens.remove(1);
    for limit in [1, 2, 100] {
        let (mut found, mut request) = (Vec::new(), by_holder(limit));
        loop {
            let page = vault.client().search(&request).await.unwrap();
            assert!(page.tokens.len() <= limit);
            found.extend(page.tokens.into_iter().map(|record| record.token));
            let Some(cursor) = page.cursor else { break };
            request.cursor = Some(cursor);
        }
        assert_eq!(found, tokens, "by {limit}");
    }
    assert!(vault.log().contains("fails authentication"), "{}", vault.log());
}

#[test]
fn a_damaged_honey_token_hides_no_other() {
    let mut vault = Vault::start();
    let honey: Vec<_> = (0..3).map(|_| plant(&vault)).collect();
    vault.stop();
    damage_second(&vault);
    vault.restart();
    let listed = vault.admin("GET", "/v1/honey").json();
    let listed: Vec<_> = listed["tokens"].as_array().unwrap().iter().map(|token| &token["token"]).collect();
    assert_eq!(listed, [&honey[0], &honey[2]]);
}

fn plant(vault: &Vault) -> String {
    let answer = vault.admin_as(&vault.jwt(), "POST", "/v1/honey", r#"{"tenant":"dev"}"#);
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_page_ends_where_much_was_looked_at_in_vain() {
    let vault = Vault::start();
    let client = vault.client();
    let mut pans = Pans::new();
    for _ in 0..3 {
        let ending: Vec<_> = pans
            .take(700)
            .iter()
            .map(|pan| TokenizeRequest { expires_in: Some(1), ..of_holder(pan) })
            .collect();
        client.tokenize_batch(&ending).await.unwrap();
    }
    let live = client.tokenize(&of_holder(&pans.next_pan())).await.unwrap().token;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut request = by_holder(1);
    let first = client.search(&request).await.unwrap();
    assert!(first.tokens.is_empty() && first.cursor.is_some(), "{} records", first.tokens.len());
    request.cursor = first.cursor;
    assert_eq!(client.search(&request).await.unwrap().tokens[0].token, live);
}
