//! `vaultctl`: each command against a real vault, for people, for scripts and for the curious.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vault_tests::{Limit, Pans, Vault, finish, signal};

/// Test cards of Visa and MasterCard; they belong to nobody.
const PAN: &str = "4111111111111111";
const OTHER_PAN: &str = "5555555555554444";

#[test]
fn a_card_goes_through_its_life() {
    let vault = Vault::start();
    let made = vault.ctl("tokenize --json --expiry 12/30 --holder Ada --metadata order=A-1", PAN).json();
    let token = made["token"].as_str().unwrap();
    assert_eq!((&made["created"], &made["masked_pan"]), (&json!(true), &json!("411111******1111")));
    let again = vault.ctl("tokenize", "4111 1111 1111 1111\n");
    assert!(again.out().contains(token) && again.out().contains("created     false"), "{again:?}");

    let card = vault.ctl(&format!("detokenize --json {token}"), "").json();
    assert_eq!(card, json!({"pan": PAN, "expiry_date": "12/30"}));
    assert_eq!(
        vault.ctl(&format!("detokenize {token}"), "").out(),
        "pan          4111111111111111\nexpiry_date  12/30\n"
    );
    assert_eq!(vault.ctl("detokenize", token).out().lines().count(), 2, "a token from standard input");
    assert_eq!(
        vault.ctl(&format!("detokenize --masked {token}"), "").out(),
        "masked_pan  411111******1111\n"
    );

    let record = vault.ctl(&format!("show {token} --json"), "").json();
    assert_eq!((&record["holder"], &record["metadata"]), (&json!("Ada"), &json!({"order": "A-1"})));
    let shown = vault.ctl(&format!("show {token}"), "");
    assert!(shown.out().contains("metadata       order=A-1"), "{shown:?}");

    for (search, input) in
        [("--holder Ada", ""), ("--pan", PAN), ("--pan --all", PAN), ("--holder ada --limit 1", "")]
    {
        let found = vault.ctl(&format!("search --json {search}"), input).json();
        assert_eq!(found["tokens"][0]["token"], token, "{search}");
        let found = vault.ctl(&format!("search {search}"), input);
        assert!(found.out().starts_with("TOKEN ") && found.out().contains(token), "{found:?}");
    }

    assert_eq!(vault.ctl(&format!("delete {token}"), "").out(), format!("deleted {token}\n"));
    let gone = vault.ctl(&format!("delete {token}"), "");
    let complaint = gone.complaint(1);
    assert!(
        complaint.contains("(unknown_token, request ") && complaint.contains("; check the token"),
        "{gone:?}"
    );
    assert_eq!(gone.stdout, "");
}

#[test]
fn a_card_number_is_never_an_argument() {
    let vault = Vault::start();
    for line in [
        format!("tokenize {PAN}"),
        format!("tokenize --pan={PAN}"),
        format!("tokenize --holder {PAN}"),
        format!("search --holder {PAN}"),
        format!("detokenize {PAN}"),
        format!("show {PAN} --json"),
        format!("seal --expiry 12/30 {PAN}"),
        PAN.to_owned(),
        "tokenize 4111-1111-1111-1111".to_owned(),
        // The check digit is wrong, and still nobody wants it in a log.
        "tokenize 4111111111111112".to_owned(),
    ] {
        let refused = vault.ctl(&line, OTHER_PAN);
        assert!(refused.complaint(2).contains("standard input"), "{refused:?}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(!said.contains("4111") && !said.contains("1111"), "{said}");
    }
    assert_eq!(vault.ctl("status --json", "").json()["records"], 0);

    // A number-shaped token that could be a card goes through standard input.
    let odd = vault.ctl("detokenize", PAN);
    assert!(odd.complaint(1).contains("(unknown_token"), "{odd:?}");
    assert!(!odd.stderr.contains("4111"), "{odd:?}");
    // Two cards where one is taken: none is sent.
    let two = vault.ctl("tokenize", &format!("{PAN}\n{OTHER_PAN}\n"));
    assert!(two.complaint(1).contains("--file"), "{two:?}");
    assert!(vault.ctl("tokenize", "\n").complaint(1).contains("no card number was given"));
    assert_eq!(vault.ctl("status --json", "").json()["records"], 0);
}

#[test]
fn a_terminal_shows_the_question_and_not_the_answer() {
    let vault = Vault::start();
    for (line, answers, expected) in [
        ("tokenize", vec![PAN], "masked_pan  411111******1111"),
        ("seal --expiry 12/30 --cvv", vec!["41111111111111112\u{7f}", "987"], "jti "),
        ("tokenize", vec!["\u{3}"], "nothing was sent"),
    ] {
        let command = vault.ctl_command();
        let typed = format!("{} {line}", command.get_program().to_str().unwrap());
        // Gives its child a terminal of its own.
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--command", &typed, "/dev/null"])
            .env("VAULT_SOCKET", vault.socket());
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let _limit = Limit::on(&child);
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut seen = Vec::new();
        // The echo is off when the question is there, and stays off for answers that are typed ahead.
        while !seen.ends_with(b"Card number: ") {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{line}: {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        stdin.write_all((answers.join("\r") + "\r").as_bytes()).unwrap();
        stdout.read_to_end(&mut seen).unwrap();
        let status = child.wait().unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains(expected) && !seen.contains(PAN) && !seen.contains("987"), "{line}: {seen}");
        assert_eq!(status.success(), !answers.contains(&"\u{3}"), "{line}: {seen}");
    }
}

#[test]
fn files_of_thousands_go_through_in_batches_and_a_bad_line_fails_alone() {
    let vault = Vault::start();
    let mut pans = Pans::new().take(2_100);
    pans.insert(1_500, "4111111111111112".to_owned());
    let (cards, tokens) = (vault.path("cards.csv"), vault.path("tokens.csv"));
    // A blank line, a Windows line and quotes are all in order.
    let rows: String = pans.iter().flat_map(|pan| ["\"Ada,C\",", pan, ",12/30\r\n"]).collect();
    fs::write(&cards, format!("holder,PAN,expiry_date\n\n{rows}")).unwrap();

    let made = vault.ctl(&format!("tokenize --file {} --template numeric", cards.display()), "");
    assert_eq!(made.status, Some(1));
    let complaints: Vec<_> = made.stderr.lines().collect();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(
        complaints[0].starts_with("vaultctl: line 1503: ")
            && complaints[0].contains("(invalid_pan, request ")
    );
    assert_eq!(complaints[1], "vaultctl: 1 of 2101 lines failed; they are named above");
    assert!(!made.stdout.contains(&pans[0]) && !made.stderr.contains("4111111111111112"));
    assert_eq!(made.stdout.lines().count(), 2_101);
    assert!(made.stdout.starts_with("line,token,masked_pan,created\n3,"), "{}", &made.stdout[..80]);

    fs::write(&tokens, &made.stdout).unwrap();
    let back = vault.ctl(&format!("detokenize --file {}", tokens.display()), "");
    pans.remove(1_500);
    let mut lines = back.out().lines();
    assert_eq!(lines.next(), Some("line,token,pan,expiry_date"));
    for (pan, line) in pans.iter().zip(lines) {
        assert!(line.ends_with(&format!(",{pan},12/30")), "{line}");
    }

    let found = vault.ctl("search --json --all --holder ADA,c", "");
    assert_eq!(found.json()["tokens"].as_array().unwrap().len(), 2_100, "page after page");

    let results = vault.ctl("tokenize --json --file -", &format!("{PAN}\nx\n{OTHER_PAN}"));
    let answer: Value = serde_json::from_str(&results.stdout).unwrap();
    assert_eq!(answer["results"][0]["bin"], "411111");
    assert_eq!(answer["results"][1]["error"]["code"], "invalid_pan");
    assert_eq!(answer["results"][2]["bin"], "555555");
    assert_eq!(results.status, Some(1));

    let nameless = vault.ctl("tokenize --file -", "Ada,4111111111111111\n");
    assert!(nameless.complaint(1).contains("one must be `pan`"), "{nameless:?}");
    assert_eq!(vault.ctl("tokenize --file -", "").out(), "line,token,masked_pan,created\n");
}

#[test]
fn keys_are_rotated_rewrapped_and_destroyed() {
    let vault = Vault::start();
    let token = vault.ctl("tokenize --json", PAN).json()["token"].as_str().unwrap().to_owned();
    assert_eq!(vault.ctl("rewrap show --json", "").json()["state"], "idle");
    assert_eq!(vault.ctl("rotate record --json", "").json()["version"], 2);
    let in_use = vault.ctl("keys destroy record 1", "");
    assert!(in_use.complaint(1).contains("(key_in_use, "), "{in_use:?}");
    assert_eq!(vault.ctl("rewrap start --json", "").json()["left"], 1);
    assert_eq!(vault.ctl("rewrap follow --json", "").json()["state"], "done");
    let job = vault.ctl("rewrap", "");
    assert!(job.out().starts_with("state        done\n"), "{job:?}");
    let gone = vault.ctl("keys destroy record 1 --yes --json", "");
    assert!(gone.complaint(0).contains("backups of before the last rewrap can no longer be"), "{gone:?}");
    assert_eq!(serde_json::from_str::<Value>(&gone.stdout).unwrap()["state"], "destroyed");
    let keys = vault.ctl("keys --json", "").json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 7);
    let keys = vault.ctl("keys list", "");
    let line = keys.out().lines().find(|line| line.starts_with("record-v2 ")).unwrap();
    assert!(line.contains(" active "), "{line}");
    let unknown = vault.ctl("rotate nonsense", "");
    assert!(unknown.complaint(1).contains("(not_found, "), "{unknown:?}");

    let status = vault.ctl("status --json", "").json();
    assert_eq!((&status["ready"], &status["records"]), (&json!(true), &json!(1)));
    let status = vault.ctl("status", "");
    assert!(status.out().contains("ready    yes\n") && status.out().contains("record-v2"), "{status:?}");
    assert_eq!(vault.ctl("reload --json", "").json(), json!({"issuers": 2, "peers": 1}));
    assert_eq!(vault.ctl("reload", "").out(), "issuers  2\npeers    1\n");
    assert_eq!(vault.ctl(&format!("detokenize --json {token}"), "").json()["pan"], PAN);
}

#[test]
fn an_envelope_goes_through_a_pipe() {
    let vault = Vault::start();
    let sealed = vault.ctl("seal --cvv --single-use --expires-in 5m --json", &format!("{PAN}\n12/30\n123\n"));
    let opened = vault.ctl("open --json", sealed.out()).json();
    assert_eq!(opened["meta_data"], json!({"card_number": PAN, "expiry_date": "12/30", "cvv": "123"}));
    assert_eq!(opened["claims"]["single_use"], true);
    let again = vault.ctl("open", sealed.out());
    assert!(again.complaint(1).contains("(envelope_replayed, "), "{again:?}");

    let sealed = vault.ctl("seal --expiry 12/30 --audience payment-gateway", PAN);
    let jwt = sealed.out().lines().find_map(|line| line.strip_prefix("jwt")).unwrap().trim();
    fs::write(vault.path("envelope"), jwt).unwrap();
    let opened = vault.ctl(&format!("open --file {}", vault.path("envelope").display()), "");
    assert!(
        opened.out().starts_with("card_number  4111111111111111\nexpiry_date  12/30\niss "),
        "{opened:?}"
    );
}

#[test]
fn a_token_comes_from_the_environment_a_file_or_a_login() {
    let vault = Vault::start();
    let login = vault.ctl("login --scope tokenize,tokens:read --expires-in 1m --json", "").json();
    assert_eq!((&login["scope"], &login["expires_in"]), (&json!("tokenize tokens:read"), &json!(60)));
    let narrow = login["access_token"].as_str().unwrap();
    let with_token = |line: &str, jwt: &str| {
        finish(vault.ctl_command().args(line.split_whitespace()).env("VAULT_TOKEN", jwt), PAN)
    };
    let token = with_token("tokenize --json", narrow).json()["token"].as_str().unwrap().to_owned();
    let lacking = with_token(&format!("detokenize {token}"), narrow);
    assert!(lacking.complaint(1).contains("(insufficient_scope, "), "{lacking:?}");
    let wrong = with_token("tokenize", "no.such.jwt");
    assert!(wrong.complaint(1).contains("(invalid_jwt, ") && !wrong.stderr.contains("no.such"), "{wrong:?}");

    let file = vault.path("saved.jwt");
    let saved = vault.ctl(&format!("login --save {}", file.display()), "");
    assert!(!saved.out().contains("access_token"), "{saved:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for line in [format!("detokenize {token} --token-file {}", file.display()), format!("detokenize {token}")]
    {
        assert!(vault.ctl(&line, "").out().contains(PAN));
    }
    let missing = vault.ctl("status --token-file /nowhere/jwt", "");
    assert!(missing.complaint(1).contains("/nowhere/jwt"), "{missing:?}");
    let named = format!("status --admin-socket {}", vault.path("admin.sock").display());
    assert!(vault.ctl(&named, "").out().contains("ready    yes"));
    let nobody = vault.ctl("status --socket /nowhere/v.sock", "");
    assert!(nobody.complaint(1).contains("/nowhere/"), "{nobody:?}");
}

#[test]
fn a_wrong_command_line_ends_with_2_and_a_reader_that_goes_away_with_0() {
    let vault = Vault::start();
    for line in
        ["", "frobnicate", "keys destroy record", "search", "tokenize --expires-in soon", "login --scope all"]
    {
        let wrong = vault.ctl(line, "");
        assert_eq!((wrong.status, wrong.stdout.as_str()), (Some(2), ""), "{line}: {wrong:?}");
        assert!(!wrong.stderr.is_empty());
    }
    for line in ["--help", "help audit search", "tokenize --help", "--version"] {
        assert!(!vault.ctl(line, "").out().is_empty());
    }
    for line in ["keys", "status --json", "completions bash", "tokenize --file -", "--help"] {
        let mut command = vault.ctl_command();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child =
            command.args(line.split_whitespace()).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        let _limit = Limit::on(&child);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn the_audit_log_is_shown_and_searched() {
    let vault = Vault::start();
    let token = vault.ctl("tokenize --json", PAN).json()["token"].as_str().unwrap().to_owned();
    vault.ctl(&format!("detokenize {token}"), "");
    let unknown = "00000000-0000-7000-8000-000000000000";
    vault.ctl(&format!("detokenize {unknown}"), "");

    let ops = |line: &str| -> Vec<String> {
        let found = vault.ctl(&format!("audit {line} --json"), "").json();
        let entries = found["entries"].as_array().unwrap();
        let name = |entry: &Value| {
            ["op", "event", "type"].iter().find_map(|key| entry[key].as_str().map(str::to_owned))
        };
        entries.iter().map(|entry| name(entry).unwrap()).collect()
    };
    assert_eq!(ops(&format!("search --token {token}")), ["tokenize", "detokenize"]);
    assert_eq!(ops(&format!("search --token {token} --limit 1")), ["tokenize"]);
    assert_eq!(vault.ctl("audit search --token -", &token).out().lines().count(), 2);
    assert_eq!(ops("search --outcome refused --subject developer --tenant dev"), ["detokenize"]);
    assert_eq!(ops("search --op detokenize --since 1h --type access").len(), 2);
    assert!(ops("search --until 2026-01-01").is_empty());
    assert!(ops("search --issuer nobody").is_empty());
    assert_eq!(ops("search --type begin"), ["begin"]);
    assert_eq!(ops("tail -n 2 --op detokenize"), ["detokenize", "detokenize"]);
    assert_eq!(ops("tail").len(), 10);

    let lines = vault.ctl("audit search --op detokenize", "");
    let lines: Vec<_> = lines.out().lines().collect();
    assert!(lines[0].contains("granted") && lines[0].contains("dev/developer") && lines[0].contains(&token));
    assert!(lines[1].contains("unknown_token") && lines[1].contains(unknown), "{lines:?}");
    let none = vault.ctl("audit tail -n 0", "");
    assert_eq!(none.status, Some(2));
}

#[test]
fn whoever_follows_the_audit_log_misses_nothing_and_keeps_nobody() {
    let mut vault = Vault::start_with(|config| config + "\n[limits]\nrequest_timeout_seconds = 4\n");
    let mut command = vault.ctl_command();
    let follow =
        command.args(["audit", "tail", "-f", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = follow.spawn().unwrap();
    let (lines, line) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    let until = |op: &str| loop {
        let line = line.recv_timeout(Duration::from_mins(1)).unwrap();
        let entry: Value = serde_json::from_str(&line).unwrap();
        if entry["op"] == op || entry["event"] == op {
            break;
        }
    };
    until("login");
    vault.ctl("tokenize", PAN);
    until("tokenize");

    // Longer than a request may take.
    std::thread::sleep(Duration::from_secs(6));
    let looks =
        vault.ctl("audit search --op audit.read --json", "").json()["entries"].as_array().unwrap().len();
    assert!(looks <= 10, "it follows itself: {looks} entries");

    let stopping = Instant::now();
    assert!(vault.stop().success());
    // Less than the grace of 20 seconds.
    assert!(
        stopping.elapsed() < Duration::from_secs(15),
        "a reader kept the vault for {:?}",
        stopping.elapsed()
    );
    vault.restart();
    for event in ["stop", "start"] {
        until(event);
    }
    vault.ctl("keys", "");
    until("keys.list");

    signal(child.id(), "INT");
    let _limit = Limit::on(&child);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr
            .lines()
            .all(|line| line.contains("waiting: cannot connect") || line.contains("waiting: the connection")),
        "{stderr}"
    );
}

#[test]
fn a_thief_is_locked_by_honey_and_an_operator_unlocks() {
    let vault = Vault::start();
    let planted = vault.ctl("honey plant --tenant dev --template opaque --note row-1 --json", "").json();
    let token = planted["token"].as_str().unwrap();
    assert_eq!((&planted["tenant"], &planted["note"]), (&json!("dev"), &json!("row-1")));
    assert_eq!(vault.ctl("honey --json", "").json()["tokens"], json!([planted]));
    let list = vault.ctl("honey list", "");
    assert!(list.out().starts_with("TOKEN ") && list.out().contains(token), "{list:?}");

    let thief = vault.minter().mint(&json!({"sub": "till-7", "scope": "detokenize"}));
    let steal =
        |token: &str| finish(vault.ctl_command().args(["detokenize", token]).env("VAULT_TOKEN", &thief), "");
    assert!(steal(token).complaint(1).contains("(unknown_token, "));
    let locked = vault.ctl("locks --json", "").json();
    let lock = &locked["locks"][0];
    assert_eq!((&lock["issuer"], &lock["subject"]), (&json!("dev-issuer"), &json!("till-7")));
    assert!(vault.ctl("locks", "").out().contains("till-7"));
    assert!(steal(token).complaint(1).contains("`vaultctl locks`"));
    let alarm = vault.ctl("audit search --subject till-7", "");
    assert!(alarm.out().contains("ALARM "), "{alarm:?}");

    assert_eq!(vault.ctl("locks unlock dev-issuer till-7 --json", "").json(), json!({"unlocked": true}));
    assert_eq!(vault.ctl("locks unlock dev-issuer till-7", "").out(), "it is not locked\n");
    assert_eq!(vault.ctl(&format!("honey remove dev {token}"), "").out(), "removed\n");
    assert!(vault.ctl(&format!("honey remove dev {token}"), "").complaint(1).contains("(unknown_token, "));
    assert_eq!(vault.ctl("honey list --json", "").json(), json!({"tokens": []}));
}

#[test]
fn what_needs_two_people_says_how_and_is_done_with_both() {
    let vault = Vault::start_with(|config| config + "\n[approvals]\noperations = [\"locks.unlock\"]\n");
    let alice = vault.minter().mint(&json!({"sub": "alice", "scope": "locks:remove"}));
    let unlock = |more: &[&str]| {
        let mut command = vault.ctl_command();
        finish(command.args(["locks", "unlock", "bank", "till-7"]).args(more).env("VAULT_TOKEN", &alice), "")
    };
    let alone = unlock(&[]);
    let complaint = alone.complaint(1);
    assert!(complaint.contains("(approval_required, ") && complaint.contains("--approval-file"), "{alone:?}");
    let digest = complaint.split('"').nth(1).unwrap();

    let file = vault.path("approval.jwt");
    let file = file.to_str().unwrap();
    let both = ["--approval-file", file];
    // A digest in 64 begins so: of `DELETE /v1/keys/envelope/1`, say.
    vault.ctl("login --approves -jJBAewS_Kzlva3yJyFKtYM67BcwL3Yc40q-MtsoWE8", "").out();
    let approves = vault.ctl(&format!("login --approves {digest} --save {file}"), "");
    assert!(approves.out().contains("approve\n"), "{approves:?}");
    assert!(unlock(&both).complaint(1).contains("own account"), "whoever runs this is alice");
    let elsewhere = json!({"sub": "developer", "scope": "approve", "approves": digest});
    fs::write(file, vault.minter().mint(&elsewhere)).unwrap();
    assert_eq!(unlock(&both).out(), "it is not locked\n");
    assert!(unlock(&both).complaint(1).contains("used before"));
    let entries = vault.ctl("audit search --subject alice --outcome granted --json", "").json();
    assert_eq!(entries["entries"][0]["approved_by"], "developer");
    assert_eq!(entries["entries"][0]["approved_by_issuer"], "dev-issuer");
}

#[test]
fn completions_and_man_pages_come_from_the_code() {
    let vault = Vault::start();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = vault.ctl(&format!("completions {shell}"), "");
        assert!(script.out().contains("detokenize"), "{shell}");
    }
    let bash = vault.path("vaultctl.bash");
    fs::write(&bash, vault.ctl("completions bash", "").out()).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&bash).status().unwrap().success());

    let man = vault.path("man/man1");
    assert_eq!(vault.ctl(&format!("man {}", man.display()), "").out(), "");
    for page in ["vaultctl.1", "vaultctl-tokenize.1", "vaultctl-audit-search.1", "vaultctl-keys-destroy.1"] {
        let text = fs::read_to_string(man.join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.len() > 300, "{page}: {text}");
    }
}
