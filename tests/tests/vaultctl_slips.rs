//! `vaultctl` and whoever uses it for the first time: what goes wrong then is named, and what to do about it.

use std::process::Stdio;

use vault_tests::{Pans, Vault, finish};

/// Test cards of Visa and MasterCard; they belong to nobody.
const PAN: &str = "4111111111111111";
const OTHER_PAN: &str = "5555555555554444";

#[test]
fn whoever_gives_more_with_a_card_that_is_known_is_told() {
    let vault = Vault::start();
    vault.ctl("tokenize --holder Ada", PAN).out();
    vault.ctl("tokenize --template default", PAN).out();
    for more in ["--holder Bob", "--expiry 12/30", "--expires-in 1d", "--metadata order=A-1"] {
        let again = vault.ctl(&format!("tokenize --json {more}"), PAN);
        assert!(again.complaint(0).contains("seen before, and its record was not changed"), "{again:?}");
        assert!(!again.stderr.contains("Bob") && again.stdout.contains("\"created\":false"), "{again:?}");
    }
    let cards = format!("pan,holder\n{PAN},Bob\n{OTHER_PAN},Bob\n{PAN},\n");
    let told = "vaultctl: note: cards that were seen before, and whose records were not changed: 1; ";
    assert!(vault.ctl("tokenize --file -", &cards).complaint(0).starts_with(told));
    let cards = format!("pan\n{PAN}\n{OTHER_PAN}\n");
    assert_eq!(vault.ctl("tokenize --file -", &cards).out().lines().count(), 3);
}

#[test]
fn a_token_that_cannot_be_deleted_is_named_and_keeps_no_other() {
    let mut vault = Vault::start();
    let tokens: Vec<_> = (Pans::new().take(3).iter())
        .map(|pan| vault.ctl("tokenize --json", pan).json()["token"].as_str().unwrap().to_owned())
        .collect();
    let unknown = "00000000-0000-7000-8000-000000000000";
    let deleted = vault.ctl(&format!("delete {} {unknown} nonsense {}", tokens[0], tokens[1]), "");
    assert_eq!(deleted.stdout, format!("deleted {}\ndeleted {}\n", tokens[0], tokens[1]));
    let said: Vec<_> = deleted.stderr.lines().collect();
    assert!(
        said[0].starts_with("vaultctl: token 2 of 4: ") && said[0].contains("(unknown_token, "),
        "{said:?}"
    );
    assert!(said[1].starts_with("vaultctl: token 3 of 4: "), "{said:?}");
    assert_eq!(said[2..], ["vaultctl: 2 of 4 tokens were not deleted; they are named above"]);
    assert_eq!(deleted.status, Some(1));
    assert_eq!(vault.ctl("status --json", "").json()["records"], 1);

    // What would befall the others, too, ends it.
    assert!(vault.stop().success());
    let away = vault.ctl(&format!("delete {} {unknown}", tokens[2]), "");
    assert!(away.complaint(1).starts_with("vaultctl: stopped at token 1 of 2: cannot connect"), "{away:?}");
}

#[test]
fn whoever_reads_no_more_keeps_no_token() {
    let vault = Vault::start();
    let tokens: Vec<_> = (Pans::new().take(3).iter())
        .map(|pan| vault.ctl("tokenize --json", pan).json()["token"].as_str().unwrap().to_owned())
        .collect();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = vault.ctl_command();
    command.arg("delete").args(&tokens[..2]).arg("nonsense").arg(&tokens[2]);
    let status = command.stdout(writer).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1), "one was not deleted");
    assert_eq!(vault.ctl("status --json", "").json()["records"], 0);
}

#[test]
fn a_command_line_that_is_wrong_is_told_from_a_failure() {
    let vault = Vault::start();
    let long = format!("status --admin-socket /{}", "x".repeat(108));
    for line in ["audit search --limit 0", long.as_str()] {
        assert_eq!(vault.ctl(line, "").status, Some(2), "{line}");
    }
    for line in [
        "tokenize 4111111111111111,12/30",
        "tokenize 4111111111111112x,41111111111111124111",
        "seal --cvv 123",
    ] {
        let refused = vault.ctl(line, "");
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(!refused.stderr.contains("111") && !refused.stderr.contains("123"), "{refused:?}");
    }
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let vault = Vault::start();
    let dir = vault.path("a-directory");
    std::fs::create_dir(&dir).unwrap();
    let mine = vault.path("jwt.new");
    std::fs::write(&mine, "mine").unwrap();
    assert_eq!(vault.ctl(&format!("login --save {}", dir.display()), "").status, Some(1));
    vault.ctl(&format!("login --save {}", vault.path("jwt").display()), "").out();
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
    let names = std::fs::read_dir(vault.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.filter_map(|name| name.into_string().ok()).all(|name| !name.contains(".part")));

    let narrow = vault.minter().with_scope("tokenize");
    let mut command = vault.ctl_command();
    let refused = finish(command.env("VAULT_TOKEN", narrow).args(["audit", "search", "--json"]), "");
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""), "no half of a document");
}

#[test]
fn a_login_says_whom_the_vault_takes_one_for() {
    let vault = Vault::start();
    let login = vault.ctl("login --json", "").json();
    assert_eq!((&login["subject"], &login["tenant"]), (&"developer".into(), &"dev".into()));
    let shown = vault.ctl(&format!("login --save {}", vault.path("saved.jwt").display()), "");
    assert!(shown.out().starts_with("subject     developer\ntenant      dev\n"), "{shown:?}");
}

#[test]
fn a_path_that_is_not_the_right_socket_is_told_from_a_vault_that_is_away() {
    let mut vault = Vault::start();
    let (api, admin) = (vault.socket(), vault.path("admin.sock"));
    for (line, socket) in [("status --admin-socket", &api), ("tokenize --socket", &admin)] {
        let swapped = vault.ctl(&format!("{line} {}", socket.display()), PAN);
        assert!(swapped.complaint(1).contains("is it the right socket? --admin-socket"), "{swapped:?}");
    }
    assert!(!vault.ctl("rotate nonsense", "").complaint(1).contains("right socket"));

    for path in [vault.path("vaultd.toml"), vault.path("store")] {
        for option in ["socket", "admin-socket"] {
            let file = vault.ctl(&format!("status --{option} {}", path.display()), "");
            assert!(file.complaint(1).contains(": it is no socket; point VAULT_SOCKET"), "{file:?}");
        }
    }
    vault.kill();
    assert!(vault.ctl("status", "").complaint(1).contains("nobody listens there: start vaultd"));
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_can() {
    let vault = Vault::start();
    for op in ["tokens.del", "detokenise"] {
        let wrong = vault.ctl(&format!("audit search --op {op}"), "");
        let near = if op == "detokenise" { "'detokenize'" } else { "'tokens.delete'" };
        assert!(wrong.status == Some(2) && wrong.stderr.contains(near), "{wrong:?}");
    }
    assert!(vault.ctl("status --timeout 1m", "").out().contains("ready "));
    for timeout in ["0", "soon"] {
        let wrong = vault.ctl(&format!("status --timeout {timeout}"), "");
        assert!(wrong.status == Some(2) && !wrong.stderr.contains("invalid digit"), "{wrong:?}");
    }
    let dir = vault.ctl(&format!("tokenize --file {}", vault.path("store").display()), "");
    assert!(dir.complaint(1).contains("is a directory: name one file"), "{dir:?}");
}
