//! `vaultctl --file`: what becomes of lines that cannot be read, of files that end in the middle, and of readers that go.

use std::fs;

use serde_json::{Value, json};
use vault_tests::{Ran, Vault};

/// Test cards of Visa and MasterCard; they belong to nobody.
const PAN: &str = "4111111111111111";
const OTHER_PAN: &str = "5555555555554444";

/// The results of a run with `--json`.
fn results(ran: &Ran) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    answer["results"].as_array().unwrap().clone()
}

#[test]
fn in_json_each_line_has_its_result_in_its_place() {
    let vault = Vault::start();
    let cards = format!("pan\n{PAN}\n\"\"\n{OTHER_PAN}");
    for batch in [1, 2, 1_000] {
        let made = vault.ctl(&format!("tokenize --json --file - --batch {batch}"), &cards);
        let made_of = results(&made);
        assert_eq!((made.status, made_of.len()), (Some(1), 3), "{made:?}");
        assert_eq!((&made_of[0]["bin"], &made_of[2]["bin"]), (&json!("411111"), &json!("555555")));
        let error = &made_of[1]["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!("invalid_pan"), &json!(400)));
        let complaints: Vec<_> = made.stderr.lines().collect();
        assert!(complaints[0].starts_with("vaultctl: line 3: "), "{complaints:?}");
        assert_eq!(complaints[1..], ["vaultctl: 1 of 3 lines failed; they are named above"]);

        let tokens: String =
            made_of.iter().map(|made| made["token"].as_str().unwrap_or("\"\"").to_owned() + "\n").collect();
        let back =
            vault.ctl(&format!("detokenize --json --file - --batch {batch}"), &format!("token\n{tokens}"));
        let cards = results(&back);
        assert_eq!((back.status, cards.len()), (Some(1), 3), "{back:?}");
        assert_eq!((&cards[0]["pan"], &cards[2]["pan"]), (&json!(PAN), &json!(OTHER_PAN)));
        assert_eq!(cards[1]["error"]["code"], "invalid_token");
    }
    let none = vault.ctl("tokenize --json --file -", "pan\n\"\"\n\"\"\n");
    assert_eq!((none.status, results(&none).len()), (Some(1), 2), "{none:?}");
}

#[test]
fn a_field_that_is_not_utf8_fails_its_line_alone() {
    let vault = Vault::start();
    let file = vault.path("cards.csv");
    for line in ["M\u{fc}ller,12/30", "Ada,12/3\u{fc}"] {
        let rows = format!("pan,holder,expiry_date\n{PAN},{line}\n{OTHER_PAN},Ada,12/30\n");
        // The same characters in Latin-1.
        let rows: Vec<_> = rows.chars().map(|c| u8::try_from(c).unwrap()).collect();
        fs::write(&file, rows).unwrap();
        let options = format!("--holder Bob --expiry 01/31 --file {}", file.display());
        let made = vault.ctl(&format!("tokenize --json {options}"), "");
        let results = results(&made);
        assert_eq!((made.status, results.len()), (Some(1), 2), "{made:?}");
        assert_eq!(results[0]["error"]["code"], "invalid_request");
        assert_eq!(results[1]["bin"], "555555");
        let complaint = made.stderr.lines().next();
        assert_eq!(complaint, Some("vaultctl: line 2: a field is not UTF-8: nothing was sent"));
        assert_eq!(vault.ctl("status --json", "").json()["records"], 1);
    }

    // What is not sent may be anything.
    fs::write(&file, [b"pan,note\n", PAN.as_bytes(), b",\xfc\n"].concat()).unwrap();
    assert_eq!(vault.ctl(&format!("tokenize --file {}", file.display()), "").out().lines().count(), 2);
}
