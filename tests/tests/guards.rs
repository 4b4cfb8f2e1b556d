//! Guards on reveals, locks, honey tokens and approvals, on a real vault.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use serde_json::{Value, json};
use vault_tests::{
    Answer, AuditLog, Minter, Pans, Vault, chaotic, destroy_retired, fast_vault, rewrap, rotate,
};

/// A vault with more configuration.
fn vault_with(config: &str) -> Vault {
    Vault::start_with(|before| format!("{before}\n{config}\n"))
}

fn tokens(vault: &Vault, count: usize) -> Vec<String> {
    let pan = |pan: &String| json!({ "pan": pan });
    let items: Vec<_> = Pans::new().take(count).iter().map(pan).collect();
    let answer = vault.request("POST", "/v1/tokenize/batch", &json!({ "items": items }).to_string()).json();
    let tokens = answer["results"].as_array().unwrap().iter();
    tokens.map(|made| made["token"].as_str().unwrap().to_owned()).collect()
}

fn jwt_of(minter: &Minter, subject: &str) -> String {
    minter.mint(&json!({ "sub": subject }))
}

fn detokenize(vault: &Vault, jwt: &str, token: &str) -> Answer {
    vault.request_as(jwt, "POST", "/v1/detokenize", &json!({ "token": token }).to_string())
}

fn batch(vault: &Vault, jwt: &str, tokens: &[String]) -> Answer {
    vault.request_as(jwt, "POST", "/v1/detokenize/batch", &json!({ "tokens": tokens }).to_string())
}

/// Waits until what a killed daemon would leave tells of so many locks: the store, and the audit log.
fn written_down(vault: &Vault, locks: usize) {
    const LOCKS: TableDefinition<'_, (&str, &str), (u64, &str, &str)> = TableDefinition::new("locks");
    let (began, copy) = (Instant::now(), vault.path("store.copy"));
    loop {
        // The daemon may be writing, so that half of a change is copied.
        fs::copy(vault.path("store/vault.redb"), &copy).unwrap();
        let rows = || Database::open(&copy).ok()?.begin_read().ok()?.open_table(LOCKS).ok()?.len().ok();
        let rows = rows().and_then(|rows| usize::try_from(rows).ok());
        let told = AuditLog::everything(vault).matches(r#""event":"subject.locked""#).count();
        if rows == Some(locks) && told == locks {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{rows:?} locks and {told} events of {locks}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The entries of the audit log.
fn audit(vault: &Vault) -> Vec<Value> {
    let text = fs::read_to_string(vault.path("audit/audit-00000001.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The name, `r` and `t` of the `RateLimit` field.
fn ratelimit(answer: &Answer) -> (String, u64, u64) {
    let field = &answer.headers["ratelimit"];
    let parts: Vec<_> = field.split(';').collect();
    let number = |part: &str| part.split_once('=').unwrap().1.parse().unwrap();
    (parts[0].trim_matches('"').to_owned(), number(parts[1]), number(parts[2]))
}

fn assert_limited(answer: &Answer, policy: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"), "{answer:?}");
    let (name, _, more_in) = ratelimit(answer);
    assert_eq!(name, policy, "{answer:?}");
    assert_eq!(answer.headers["retry-after"].parse::<u64>().unwrap(), more_in, "{answer:?}");
    assert!(answer.headers["ratelimit-policy"].contains(policy), "{answer:?}");
}

#[test]
fn each_subject_gets_its_cards_and_no_more_across_restarts() {
    let mut vault = vault_with("[guards.subject]\npans_per_hour = 20\npans_per_day = 30");
    let tokens = tokens(&vault, 40);
    let minter = vault.minter();
    let (one, other) = (jwt_of(&minter, "one"), jwt_of(&minter, "other"));
    for (place, token) in tokens[..12].iter().enumerate() {
        let answer = detokenize(&vault, &one, token);
        assert_eq!(answer.status, 200, "{answer:?}");
        let (policy, left, more_in) = ratelimit(&answer);
        assert_eq!((policy.as_str(), left), ("subject-hour", 19 - u64::try_from(place).unwrap()));
        assert!((3_000..=3_601).contains(&more_in));
        assert_eq!(
            answer.headers["ratelimit-policy"],
            "\"subject-hour\";q=20;w=3600, \"subject-day\";q=30;w=86400"
        );
    }
    assert!(vault.stop().success());
    vault.restart();
    assert_eq!(ratelimit(&detokenize(&vault, &one, &tokens[0])).1, 8, "seen before: free");

    // A card for each block of a twentieth, so a kill costs nothing here.
    vault.kill();
    vault.restart();
    for token in &tokens[12..20] {
        assert_eq!(detokenize(&vault, &one, token).status, 200);
    }
    assert_limited(&detokenize(&vault, &one, &tokens[20]), "subject-hour");
    assert_eq!(detokenize(&vault, &one, &tokens[5]).status, 200, "what it has it may see again");
    assert_eq!(detokenize(&vault, &other, &tokens[20]).status, 200, "others have counts of their own");
    let masked = json!({ "token": tokens[20], "reveal": "masked" }).to_string();
    let with_mask = minter.mint(&json!({ "sub": "one", "scope": "detokenize:masked tokens:read" }));
    assert_eq!(vault.request_as(&with_mask, "POST", "/v1/detokenize", &masked).status, 200);
    vault.kill();
    vault.restart();
    assert_limited(&detokenize(&vault, &one, &tokens[20]), "subject-hour");
}

#[test]
fn a_batch_fails_item_by_item_and_too_large_a_one_as_a_whole() {
    let vault = vault_with("[guards.subject]\npans_per_day = 6\nbatch_items = 8");
    let tokens = tokens(&vault, 20);
    let jwt = jwt_of(&vault.minter(), "one");
    let large = batch(&vault, &jwt, &tokens[..9]);
    assert_limited(&large, "subject-batch");
    let entries = vault.admin("GET", "/v1/audit?op=detokenize.batch").json();
    assert_eq!(entries["entries"][0]["tokens"], json!(tokens[..9]), "who tried to take which: {entries}");

    let mixed = [&tokens[..4], &["nonsense".to_owned()], &tokens[4..7]].concat();
    let answer = batch(&vault, &jwt, &mixed);
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    let codes: Vec<_> =
        results.iter().map(|result| result["error"]["code"].as_str().unwrap_or("ok")).collect();
    assert_eq!(codes, ["ok", "ok", "ok", "ok", "invalid_token", "ok", "ok", "rate_limited"]);
    assert_eq!(ratelimit(&answer), ("subject-day".to_owned(), 0, ratelimit(&answer).2));
    assert_limited(&batch(&vault, &jwt, &tokens[10..12]), "subject-day");
    assert_eq!(batch(&vault, &jwt, &tokens[..6]).status, 200, "the same again");
}

#[test]
fn tenants_and_user_ids_have_limits_of_their_own() {
    let vault = vault_with("[guards.tenant]\npans_per_hour = 3\n[guards.uid]\npans_per_hour = 5");
    let tokens = tokens(&vault, 10);
    let minter = vault.minter();
    for (subject, token) in ["a", "b", "c"].iter().zip(&tokens) {
        assert_eq!(detokenize(&vault, &jwt_of(&minter, subject), token).status, 200);
    }
    assert_limited(&detokenize(&vault, &jwt_of(&minter, "d"), &tokens[3]), "tenant-hour");
    let elsewhere = minter.mint(&json!({ "tenant": "other" }));
    // Unknown tokens count, too: guessing costs as much as taking.
    for token in &tokens[4..6] {
        assert_eq!(detokenize(&vault, &elsewhere, token).code(), "unknown_token");
    }
    assert_limited(&detokenize(&vault, &elsewhere, &tokens[6]), "uid-hour");
}

#[test]
fn requests_a_second_are_limited_and_the_wait_is_true() {
    let vault = vault_with("[guards.uid]\nrequests_per_second = 5");
    let tokens = tokens(&vault, 1);
    let jwt = jwt_of(&vault.minter(), "one");
    let refused = (0..500).map(|_| detokenize(&vault, &jwt, &tokens[0])).find(|answer| answer.status == 429);
    let refused = refused.unwrap();
    assert_limited(&refused, "uid-second");
    thread::sleep(Duration::from_millis(1_100));
    assert_eq!(detokenize(&vault, &jwt, &tokens[0]).status, 200);
}

#[test]
fn envelopes_count_as_cards() {
    let vault = vault_with("[guards.subject]\npans_per_hour = 2");
    let jwt = vault.minter().mint(&json!({ "sub": "one", "scope": "envelopes:open" }));
    let sealed: Vec<_> = Pans::new()
        .take(3)
        .iter()
        .map(|pan| {
            let card = json!({ "meta_data": { "card_number": pan, "expiry_date": "12/31" } });
            let envelope = vault.request("POST", "/v1/envelopes", &card.to_string()).json();
            json!({ "jwt": envelope["jwt"] }).to_string()
        })
        .collect();
    let open = |body: &str| vault.request_as(&jwt, "POST", "/v1/envelopes/open", body);
    assert_eq!(ratelimit(&open(&sealed[0])).1, 1);
    assert_eq!(ratelimit(&open(&sealed[0])).1, 1);
    assert_eq!(ratelimit(&open(&sealed[1])).1, 0);
    assert_limited(&open(&sealed[2]), "subject-hour");
}

#[test]
fn guesses_count_as_cards() {
    let vault = vault_with("[guards.subject]\npans_per_hour = 2");
    let token = tokens(&vault, 1).remove(0);
    let minter = vault.minter();
    let [comparer, searcher] = ["tokens:compare", "tokens:search"]
        .map(|scope| minter.mint(&json!({ "sub": scope, "scope": scope })));
    let compare = || {
        let body = json!({ "token": token, "pan": "4111111111111111" }).to_string();
        vault.request_as(&comparer, "POST", "/v1/tokens/compare", &body)
    };
    let search = |what: Value| vault.request_as(&searcher, "POST", "/v1/tokens/search", &what.to_string());
    // The same again is another guess, and nothing has to be found.
    for left in [1, 0] {
        let answer = compare();
        assert_eq!((answer.status, ratelimit(&answer).1), (200, left), "{answer:?}");
        let answer = search(json!({ "pan": "4111111111111111" }));
        assert_eq!((answer.status, ratelimit(&answer).1), (200, left), "{answer:?}");
    }
    assert_limited(&compare(), "subject-hour");
    assert_limited(&search(json!({ "pan": "4111111111111111" })), "subject-hour");
    assert_limited(&search(json!({ "pan": "4111111111111111", "holder": "Ada" })), "subject-hour");
    assert_eq!(search(json!({ "holder": "Ada" })).status, 200, "a name is no guess at a card");
}

#[test]
fn far_over_the_line_is_locked_everywhere_until_an_operator_unlocks() {
    let mut vault = vault_with("[guards.subject]\npans_per_hour = 4\nlock_at_pans_per_hour = 8");
    let tokens = tokens(&vault, 12);
    let minter = vault.minter();
    let scopes = "detokenize tokens:read keys:read tokenize";
    let thief = minter.mint(&json!({ "sub": "thief", "scope": scopes }));
    let codes: Vec<_> = tokens[..8].iter().map(|token| detokenize(&vault, &thief, token).status).collect();
    assert_eq!(codes, [200, 200, 200, 200, 429, 429, 429, 403]);

    let assert_locked = |vault: &Vault| {
        let fresh = minter.mint(&json!({ "sub": "thief", "scope": scopes }));
        for answer in [
            detokenize(vault, &fresh, &tokens[0]),
            vault.request_as(&fresh, "GET", &format!("/v1/tokens/{}", tokens[0]), ""),
            vault.request_as(&fresh, "POST", "/v1/tokenize", r#"{"pan":"4111111111111111"}"#),
            vault.admin_as(&fresh, "GET", "/v1/keys", ""),
        ] {
            assert_eq!((answer.status, answer.code().as_str()), (403, "caller_locked"));
        }
        assert_eq!(detokenize(vault, &jwt_of(&minter, "honest"), &tokens[0]).status, 200);
    };
    assert_locked(&vault);
    vault.kill();
    vault.restart();
    assert_locked(&vault);

    let entries = audit(&vault);
    let alarms: Vec<_> = entries.iter().filter(|entry| entry["alarm"] == true).collect();
    let of_access = |entry: &&&Value| entry["subject"] == "thief" && entry["code"] == "caller_locked";
    assert_eq!(alarms.iter().filter(of_access).count(), 1, "{alarms:?}");
    assert!(alarms.iter().any(|entry| entry["event"] == "subject.locked"), "{alarms:?}");

    let locks = vault.admin("GET", "/v1/locks").json();
    let lock = &locks["locks"][0];
    assert_eq!((lock["issuer"].as_str(), lock["subject"].as_str()), (Some("dev-issuer"), Some("thief")));
    assert_eq!(lock["tenant"], "dev");
    assert!(
        lock["locked_at"].as_str().unwrap().ends_with('Z') && !lock["reason"].as_str().unwrap().is_empty()
    );
    let narrow = minter.with_scope("locks:read");
    let unlock = json!({ "issuer": "dev-issuer", "subject": "thief" }).to_string();
    assert_eq!(vault.admin_as(&narrow, "POST", "/v1/locks/unlock", &unlock).code(), "insufficient_scope");
    assert_eq!(vault.request("GET", "/v1/locks", "").code(), "not_found", "not on the API's socket");

    for unlocked in [true, false] {
        let answer = vault.admin_as(&vault.jwt(), "POST", "/v1/locks/unlock", &unlock).json();
        assert_eq!(answer["unlocked"], unlocked);
    }
    let unlocked = audit(&vault).into_iter().rfind(|entry| entry["op"] == "locks.unlock").unwrap();
    assert_eq!((unlocked["about"].as_str(), unlocked["code"].as_str()), (Some("dev-issuer thief"), None));
    assert_limited(&detokenize(&vault, &thief, &tokens[9]), "subject-hour");
    assert_eq!(vault.request_as(&thief, "GET", &format!("/v1/tokens/{}", tokens[0]), "").status, 200);
    vault.kill();
    vault.restart();
    assert_eq!(vault.admin("GET", "/v1/locks").json(), json!({ "locks": [] }));
}

#[test]
fn a_locked_service_cannot_log_in() {
    let vault = vault_with("[guards.subject]\npans_per_hour = 1\nlock_at_pans_per_hour = 2");
    let tokens = tokens(&vault, 2);
    let login = || vault.request("POST", "/v1/login", "{}");
    let jwt = login().json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(detokenize(&vault, &jwt, &tokens[0]).status, 200);
    assert_eq!(detokenize(&vault, &jwt, &tokens[1]).code(), "caller_locked");
    assert_eq!(login().code(), "caller_locked");
}

#[test]
fn a_login_that_is_refused_is_not_signed() {
    let vault = Vault::start_with(|config| {
        chaotic(&config)
            + "\n[guards.subject]\npans_per_hour = 1\nlock_at_pans_per_hour = 2\n\
               [limits]\nmax_requests_per_second_per_tenant = 5\n"
    });
    let tokens = tokens(&vault, 2);
    let login = || vault.request("POST", "/v1/login", "{}");
    let jwt = login().json()["access_token"].as_str().unwrap().to_owned();
    let too_fast = (0..60).map(|_| login()).find(|answer| answer.status != 200).unwrap();
    assert_eq!((too_fast.status, too_fast.code().as_str()), (429, "rate_limited"), "{too_fast:?}");
    thread::sleep(Duration::from_millis(1_100));

    assert_eq!(batch(&vault, &jwt, &tokens).code(), "caller_locked");
    vault.trouble("C_Sign error CKR_FUNCTION_FAILED\n");
    assert_eq!(login().code(), "caller_locked", "without the HSM");
    let entries = audit(&vault);
    let entry = entries.iter().rfind(|entry| entry["op"] == "login").unwrap();
    assert_eq!((&entry["subject"], &entry["tenant"]), (&json!("developer"), &json!("dev")));
    assert_eq!((&entry["code"], &entry["outcome"]), (&json!("caller_locked"), &json!("refused")));
}

/// Plants a honey token of `template` in the tenant `dev`.
fn plant(vault: &Vault, template: &str) -> String {
    let wish = json!({ "tenant": "dev", "template": template, "note": format!("in the {template} dump") });
    let answer = vault.admin_as(&vault.jwt(), "POST", "/v1/honey", &wish.to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    let planted = answer.json();
    assert_eq!((planted["tenant"].as_str(), planted["template"].as_str()), (Some("dev"), Some(template)));
    planted["token"].as_str().unwrap().to_owned()
}

/// A token that looks as `token` does and is nobody's.
fn like(token: &str) -> String {
    match token.len() {
        16 => "4000000000000000".to_owned(),
        36 => format!("{}0000", &token[..32]),
        _ => "tok_1111111111111111".to_owned(),
    }
}

/// What of an answer a caller can tell two tokens by.
fn seen(answer: &Answer) -> (u16, BTreeMap<String, String>, String) {
    let mut headers: BTreeMap<_, _> = answer.headers.clone().into_iter().collect();
    let id = headers.remove("x-request-id").unwrap();
    headers.remove("date");
    headers.remove("content-length");
    (answer.status, headers, answer.body.replace(&id, "ID"))
}

#[test]
fn honey_answers_like_an_unknown_token_and_locks_whoever_touches_it() {
    type Use = fn(&str) -> (&'static str, String, String);
    const USES: [Use; 7] = [
        |token| ("POST", "/v1/detokenize".to_owned(), json!({ "token": token }).to_string()),
        |token| {
            let body = json!({ "token": token, "reveal": "masked" });
            ("POST", "/v1/detokenize".to_owned(), body.to_string())
        },
        |token| ("POST", "/v1/detokenize/batch".to_owned(), json!({ "tokens": [token] }).to_string()),
        |token| ("GET", format!("/v1/tokens/{token}"), String::new()),
        |token| ("PATCH", format!("/v1/tokens/{token}"), json!({ "expires_in": 9 }).to_string()),
        |token| ("DELETE", format!("/v1/tokens/{token}"), String::new()),
        |token| {
            let body = json!({ "token": token, "pan": "4111111111111111" });
            ("POST", "/v1/tokens/compare".to_owned(), body.to_string())
        },
    ];
    let mut vault = Vault::start();
    let minter = vault.minter();
    let scopes = "detokenize detokenize:masked tokens:read tokens:write tokens:delete tokens:compare";
    let jwt = |subject: &str| minter.mint(&json!({ "sub": subject, "scope": scopes }));
    let honey: Vec<_> =
        ["default", "numeric", "opaque", "once"].iter().map(|template| plant(&vault, template)).collect();
    for (place, token) in honey.iter().enumerate() {
        for (number, using) in USES.iter().enumerate() {
            let subject = format!("thief {place} {number}");
            let send = |token: &str| {
                let (method, path, body) = using(token);
                vault.request_as(&jwt(&subject), method, &path, &body)
            };
            let unknown = send(&like(token));
            let touched = send(token);
            assert!(touched.body.contains("unknown_token"), "{touched:?}");
            assert_eq!(seen(&touched), seen(&unknown), "{number}");
            assert_eq!(send(&like(token)).code(), "caller_locked");
        }
        // No answer waits for a lock to be written down, or it would show: so this does, and for nothing else.
        written_down(&vault, (place + 1) * USES.len());
        vault.kill();
        vault.restart();
    }
    let locks = vault.admin("GET", "/v1/locks").json();
    assert_eq!(locks["locks"].as_array().unwrap().len(), honey.len() * USES.len());

    let alarms: Vec<_> = audit(&vault).into_iter().filter(|entry| entry["alarm"] == true).collect();
    let of_type = |kind: &str| alarms.iter().filter(|entry| entry["type"] == kind).count();
    assert_eq!(of_type("access"), honey.len() * USES.len());
    assert_eq!(of_type("event"), honey.len() * USES.len());
    let log = vault.log();
    assert!(log.contains("ALARM: a honey token was used"));
    assert!(!honey.iter().any(|token| log.contains(token.as_str())), "a token is in the log");
}

#[test]
fn a_batch_with_honey_in_it_is_as_with_an_unknown_token() {
    let vault = Vault::start();
    let real = tokens(&vault, 3);
    let honey = plant(&vault, "default");
    let jwt = jwt_of(&vault.minter(), "thief");
    let with = |odd: &str| [&real[..2], &[odd.to_owned()], &real[2..]].concat();
    let unknown = batch(&vault, &jwt, &with(&like(&honey)));
    assert_eq!(seen(&batch(&vault, &jwt, &with(&honey))), seen(&unknown));
    assert_eq!(unknown.json()["results"][2]["error"]["code"], "unknown_token");
    assert!(unknown.json()["results"][3]["pan"].is_string());
    assert_eq!(batch(&vault, &jwt, &real).code(), "caller_locked");
    let metrics = vault.admin("GET", "/metrics").body;
    for series in
        ["vaultd_honey_tokens_revealed_total 1", "vaultd_locked_callers 1", "vaultd_reveals_total 6"]
    {
        assert!(metrics.lines().any(|line| line == series), "{series}: {metrics}");
    }
}

#[test]
fn honey_is_an_ordinary_record_to_everything_but_callers() {
    let mut vault = fast_vault();
    let honey: Vec<_> = ["numeric", "default"].iter().map(|template| plant(&vault, template)).collect();
    let real = tokens(&vault, 20);
    for purpose in ["record", "fingerprint", "holder"] {
        rotate(&vault, purpose);
    }
    let done = rewrap(&vault);
    assert_eq!((done["state"].as_str(), done["failed"].as_u64()), (Some("done"), Some(0)), "{done}");
    destroy_retired(&vault);
    vault.kill();
    vault.restart();
    let search = json!({ "holder": "\u{1}honey" }).to_string();
    assert_eq!(vault.request("POST", "/v1/tokens/search", &search).json(), json!({ "tokens": [] }));

    let listed = vault.admin("GET", "/v1/honey").json();
    let listed = listed["tokens"].as_array().unwrap();
    let found: Vec<_> = listed.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(found, honey);
    assert_eq!(listed[0]["note"], "in the numeric dump");
    let path = format!("/v1/honey/dev/{}", honey[0]);
    assert_eq!(vault.admin("DELETE", &path).status, 204);
    assert_eq!(vault.admin("DELETE", &path).code(), "unknown_token");
    assert_eq!(vault.admin("DELETE", &format!("/v1/honey/dev/{}", real[0])).code(), "unknown_token");
    let jwt = jwt_of(&vault.minter(), "one");
    assert_eq!(detokenize(&vault, &jwt, &honey[0]).code(), "unknown_token", "dug up: nobody's token");
    assert_eq!(detokenize(&vault, &jwt, &real[0]).status, 200, "and no alarm");
    let elsewhere = vault.minter().mint(&json!({ "tenant": "other" }));
    assert_eq!(detokenize(&vault, &elsewhere, &honey[1]).code(), "unknown_token");
    assert_eq!(vault.admin("GET", "/v1/locks").json(), json!({ "locks": [] }), "another tenant's is unknown");

    assert!(vault.stop().success());
    let checked = vault.run_with(&["check", "--deep", "--quick"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn honey_is_refused_where_it_makes_no_sense() {
    let vault = Vault::start();
    let plant = |body: Value| vault.admin_as(&vault.jwt(), "POST", "/v1/honey", &body.to_string());
    for body in [
        json!({}),
        json!({ "tenant": "no such name" }),
        json!({ "tenant": "dev", "template": "none" }),
        json!({ "tenant": "dev", "note": "" }),
        json!({ "tenant": "dev", "note": "n".repeat(201) }),
    ] {
        assert_eq!(plant(body).code(), "invalid_request");
    }
    let narrow = vault.minter().with_scope("honey:read");
    let answer = vault.admin_as(&narrow, "POST", "/v1/honey", r#"{"tenant":"dev"}"#);
    assert_eq!(answer.code(), "insufficient_scope");
    assert_eq!(vault.request("GET", "/v1/honey", "").code(), "not_found", "not on the API's socket");
}
