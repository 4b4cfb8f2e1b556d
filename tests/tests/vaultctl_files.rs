//! `vaultctl --file`: what becomes of lines that cannot be read, of files that end in the middle, and of readers that go.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use vault_tests::{Limit, Pans, Ran, Vault};

/// Test cards of Visa and MasterCard; they belong to nobody.
const PAN: &str = "4111111111111111";
const OTHER_PAN: &str = "5555555555554444";

#[test]
fn an_honest_caller_is_not_driven_into_its_lock() {
    let guards = "[guards.subject]\npans_per_hour = 15\nlock_at_pans_per_hour = 30\n";
    let vault = Vault::start_with(|config| config + guards);
    let cards = Pans::new().take(60).join("\n");
    let tokens = results(&vault.ctl("tokenize --json --file -", &cards));
    let tokens: Vec<_> = tokens.iter().map(|made| made["token"].as_str().unwrap()).collect();
    let file = format!("token\n{}\n", tokens.join("\n"));
    let over = "the limit `subject-hour` on revealing cards is reached; ";
    // In the first batch, and after it: whatever the next one holds is not asked for.
    for (batch, lines, stopped) in [
        (
            20,
            20,
            format!("stopped at line 22, after 15 done: 5 of 20 lines failed; they are named above; {over}"),
        ),
        (10, 15, format!("stopped at line 17, after 15 done: the vault refused: {over}")),
        (1, 15, format!("stopped at line 17, after 15 done: the vault refused: {over}")),
    ] {
        let ran = vault.ctl(&format!("detokenize --json --batch {batch} --file -"), &file);
        let results = results(&ran);
        assert_eq!((ran.status, results.len()), (Some(1), lines), "{ran:?}");
        assert!(results[..15].iter().all(|result| result["pan"].is_string()), "{results:?}");
        let last = ran.stderr.lines().last().unwrap();
        assert!(last.starts_with(&format!("vaultctl: {stopped}")), "{last}");
        assert!(last.contains("rate_limited"), "{last}");
    }
    assert_eq!(vault.ctl("locks --json", "").out().trim(), r#"{"locks":[]}"#);
}

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
    fs::write(&file, [b"pan,line\n", PAN.as_bytes(), b",\xfc\n"].concat()).unwrap();
    let made = vault.ctl(&format!("tokenize --json --file {}", file.display()), "").json();
    let token = made["results"][0]["token"].as_str().unwrap();
    fs::write(&file, [b"token,note\n", token.as_bytes(), b",\xfc\n"].concat()).unwrap();
    assert_eq!(vault.ctl(&format!("detokenize --file {}", file.display()), "").out().lines().count(), 2);
}

#[test]
fn nothing_of_a_file_is_left_out_in_silence() {
    let vault = Vault::start();
    for (names, told) in [("pan,expiry", "number 2 (`expiry`)"), ("Name,PAN", "number 1 (`Name`)")] {
        let refused = vault.ctl("tokenize --file -", &format!("{names}\n{PAN},12/30\n"));
        let complaint = refused.complaint(2);
        assert!(complaint.contains(told) && complaint.contains("`holder`, `expiry_date`"), "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
    let card = vault.ctl("tokenize --json --file -", &format!("pan,{OTHER_PAN}\n{PAN},\n"));
    assert!(card.complaint(2).contains("number 2; ") && !card.stderr.contains(OTHER_PAN), "{card:?}");
    assert_eq!(vault.ctl("status --json", "").json()["records"], 0);

    let made =
        vault.ctl("tokenize --json --file -", &format!("pan,holder\n{PAN},Lovelace, Ada\n{OTHER_PAN}\n"));
    let made_of = results(&made);
    assert_eq!((made.status, &made_of[0]["error"]["code"]), (Some(1), &json!("invalid_request")), "{made:?}");
    assert!(made.stderr.starts_with("vaultctl: line 2: it has more fields than the first line"), "{made:?}");
    let token = made_of[1]["token"].as_str().unwrap();

    // What one command writes, the other takes.
    let back = vault.ctl("detokenize --file -", &format!("line,token,masked_pan\n3,{token},*\n"));
    assert!(vault.ctl("tokenize --file -", back.out()).out().contains(token));
    let back = vault.ctl("detokenize --file -", &format!("token\n{token},{token}\n"));
    assert!(back.stderr.starts_with("vaultctl: line 2: it has more fields than"), "{back:?}");

    for names in ["", "pan\n"] {
        let made = vault.ctl("tokenize --file -", &format!("\u{feff}{names}{PAN}\n"));
        assert_eq!(made.out().lines().count(), 2);
    }
}

#[test]
fn a_line_that_is_too_long_fails_alone() {
    let vault = Vault::start();
    // As long as can be, with the line feed and without it.
    let longest = |card: &str| format!("{card:4096}");
    for (head, lines) in [("", [2, 3, 4]), ("pan\n", [3, 4, 5])] {
        let blank = " ".repeat(9_000);
        let long = "9".repeat(10_000);
        let cards = format!(
            "{head}{PAN}\n{long}\n{long}{long}\n{OTHER_PAN},{long}\n{blank}\n{}\n{}",
            longest(PAN),
            longest(OTHER_PAN)
        );
        let made = vault.ctl("tokenize --json --file -", &cards);
        let bins: Vec<_> =
            results(&made).iter().map(|made| made["bin"].as_str().map(str::to_owned)).collect();
        let expected = [Some("411111"), None, None, None, Some("411111"), Some("555555")];
        assert_eq!(bins, expected.map(|bin| bin.map(str::to_owned)), "{made:?}");
        let complaints: Vec<_> = made.stderr.lines().collect();
        for (line, complaint) in lines.into_iter().zip(&complaints) {
            assert_eq!(
                *complaint,
                format!("vaultctl: line {line}: it has more than 4096 bytes: nothing was sent")
            );
        }
        assert_eq!(complaints[3..], ["vaultctl: 3 of 6 lines failed; they are named above"]);
        assert_eq!(made.status, Some(1));
    }

    // The names of the columns must be known.
    for names in [format!("pan,{}", "n".repeat(5_000)), format!("{:5000},holder", "pan")] {
        let nameless = vault.ctl("tokenize --json --file -", &format!("{names}\n{PAN}\n"));
        assert!(nameless.complaint(1).contains("line 1 is to name the columns"), "{nameless:?}");
        assert_eq!(nameless.stdout, "");
    }
}

#[test]
fn a_file_that_cannot_be_read_on_loses_nothing_before() {
    let vault = Vault::start();
    for (batch, more) in [(1, "\"\"\n"), (2, "\"\"\n"), (1_000, "\"\"\n41111")] {
        let (mut feed, stdin) = UnixStream::pair().unwrap();
        feed.write_all(format!("pan\n{PAN}\n{OTHER_PAN}\n{more}").as_bytes()).unwrap();
        // A socket that is closed with something unread resets its peer, which gets what was written before that.
        (&stdin).write_all(b"x").unwrap();
        drop(feed);
        let mut command = vault.ctl_command();
        command.args(["tokenize", "--json", "--file", "-", "--batch", &batch.to_string()]);
        let pipes = command.stdin(OwnedFd::from(stdin)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = pipes.spawn().unwrap();
        let _limit = Limit::on(&child);
        let output = child.wait_with_output().unwrap();

        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["results"].as_array().unwrap().len(), 3, "{answer}");
        assert_eq!(answer["results"][1]["bin"], "555555");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let complaint = stderr.lines().nth(1).unwrap();
        assert!(
            complaint.starts_with("vaultctl: stopped at line 5, after 2 done: cannot read the file: "),
            "{stderr}"
        );
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 2), "{stderr}");
    }
}

#[test]
fn a_signal_says_how_far_it_went_and_leaves_whole_json() {
    let vault = Vault::start();
    for (line, signal) in
        [("tokenize --json", "INT"), ("tokenize", "HUP"), ("detokenize --json", "INT"), ("tokenize", "TERM")]
    {
        let value = if line.starts_with("tok") { PAN } else { "nonsense" };
        let Piped { child, mut stdin, stdout, _limit } = Piped::start(&vault, line);
        let mut stdout = stdout.unwrap();
        writeln!(stdin, "{value}\n\n{value}").unwrap();
        let mut text = String::new();
        for _ in 0..3 {
            assert!(stdout.read_line(&mut text).unwrap() > 0, "{text}");
        }
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success()
        );
        stdout.read_to_string(&mut text).unwrap();
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        let done = if value == PAN { 2 } else { 0 };
        let last = format!("vaultctl: stopped at line 4, after {done} done: interrupted");
        assert_eq!((ended.status.code(), stderr.lines().last()), (Some(1), Some(last.as_str())), "{stderr}");
        assert!(!line.ends_with("json") || serde_json::from_str::<Value>(&text).is_ok(), "{line}: {text}");
        drop(stdin);
    }
}

#[test]
fn a_hang_up_that_is_ignored_stops_nothing() {
    let vault = Vault::start();
    let mut command = Command::new("nohup");
    command.arg(vault.ctl_command().get_program()).args(["tokenize", "--file", "-", "--batch", "1"]);
    command.env("VAULT_SOCKET", vault.socket());
    let mut ctl = Piped::spawn(command);
    ctl.first(PAN);
    assert!(
        Command::new("kill").args(["-s", "HUP", &ctl.child.id().to_string()]).status().unwrap().success()
    );
    let (status, stderr) = ctl.last("nonsense");
    assert!(status == Some(1) && stderr.contains("1 of 2 lines failed"), "{stderr}");
}

#[test]
fn lines_of_many_bytes_go_into_more_requests() {
    let vault = Vault::start();
    let holder = "ф".repeat(200);
    let cards = (0..1_000).map(|number| format!("{number},{holder}")).collect::<Vec<_>>().join("\n");
    let value = "x".repeat(250);
    let metadata: String = ["a", "b", "c"].map(|name| format!(" --metadata {name}={value}")).concat();
    let ran = vault.ctl(&format!("tokenize --json --file -{metadata}"), &format!("pan,holder\n{cards}"));
    assert_eq!(
        results(&ran).len(),
        1_000,
        "each of them no card's number, and none too much: {}",
        ran.stderr
    );
    assert!(!ran.stdout.contains("body_too_large"));
}

/// `vaultctl` with a test at both ends of it, one line a batch.
struct Piped {
    child: Child,
    stdin: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
    _limit: Limit,
}

impl Piped {
    fn start(vault: &Vault, line: &str) -> Self {
        // Whoever runs the tests may have them ignore signals, as nohup(1) does: that would be handed down.
        let (ctl, mut command) = (vault.ctl_command(), Command::new("env"));
        for (name, value) in ctl.get_envs() {
            let _ = match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.arg("--default-signal").arg(ctl.get_program());
        command.args(line.split_whitespace()).args(["--file", "-", "--batch", "1"]);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().map(BufReader::new));
        Self { _limit: Limit::on(&child), child, stdin, stdout }
    }

    /// Gives it `line`, and reads the head of the output and the result.
    fn first(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        let mut text = String::new();
        for _ in 0..2 {
            assert!(self.stdout.as_mut().unwrap().read_line(&mut text).unwrap() > 0, "{text}");
        }
        self.stdout = None;
    }

    /// Gives it `line` and no more, and says what it ends with.
    fn last(mut self, line: &str) -> (Option<i32>, String) {
        writeln!(self.stdin, "{line}").unwrap();
        drop(self.stdin);
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn cards_whose_tokens_nobody_reads_are_no_success() {
    let mut vault = Vault::start();
    let nobody = |line: &str, input: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let file = vault.path("lines");
        fs::write(&file, input).unwrap();
        let mut command = vault.ctl_command();
        command.args(line.split_whitespace()).arg(file).stdin(Stdio::null());
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let _limit = Limit::on(&child);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let unsent = (Some(1), "vaultctl: nobody reads the output: stopped at line 1, after 0 done\n".to_owned());
    assert_eq!(nobody("tokenize --file", &format!("{PAN}\n")), unsent);
    assert_eq!(nobody("tokenize --json --file", &format!("{PAN}\n")), unsent);
    assert_eq!(vault.ctl("status --json", "").json()["records"], 0, "no token is made for nobody");
    for line in ["tokenize --file", "tokenize --json --file", "detokenize --file"] {
        assert_eq!(nobody(line, "\n"), (Some(0), String::new()), "{line}");
    }

    for line in ["tokenize", "tokenize --json"] {
        let mut piped = Piped::start(&vault, line);
        piped.first(PAN);
        let left = "vaultctl: nobody reads the output: stopped at line 3, after 2 done\n";
        assert_eq!(piped.last(OTHER_PAN), (Some(1), left.to_owned()), "{line}");
    }
    let mut piped = Piped::start(&vault, "tokenize --json");
    piped.first(PAN);
    let (status, stderr) = piped.last("x");
    let last = stderr.lines().nth(1).unwrap();
    assert!(
        last.starts_with("vaultctl: 1 of 2 lines failed; they are named above; nobody reads"),
        "{stderr}"
    );
    assert_eq!(status, Some(1));

    // Cards that were given back are no loss.
    let token = vault.ctl("tokenize --json", PAN).json()["token"].as_str().unwrap().to_owned();
    let mut piped = Piped::start(&vault, "detokenize");
    piped.first(&token);
    assert_eq!(piped.last(&token), (Some(0), String::new()));

    for line in ["tokenize --json", "detokenize --json"] {
        let mut piped = Piped::start(&vault, line);
        piped.first(if line.starts_with("tok") { PAN } else { &token });
        assert!(vault.stop().success());
        let (status, stderr) = piped.last(&token);
        assert!(stderr.starts_with("vaultctl: stopped at line 2, after 1 done: "), "{stderr}");
        assert_eq!((status, stderr.lines().count()), (Some(1), 1), "{stderr}");
        vault.restart();
    }
}
