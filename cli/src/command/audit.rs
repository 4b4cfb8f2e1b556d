//! `vaultctl audit`.

use std::io::{self, Write};

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use vault_client::{Admin, AuditQuery, MAX_AUDIT_LIMIT, MAX_AUDIT_WAIT_S, api::AUDIT_OPERATIONS};
use zeroize::Zeroizing;

use super::away::Away;
use crate::{
    complaint::Complaint,
    input,
    output::Output,
    session::Session,
    table::{blanks, printable},
    time,
};

/// How many tokens of an entry are shown to people.
const SHOWN_TOKENS: usize = 2;
/// As wide as the longest code.
const CODE_WIDTH: usize = 22;
/// As wide as the longest operation.
const OP_WIDTH: usize = 17;
const WHO_WIDTH: usize = 20;

const EXAMPLES: &str = "\
For people, the most important fields of each entry. With --json, the entries as they stand in the log
(docs/audit-log.md): {\"entries\": [...], \"next\", \"more\"}, and with -f one entry a line.

Examples:
  vaultctl audit tail -n 50 -f
  vaultctl audit search --op detokenize --outcome refused --since 24h
  vaultctl audit search --subject till-7 --since 2026-01-31 --json | jq '.entries[].tokens'";

/// Options of `audit`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Audit {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the last entries
    Tail {
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = last)]
        lines: usize,
        /// Stay, and show new entries as they come, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        filter: Filter,
    },
    /// Show every entry that matches
    Search {
        /// The most entries
        #[arg(long, value_name = "N", value_parser = some)]
        limit: Option<usize>,
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(Args)]
struct Filter {
    /// Only entries about this token; `-` reads it from standard input
    #[arg(long)]
    token: Option<String>,
    /// Only entries of this subject
    #[arg(long)]
    subject: Option<String>,
    /// Only entries of this issuer
    #[arg(long)]
    issuer: Option<String>,
    /// Only entries of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only entries of this operation, such as detokenize
    #[arg(long, value_parser = PossibleValuesParser::new(AUDIT_OPERATIONS), hide_possible_values = true)]
    op: Option<String>,
    /// Only entries with this outcome
    #[arg(long, value_parser = ["granted", "refused", "failed"])]
    outcome: Option<String>,
    /// Only entries of this type
    #[arg(long = "type", value_parser = ["begin", "access", "event", "checkpoint"])]
    kind: Option<String>,
    /// Only entries of this time or later: 2026-01-31, 2026-01-31T12:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Timestamp>,
    /// Only entries before this time
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<Timestamp>,
}

impl Audit {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let (admin, output) = (session.admin()?, &session.output);
        match self.action {
            Action::Tail { lines, follow: false, filter } => {
                tail(&admin, output, lines, &filter.query()?).await
            }
            Action::Tail { lines, follow: true, filter } => {
                let query = filter.query()?;
                tokio::select! {
                    outcome = follow(&admin, output, lines, query) => outcome,
                    interrupted = tokio::signal::ctrl_c() => {
                        interrupted.map_err(|error| Complaint::failed("cannot wait for Ctrl-C", error))
                    }
                }
            }
            Action::Search { limit, filter } => search(&admin, output, limit, filter.query()?).await,
        }
    }
}

impl Filter {
    fn query(self) -> Result<AuditQuery, Complaint> {
        let Self { token, subject, issuer, tenant, op, outcome, kind, since, until } = self;
        let token = token.map(|token| input::dash(token, "Token")).transpose()?;
        let token = token.map(|token| token.expose().to_owned());
        let all = AuditQuery::default();
        Ok(AuditQuery { token, subject, issuer, tenant, op, outcome, kind, since, until, ..all })
    }
}

async fn tail(admin: &Admin, output: &Output, lines: usize, query: &AuditQuery) -> Result<(), Complaint> {
    let answer = admin.audit(&AuditQuery { last: Some(lines), ..query.clone() }).await?;
    output.answer(&answer, |answer| text(&answer.entries))
}

/// The last entries, and then every new one. Never ends well by itself.
async fn follow(admin: &Admin, output: &Output, lines: usize, query: AuditQuery) -> Result<(), Complaint> {
    let write = |entries: &[Box<RawValue>]| {
        let as_json = || entries.iter().flat_map(|entry| [entry.get(), "\n"]).collect::<String>();
        if output.is_json() { output.text(&as_json()) } else { output.text(&text(entries)) }
    };
    let answer = admin.audit(&AuditQuery { last: Some(lines), ..query.clone() }).await?;
    write(&answer.entries)?;
    let (mut next, mut away) = (answer.next, Away::default());
    let say = |what: &str| {
        let _ = writeln!(io::stderr(), "{what}");
    };
    loop {
        let query = AuditQuery { after: Some(next), wait: Some(MAX_AUDIT_WAIT_S), ..query.clone() };
        // A restart is no reason to miss what comes after it.
        if let Some(answer) = away.sit_out(admin.audit(&query).await, say).await? {
            write(&answer.entries)?;
            next = answer.next;
        }
    }
}

/// Every entry that matches, from the first, page by page.
async fn search(
    admin: &Admin,
    output: &Output,
    limit: Option<usize>,
    mut query: AuditQuery,
) -> Result<(), Complaint> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut separator = "";
    loop {
        query.limit = Some(left.min(MAX_AUDIT_LIMIT));
        let answer = match admin.audit(&query).await {
            Ok(answer) => answer,
            Err(error) => {
                // What was written is to be JSON all the same, and to say where it goes on.
                if let Some(next) = query.after.filter(|_| output.is_json()) {
                    output.text(&format!("],\"next\":{next},\"more\":true}}\n"))?;
                }
                return Err(error.into());
            }
        };
        left = left.saturating_sub(answer.entries.len());
        if output.is_json() {
            // Not before there is an answer.
            let mut lines = if query.after.is_none() { "{\"entries\":[\n".to_owned() } else { String::new() };
            for entry in &answer.entries {
                lines.push_str(separator);
                lines.push_str(entry.get());
                lines.push('\n');
                separator = ",";
            }
            output.text(&lines)?;
        } else {
            output.text(&text(&answer.entries))?;
        }
        if !answer.more || left == 0 {
            let (next, more) = (answer.next, answer.more);
            return if output.is_json() {
                output.text(&format!("],\"next\":{next},\"more\":{more}}}\n"))
            } else {
                Ok(())
            };
        }
        query.after = Some(answer.next);
    }
}

/// What people see of an entry; other fields come with `--json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    time: String,
    seq: u64,
    #[serde(rename = "type")]
    kind: String,
    op: Option<String>,
    event: Option<String>,
    outcome: Option<String>,
    code: Option<String>,
    tenant: Option<String>,
    subject: Option<String>,
    uid: Option<u64>,
    unit: Option<String>,
    tokens: Vec<String>,
    key: Option<String>,
    jti: Option<String>,
    approved_by: Option<String>,
    approved_by_issuer: Option<String>,
    detail: Option<String>,
    alarm: bool,
}

/// One line an entry. The columns have fixed widths, as there is no end to wait for.
fn text(entries: &[Box<RawValue>]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for entry in entries {
        let line = match serde_json::from_str::<Entry>(entry.get()) {
            Ok(entry) => line(&entry),
            // Of a format to come: better whole than not at all.
            Err(_) => entry.get().to_owned(),
        };
        text.push_str(printable(&line).trim_end());
        text.push('\n');
    }
    text
}

fn line(entry: &Entry) -> String {
    let what = entry.op.as_ref().or(entry.event.as_ref()).unwrap_or(&entry.kind);
    let how = entry.code.as_ref().or(entry.outcome.as_ref()).map_or("", String::as_str);
    let who = match (&entry.tenant, &entry.subject) {
        (Some(tenant), Some(subject)) => format!("{tenant}/{subject}"),
        (_, Some(subject)) => subject.clone(),
        _ => String::new(),
    };
    let mut about = Vec::new();
    if entry.alarm {
        about.push("ALARM".to_owned());
    }
    about.extend(entry.tokens.iter().take(SHOWN_TOKENS).cloned());
    if entry.tokens.len() > SHOWN_TOKENS {
        about.push(format!("and {} more", entry.tokens.len() - SHOWN_TOKENS));
    }
    let mut named =
        |name: &str, value: Option<String>| about.extend(value.map(|value| format!("{name}={value}")));
    named("key", entry.key.clone());
    named("jti", entry.jti.clone());
    named("approved_by", entry.approved_by.clone());
    named("approved_by_issuer", entry.approved_by_issuer.clone());
    named("unit", entry.unit.clone());
    named("uid", entry.uid.map(|uid| uid.to_string()));
    about.extend(entry.detail.clone());
    let about = about.join(" ");
    let mut who = printable(&who);
    who.push_str(&blanks(&who, WHO_WIDTH));
    format!("{:<27}  {:>7}  {what:<OP_WIDTH$}  {how:<CODE_WIDTH$}  {who}  {about}", entry.time, entry.seq)
}

fn some(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it must be 1 or more".to_owned())
}

fn last(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_AUDIT_LIMIT).contains(number));
    number.ok_or_else(|| format!("it must be 1 to {MAX_AUDIT_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use vault_client::Code;

    use super::*;

    #[test]
    fn the_columns_hold_every_operation_and_code() {
        let longest = Code::ALL.iter().map(|code| code.as_str().len()).max();
        assert_eq!(longest, Some(CODE_WIDTH));
        assert!(AUDIT_OPERATIONS.iter().all(|op| op.len() <= OP_WIDTH));
    }
}
