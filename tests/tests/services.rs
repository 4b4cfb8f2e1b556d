//! What payment services do with a vault: the three stories, by the Rust client and by `curl`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, process::Command, thread, time::Duration};

use serde_json::{Value, json};
use vault_client::{
    CardData, Code, LoginRequest, Scope, SealEnvelopeRequest, SearchRequest, Sensitive, TokenPatch,
    TokenizeRequest,
};
use vault_tests::{AuditLog, Pans, Vault, chaotic, luhn_valid, not_run, short_lived, until};

const PAN: &str = "4111111111111111";

/// A vault where this user is the bank server, too, and serves two banks.
fn with_banks() -> Vault {
    Vault::start_with(|config| {
        let peer = r#"
            tenant = "dev"
            clients = { cih = "bank-cih", bmce = "bank-bmce" }"#;
        config.replace("tenant = \"dev\"", peer)
    })
}

fn holder_of(name: &str, pan: &str) -> TokenizeRequest {
    TokenizeRequest { holder: Some(name.into()), ..TokenizeRequest::new(pan) }
}

fn by_holder(name: &str) -> SearchRequest {
    SearchRequest { holder: Some(name.into()), ..SearchRequest::default() }
}

#[tokio::test]
async fn a_checkout_finds_cards_by_the_holders_name() {
    let vault = Vault::start();
    let client = vault.client();
    let pans = Pans::new().take(45);
    let first = client.tokenize(&holder_of("José  Núñez", &pans[0])).await.unwrap();
    let again = client.tokenize(&holder_of("José Núñez", &pans[0])).await.unwrap();
    assert_eq!((again.created, &again.token), (false, &first.token));
    for pan in &pans[1..] {
        client.tokenize(&holder_of("JOSE\u{301} nu\u{301}n\u{303}ez", pan)).await.unwrap();
    }
    client.tokenize(&holder_of("Jose Nunez", PAN)).await.unwrap();

    let mut found = Vec::new();
    let mut request = by_holder("josé núñez");
    loop {
        let page = client.search(&request).await.unwrap();
        assert!(page.tokens.len() <= 20);
        found.extend(page.tokens.into_iter().map(|record| record.token));
        let Some(cursor) = page.cursor else { break };
        request.cursor = Some(cursor);
    }
    assert_eq!(found.len(), 45, "each once, and nobody else");
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 45);

    let mut request = by_holder("José Núñez");
    request.pan = Some(pans[7].as_str().into());
    let both = client.search(&request).await.unwrap();
    assert_eq!(both.tokens.len(), 1);
    assert!(client.compare(&both.tokens[0].token, &pans[7].as_str().into()).await.unwrap());
    assert!(!client.compare(&both.tokens[0].token, &pans[8].as_str().into()).await.unwrap());

    client.delete(&first.token).await.unwrap();
    let mut by_pan = SearchRequest { pan: Some(pans[0].as_str().into()), ..SearchRequest::default() };
    assert!(client.search(&by_pan).await.unwrap().tokens.is_empty(), "no index row stays behind");
    by_pan.cursor = Some("?".to_owned());
    assert_eq!(client.search(&by_pan).await.unwrap_err().code(), Some(Code::InvalidRequest));
    let nothing = client.search(&SearchRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Some(Code::InvalidRequest));
}

#[test]
fn changes_of_one_token_at_once_are_all_made() {
    let vault = Vault::start();
    let new = vault.request("POST", "/v1/tokenize", &json!({ "pan": PAN }).to_string()).json();
    let path = format!("/v1/tokens/{}", new["token"].as_str().unwrap());
    let change =
        &|hours: u64| vault.request("PATCH", &path, &json!({ "expires_in": hours * 3_600 }).to_string());
    let statuses: Vec<_> = thread::scope(|scope| {
        let changes: Vec<_> = (1..=20).map(|hours| scope.spawn(move || change(hours).status)).collect();
        changes.into_iter().map(|change| change.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 20]);
}

#[tokio::test]
async fn a_bank_logs_in_by_its_coordinates_and_fetches_a_record() {
    let vault = with_banks();
    let as_bank = |bank: &str| {
        let request = LoginRequest { client: Some(bank.to_owned()), ..LoginRequest::default() };
        vault_client::VaultClient::builder(vault.socket()).login(request).build().unwrap()
    };
    let cih = as_bank("cih");
    let request = TokenizeRequest { template: Some("numeric".to_owned()), ..TokenizeRequest::new(PAN) };
    let made = cih.tokenize(&request).await.unwrap();
    assert_eq!((&made.token[..6], made.token.len()), (&PAN[..6], 16));
    assert!(!luhn_valid(&made.token));
    let record = cih.token(&made.token).await.unwrap();
    assert_eq!((record.token, record.created_at), (made.token.clone(), made.created_at));
    assert!(!record.ciphertext_id.is_empty() && !record.fingerprint.is_empty());

    let other = as_bank("bmce");
    assert_eq!(other.token(&made.token).await.unwrap_err().code(), Some(Code::UnknownToken));
    let theirs = other.tokenize(&request).await.unwrap();
    let theirs = other.token(&theirs.token).await.unwrap();
    assert_ne!(theirs.fingerprint, record.fingerprint, "one card in two tenants has nothing in common");

    let stranger = as_bank("no-such-bank").token(&made.token).await.unwrap_err();
    assert_eq!(stranger.code(), Some(Code::WrongTenant));
}

fn card_data() -> CardData {
    CardData {
        card_number: "4111 1111 1111 1111".into(),
        expiry_date: "12/31".into(),
        cvv: Some(Sensitive::from("123")),
    }
}

fn envelope() -> SealEnvelopeRequest {
    SealEnvelopeRequest { meta_data: card_data(), audience: None, expires_in: None, single_use: None }
}

#[tokio::test]
async fn an_envelope_opens_in_its_tenant_whatever_its_audience() {
    let vault = Vault::start();
    let client = vault.client();
    let wish = SealEnvelopeRequest { audience: Some("another-gateway".to_owned()), ..envelope() };
    let sealed = client.seal_envelope(&wish).await.unwrap();
    assert_eq!(client.open_envelope(&sealed.jwt).await.unwrap().claims.aud, "another-gateway");
}

#[tokio::test]
async fn a_gateway_opens_what_a_client_sealed() {
    let vault = Vault::start();
    let client = vault.client();
    let sealed = client.seal_envelope(&envelope()).await.unwrap();
    assert!(!sealed.jwt.contains("4111"));
    for _ in 0..2 {
        let opened = client.open_envelope(&sealed.jwt).await.unwrap();
        assert_eq!(opened.meta_data.card_number.expose(), PAN);
        assert_eq!(opened.meta_data.cvv.unwrap().expose(), "123");
        let claims = opened.claims;
        assert_eq!((claims.iss.as_str(), claims.aud.as_str()), ("payment-service", "payment-gateway"));
        assert_eq!((claims.exp - claims.iat, claims.jti), (1_800, sealed.jti.clone()));
    }

    let brief =
        client.seal_envelope(&SealEnvelopeRequest { expires_in: Some(1), ..envelope() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let code = |error: vault_client::Error| error.code().unwrap();
    assert_eq!(code(client.open_envelope(&brief.jwt).await.unwrap_err()), Code::EnvelopeExpired);

    // The other envelope's signature, and a bearer token in an envelope's place and the other way round.
    let (head, _) = sealed.jwt.rsplit_once('.').unwrap();
    let (_, signature) = brief.jwt.rsplit_once('.').unwrap();
    for jwt in [format!("{head}.{signature}"), vault.jwt(), "a.b.c".to_owned(), String::new()] {
        assert_eq!(code(client.open_envelope(&jwt).await.unwrap_err()), Code::EnvelopeInvalid, "{jwt}");
    }
    let answer = vault.request_as(&sealed.jwt, "POST", "/v1/tokenize", "{}");
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_jwt"));

    let other = vault.minter().mint(&json!({ "tenant": "other", "scope": "envelopes:open" }));
    let open = json!({ "jwt": sealed.jwt }).to_string();
    let answer = vault.request_as(&other, "POST", "/v1/envelopes/open", &open);
    assert_eq!((answer.status, answer.code().as_str()), (422, "envelope_invalid"));

    for (name, value) in [("card_number", "4111111111111112"), ("expiry_date", "13/31"), ("cvv", "12")] {
        let mut request = serde_json::to_value(envelope()).unwrap();
        request["meta_data"][name] = value.into();
        let answer = vault.request("POST", "/v1/envelopes", &request.to_string());
        assert_eq!(answer.status, 400, "{name}");
        // The rest has an id in it, whose digits are random.
        assert!(!answer.json()["detail"].as_str().unwrap().contains(value), "{answer:?}");
    }
}

#[tokio::test]
async fn what_was_used_once_stays_used_after_kill_9() {
    let mut vault = Vault::start_with(|config| {
        config.replace("[auth]", "[auth]\nsingle_use_scopes = [\"tokens:read\", \"detokenize\"]")
    });
    let client = vault.client();
    let once = SealEnvelopeRequest { single_use: Some(true), ..envelope() };
    let sealed = client.seal_envelope(&once).await.unwrap();
    assert!(client.open_envelope(&sealed.jwt).await.unwrap().claims.single_use);
    let token = client.tokenize(&TokenizeRequest::new(PAN)).await.unwrap().token;
    let (path, jwt) = (format!("/v1/tokens/{token}"), vault.minter().mint(&json!({})));
    assert_eq!(vault.request_as(&jwt, "GET", &path, "").status, 200);
    for _ in 0..2 {
        let answer = vault.request_as(&jwt, "GET", &path, "");
        assert_eq!((answer.status, answer.code().as_str()), (401, "replayed_jwt"));
        let reveal = json!({ "token": token }).to_string();
        let answer = vault.request_as(&jwt, "POST", "/v1/detokenize", &reveal);
        assert_eq!(answer.code(), "replayed_jwt", "by another scope neither");
        let open = json!({ "jwt": sealed.jwt }).to_string();
        let answer = vault.request("POST", "/v1/envelopes/open", &open);
        assert_eq!((answer.status, answer.code().as_str()), (422, "envelope_replayed"));
        vault.kill();
        vault.restart();
    }
}

#[test]
fn an_envelope_whose_time_ends_while_the_hsm_works_stays_closed() {
    let vault = Vault::start_with(|config| chaotic(&config));
    let card = json!({ "card_number": PAN, "expiry_date": "12/31" });
    let seal = json!({ "meta_data": card, "single_use": true, "expires_in": 2 }).to_string();
    let sealed = vault.request("POST", "/v1/envelopes", &seal).json();
    vault.trouble("C_Decrypt latency 3s count=1\n");
    let open = json!({ "jwt": sealed["jwt"] }).to_string();
    let opened = vault.request("POST", "/v1/envelopes/open", &open);
    assert_eq!((opened.status, opened.code().as_str()), (422, "envelope_expired"), "{opened:?}");
}

#[test]
fn the_stories_by_curl() {
    let vault = with_banks();
    let socket = vault.socket();
    let curl = |jwt: &str, path: &str, body: Value| -> Value {
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "30", "--unix-socket", socket.to_str().unwrap()])
            .args(["-H", "content-type: application/json"])
            .args(["-H", &format!("authorization: Bearer {jwt}"), "-d", &body.to_string()])
            .arg(format!("http://vault{path}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let login = curl("", "/v1/login", json!({ "client": "cih", "expires_in": 60 }));
    assert_eq!((login["tenant"].as_str(), login["expires_in"].as_u64()), (Some("bank-cih"), Some(60)));
    let jwt = login["access_token"].as_str().unwrap();
    let made =
        curl(jwt, "/v1/tokenize", json!({ "pan": PAN, "holder": "Ada Lovelace", "template": "numeric" }));
    let again = curl(jwt, "/v1/tokenize", json!({ "pan": PAN, "template": "numeric" }));
    assert_eq!(made["token"], again["token"]);
    let found = curl(jwt, "/v1/tokens/search", json!({ "holder": "ada LOVELACE" }));
    assert_eq!(found["tokens"][0]["token"], made["token"]);
    let equal = curl(jwt, "/v1/tokens/compare", json!({ "token": made["token"], "pan": PAN }));
    assert_eq!(equal, json!({ "equal": true }));
    let card = json!({ "card_number": PAN, "expiry_date": "12/31", "cvv": "123" });
    let sealed = curl(jwt, "/v1/envelopes", json!({ "meta_data": card, "single_use": true }));
    let opened = curl(jwt, "/v1/envelopes/open", json!({ "jwt": sealed["jwt"] }));
    assert_eq!(opened["meta_data"], card);
    let replayed = curl(jwt, "/v1/envelopes/open", json!({ "jwt": sealed["jwt"] }));
    assert_eq!(replayed["code"], "envelope_replayed");
    let entries = AuditLog::of(&vault).follow();
    let opened = entries.iter().filter(|entry| entry["op"] == "envelopes.open");
    let opened: Vec<_> = opened.map(|entry| (&entry["outcome"], &entry["jti"])).collect();
    assert_eq!(opened, [(&json!("granted"), &sealed["jti"]), (&json!("refused"), &sealed["jti"])]);
}

#[test]
fn two_users_log_in_and_neither_can_use_the_others_jwt() {
    let me = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap();
    let (shop, bank, stranger) = if me == 0 { (60_001, 60_002, 60_003) } else { (me, 60_002, 60_003) };
    let vault = Vault::start_with(|config| {
        let (before, rest) = config.split_once("[[auth.peers]]").unwrap();
        let (_, after) = rest.split_once("[tokens]").unwrap();
        let peer = |name: &str, uid: u32, tenant: &str, scopes: &str| {
            format!(
                "[[auth.peers]]\nname = \"{name}\"\nuid = {uid}\ntenant = \"{tenant}\"\nscopes = [{scopes}]\n"
            )
        };
        let peers = peer("checkout", shop, "shop", r#""tokenize""#)
            + &peer("settlement", bank, "bank", r#""tokenize", "detokenize""#);
        format!("{before}{peers}\n[tokens]{after}").replace("[server]", "[server]\nsocket_mode = \"0666\"")
    });
    // Whoever cannot become somebody else still learns that nobody else's rule fits.
    let curl = |uid: u32, jwt: &str, path: &str, body: &str| -> Option<Value> {
        let mut command = Command::new("setpriv");
        if uid != me {
            if me != 0 {
                return None;
            }
            command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
        }
        command.args(["curl", "-sS", "--max-time", "30", "--unix-socket", vault.socket().to_str().unwrap()]);
        command.args(["-H", "content-type: application/json", "-H", &format!("authorization: Bearer {jwt}")]);
        let output = command.args(["-d", body, &format!("http://vault{path}")]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Some(serde_json::from_slice(&output.stdout).unwrap())
    };
    fs::set_permissions(vault.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let login = |uid| curl(uid, "", "/v1/login", "{}");
    let card = json!({ "pan": PAN }).to_string();
    let shops = login(shop).unwrap();
    assert_eq!((shops["tenant"].as_str(), shops["scope"].as_str()), (Some("shop"), Some("tokenize")));
    let jwt = shops["access_token"].as_str().unwrap();
    assert_eq!(curl(shop, jwt, "/v1/tokenize", &card).unwrap()["created"], true);

    let Some(banks) = login(bank) else {
        not_run("only root can become somebody else");
        return;
    };
    assert_eq!(
        (banks["tenant"].as_str(), banks["scope"].as_str()),
        (Some("bank"), Some("tokenize detokenize"))
    );
    assert_eq!(curl(bank, jwt, "/v1/tokenize", &card).unwrap()["code"], "sender_mismatch");
    let nobody = login(stranger).unwrap();
    assert_eq!((nobody["status"].as_u64(), nobody["code"].as_str()), (Some(403), Some("sender_mismatch")));
    for name in ["checkout", "settlement", "shop", "bank", "60001"] {
        assert!(!nobody.to_string().contains(name), "{nobody}");
    }
}

#[test]
fn a_service_is_known_by_its_unit() {
    const CURL: &str = "[ -z \"$1\" ] || echo $$ > \"$1/cgroup.procs\"; exec curl -sS --max-time 30 \
                        --unix-socket \"$2\" -X POST http://vault/v1/login";
    let vault = Vault::start_with(|config| {
        let (before, rest) = config.split_once("uid = ").unwrap();
        let (_, after) = rest.split_once('\n').unwrap();
        format!("{before}unit = \"checkout.service\"\n{after}")
    });
    let login = |cgroup: &str| -> Value {
        let output =
            Command::new("sh").args(["-c", CURL, "sh", cgroup, vault.socket().to_str().unwrap()]).output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    };
    assert_eq!(login("")["code"], "sender_mismatch", "this test runs in no such unit");

    let hierarchy = vault.path("cgroup");
    fs::create_dir(&hierarchy).unwrap();
    let mounted = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(&hierarchy).output().unwrap();
    if !mounted.status.success() {
        // The reading of its name is tested by itself.
        not_run("only root may make a unit's control group");
        return;
    }
    let slice = hierarchy.join("system.slice");
    let found = ["checkout.service", "checkout.service.scope", "other.service"].map(|unit| {
        let cgroup = slice.join(unit);
        fs::create_dir_all(&cgroup).unwrap();
        let answer = login(cgroup.to_str().unwrap());
        let _ = fs::remove_dir(&cgroup);
        answer["code"].as_str().unwrap_or("logged in").to_owned()
    });
    let _ = fs::remove_dir(&slice);
    assert!(Command::new("umount").arg(&hierarchy).status().unwrap().success());
    assert_eq!(found, ["logged in", "sender_mismatch", "sender_mismatch"]);
}

#[test]
fn keys_are_rotated_under_load_without_a_refused_request() {
    let vault = Vault::start();
    let keys = vault.path("issuer.pub.pem");
    let (old_key, old) = (fs::read_to_string(&keys).unwrap(), vault.minter());
    let other = Vault::start();
    let (new_key, new) = (fs::read_to_string(other.path("issuer.pub.pem")).unwrap(), other.minter());
    drop(other);
    let put = |text: &str| {
        // As an issuer does it: the new file takes the old one's place at once.
        fs::write(vault.path("keys.new"), text).unwrap();
        fs::rename(vault.path("keys.new"), &keys).unwrap();
    };
    let status =
        |jwt: &str| vault.request_as(jwt, "POST", "/v1/tokenize", &json!({ "pan": PAN }).to_string()).status;

    thread::scope(|scope| {
        let load =
            scope.spawn(|| (0..400).map(|_| status(&old.mint(&json!({})))).filter(|s| *s > 201).count());
        put(&format!("{old_key}{new_key}"));
        for _ in 0..100 {
            assert!(status(&new.mint(&json!({}))) <= 201, "a new key counts from its first JWT on");
        }
        put("broken");
        for _ in 0..20 {
            assert!(status(&new.mint(&json!({}))) <= 201, "the last good keys stay in force");
        }
        assert_eq!(load.join().unwrap(), 0, "refused");
    });
    let (old, kept) = (old.mint(&json!({})), new.mint(&json!({})));
    assert!(status(&old) <= 201 && status(&kept) <= 201);
    put(&new_key);
    until(Duration::from_secs(10), "a key that is gone counts no more", || status(&old) == 401);
    assert!(status(&kept) <= 201);
}

#[test]
fn a_reload_that_would_rename_the_vault_is_refused() {
    let vault = Vault::start();
    let card = json!({ "pan": PAN }).to_string();
    let status = |jwt: &str| vault.request_as(jwt, "POST", "/v1/tokenize", &card).status;
    let login = || {
        let answer = vault.request("POST", "/v1/login", "{}").json();
        answer["access_token"].as_str().unwrap().to_owned()
    };
    let early = login();
    assert_eq!(status(&early), 201);
    vault.change_config(|config| config.replace("[auth]\n", "[auth]\nself_issuer = \"renamed\"\n"));
    let refused = vault.admin("POST", "/v1/reload");
    assert_eq!(refused.code(), "config_invalid", "{refused:?}");
    let why = refused.json()["detail"].to_string();
    assert!(why.contains("auth.self_issuer") && why.contains("takes a restart"), "{why}");
    assert_eq!((status(&early), status(&login())), (200, 200), "what was in force stays");
}

#[test]
fn a_name_that_nobody_has_stops_no_vault_that_serves() {
    let mut vault = Vault::start();
    let with = |rule: &str| {
        let rule = format!(
            "[[auth.peers]]\nname = \"typo\"\n{rule}\ntenant = \"dev\"\nscopes = [\"tokenize\"]\n\n[tokens]"
        );
        move |config: String| config.replacen("[tokens]", &rule, 1)
    };
    let good = fs::read_to_string(vault.path("vaultd.toml")).unwrap();
    for (rule, told) in
        [("user = \"nosuch\"", "there is no user"), ("uid = 4001\ngroup = \"nosuch\"", "there is no group")]
    {
        vault.change_config(with(rule));
        let refused = vault.admin("POST", "/v1/reload");
        assert_eq!(refused.code(), "config_invalid", "{refused:?}");
        assert!(refused.json()["detail"].to_string().contains(told), "{refused:?}");
        assert_eq!(vault.request("GET", "/readyz", "").status, 200);

        assert!(vault.stop().success());
        let output = vault.run("serve");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let kind = told.rsplit(' ').next().unwrap();
        assert!(said.contains(told) && said.contains(&format!(": auth.peers.1.{kind}: ")), "{said}");
        vault.change_config(|_| good.clone());
        vault.restart();
    }
}

#[test]
fn shorter_lifetimes_cut_no_jwt_short_that_was_given_out() {
    let mut vault = Vault::start();
    let card = json!({ "pan": PAN }).to_string();
    let login = |vault: &Vault| vault.request("POST", "/v1/login", "{}").json();
    let early = login(&vault)["access_token"].as_str().unwrap().to_owned();
    let status = |vault: &Vault| vault.request_as(&early, "POST", "/v1/tokenize", &card).status;
    vault.change_config(|config| short_lived(&config));
    assert_eq!(vault.admin("POST", "/v1/reload").status, 200);
    assert_eq!(login(&vault)["expires_in"], 1, "from now on");
    assert_eq!(status(&vault), 201, "after a reload");
    for restart in ["the first", "the second"] {
        vault.kill();
        vault.restart();
        assert_eq!(status(&vault), 200, "after {restart} restart");
    }
}

#[test]
fn each_tenant_has_limits_and_counts_of_its_own() {
    let vault = Vault::start_with(|config| config + "\n[limits]\nmax_requests_per_second_per_tenant = 5\n");
    let of = |tenant: &str| vault.minter().mint(&json!({ "tenant": tenant }));
    let (busy, calm) = (of("busy"), of("calm"));
    let card = json!({ "pan": PAN }).to_string();
    // Five a second are fewer than a busy machine manages.
    let refused =
        (0..500).map(|_| vault.request_as(&busy, "POST", "/v1/tokenize", &card)).find(|a| a.status == 429);
    let refused = refused.unwrap();
    assert_eq!(refused.code(), "rate_limited");
    for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(refused.headers.contains_key(name), "{refused:?}");
    }
    assert_eq!(vault.request_as(&calm, "POST", "/v1/tokenize", &card).status, 201, "others notice nothing");

    let metrics = |socket: &str| {
        vault_tests::exchange(&vault.path(socket), b"GET /metrics HTTP/1.1\r\nhost: v\r\n\r\n")
    };
    let text = metrics("admin.sock").body;
    let counted = "vaultd_requests_total{route=\"/v1/tokenize\",code=\"ok\",tenant=\"calm\"} 1\n";
    assert!(text.contains(counted), "{text}");
    assert!(text.contains("code=\"rate_limited\",tenant=\"busy\"}"), "{text}");
    assert_eq!(metrics("vaultd.sock").status, 404, "for the operator only");
}

#[tokio::test]
async fn tenants_never_meet() {
    const TENANTS: [&str; 3] = ["one", "two", "three"];
    let vault = Vault::start();
    let mut random = vault_tests::seeded_random();
    let clients: Vec<_> = TENANTS
        .iter()
        .map(|tenant| {
            let scope = Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ");
            let jwt = vault.minter().mint(&json!({ "tenant": tenant, "scope": scope }));
            vault_client::VaultClient::builder(vault.socket()).token(jwt.into()).build().unwrap()
        })
        .collect();
    let pans = Pans::new().take(8);
    let names = ["Ada Lovelace", "Grace Hopper"];
    // What each tenant has: tokens with their PAN and holder.
    let mut model: [Vec<(String, usize, usize)>; 3] = Default::default();
    for _ in 0..400 {
        let tenant = random.usize(..3);
        let (client, card, name) = (&clients[tenant], random.usize(..8), random.usize(..2));
        match random.usize(..6) {
            0 | 1 => {
                let answer = client.tokenize(&holder_of(names[name], &pans[card])).await.unwrap();
                let known =
                    model[tenant].iter().find(|(_, known, _)| *known == card).map(|(token, ..)| token);
                assert_eq!(known.is_none(), answer.created);
                assert!(known.is_none_or(|known| *known == answer.token));
                let elsewhere = |(n, tokens): (usize, &Vec<(String, usize, usize)>)| {
                    n != tenant && tokens.iter().any(|(token, ..)| *token == answer.token)
                };
                assert!(!model.iter().enumerate().any(elsewhere), "two tenants share a token");
                if answer.created {
                    model[tenant].push((answer.token, card, name));
                }
            }
            2 => {
                let found = client.search(&by_holder(names[name])).await.unwrap().tokens;
                let mut found: Vec<_> = found.into_iter().map(|record| record.token).collect();
                let own = model[tenant].iter().filter(|(.., known)| *known == name);
                let mut own: Vec<_> = own.map(|(token, ..)| token.clone()).collect();
                found.sort_unstable();
                own.sort_unstable();
                assert_eq!(found, own);
            }
            3 => {
                let owner = random.usize(..3);
                let Some((token, card, _)) = model[owner].first().cloned() else { continue };
                let (seen, own) = (client.detokenize(&token).await, owner == tenant);
                match seen {
                    Ok(seen) => assert!(own && seen.pan.expose() == pans[card]),
                    Err(error) => assert!(!own && error.code() == Some(Code::UnknownToken), "{error}"),
                }
                let compared = client.compare(&token, &pans[card].as_str().into()).await;
                assert_eq!(compared.ok(), own.then_some(true));
                assert_eq!(client.token(&token).await.is_ok(), own);
                assert_eq!(client.detokenize_masked(&token).await.is_ok(), own);
                let batch = client.detokenize_batch(std::slice::from_ref(&token)).await.unwrap();
                assert_eq!(batch[0].is_ok(), own);
                let patch = TokenPatch { expires_in: Some(3_600), ..TokenPatch::default() };
                assert_eq!(client.update(&token, &patch).await.is_ok(), own);
                let sealed = clients[owner].seal_envelope(&envelope()).await.unwrap();
                assert_eq!(client.open_envelope(&sealed.jwt).await.is_ok(), own);
                let by_pan =
                    SearchRequest { pan: Some(pans[card].as_str().into()), ..SearchRequest::default() };
                let found = client.search(&by_pan).await.unwrap().tokens;
                assert_eq!(found.iter().any(|record| record.token == token), own);
            }
            _ => {
                let owner = random.usize(..3);
                let Some((token, ..)) = model[owner].last().cloned() else { continue };
                let deleted = client.delete(&token).await;
                assert_eq!(deleted.is_ok(), owner == tenant);
                if deleted.is_ok() {
                    model[owner].pop();
                }
            }
        }
    }
}
