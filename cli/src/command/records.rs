//! `vaultctl show`, `search` and `delete`.

use std::io::{self, Write};

use clap::Args;
use vault_client::{Code, MAX_SEARCH_LIMIT, MetadataValue, SearchAnswer, SearchRequest, Sensitive};
use zeroize::Zeroizing;

use super::cards::token_or_ask;
use crate::{
    complaint::Complaint,
    input,
    session::Session,
    table::{Table, details, or_dash, or_never},
};

const SEARCH_EXAMPLES: &str = "\
Examples:
  vaultctl search --holder 'Ada Lovelace'
  vaultctl search --pan                      ask for the card number
  vaultctl search --pan --all --json < card.txt";

/// Options of `show`.
#[derive(Args)]
pub(crate) struct Show {
    /// The token; read from standard input if left out
    token: Option<String>,
}

impl Show {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let token = token_or_ask(self.token)?;
        let record = session.vault()?.token(token.expose()).await?;
        session.output.answer(&record, |record| {
            let metadata = record.metadata.0.iter().map(|(name, value)| {
                let value = match value {
                    MetadataValue::Bool(value) => value.to_string(),
                    MetadataValue::Number(value) => value.to_string(),
                    MetadataValue::Text(value) => value.clone(),
                };
                format!("{name}={value}")
            });
            let metadata = metadata.collect::<Vec<_>>().join(", ");
            details([
                ("token", Some(record.token.clone())),
                ("masked_pan", Some(record.masked_pan.clone())),
                ("brand", Some(record.brand.to_string())),
                ("holder", record.holder.as_ref().map(|holder| holder.expose().to_owned())),
                ("template", Some(record.template.clone())),
                ("created_at", Some(record.created_at.to_string())),
                ("expires_at", Some(or_never(record.expires_at))),
                ("key_version", Some(record.key_version.to_string())),
                ("ciphertext_id", Some(record.ciphertext_id.clone())),
                ("fingerprint", Some(record.fingerprint.clone())),
                ("metadata", (!metadata.is_empty()).then_some(metadata)),
            ])
        })
    }
}

/// Options of `search`.
#[derive(Args)]
#[command(after_help = SEARCH_EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["holder", "pan"]))]
pub(crate) struct Search {
    /// The card holder's name
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    /// Search by a card number, which is asked for or read from standard input
    #[arg(long)]
    pan: bool,
    /// The most records of the answer, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = limit)]
    limit: usize,
    /// Where the last answer to the same search stopped
    #[arg(long)]
    cursor: Option<String>,
    /// All records, page after page
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    all: bool,
}

impl Search {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let vault = session.vault()?;
        let mut request = SearchRequest {
            holder: self.holder.map(Sensitive::from),
            pan: if self.pan { Some(input::ask("Card number")?) } else { None },
            limit: Some(if self.all { MAX_SEARCH_LIMIT } else { self.limit }),
            cursor: self.cursor,
        };
        let mut found = vault.search(&request).await?;
        while self.all && found.cursor.is_some() {
            request.cursor.clone_from(&found.cursor);
            match vault.search(&request).await {
                Ok(page) => {
                    found.tokens.extend(page.tokens);
                    found.cursor = page.cursor;
                }
                Err(error) => {
                    // With the cursor to go on from.
                    session.output.answer(&found, table)?;
                    let what = format!("stopped after {} records", found.tokens.len());
                    return Err(Complaint::failed(&what, Complaint::from(error)));
                }
            }
        }
        session.output.answer(&found, table)
    }
}

/// Options of `delete`.
#[derive(Args)]
pub(crate) struct Delete {
    /// The tokens; one is read from standard input if left out
    tokens: Vec<String>,
}

impl Delete {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let vault = session.vault()?;
        let tokens = if self.tokens.is_empty() {
            vec![token_or_ask(None)?]
        } else {
            self.tokens.into_iter().map(Sensitive::from).collect()
        };
        let (mut failed, mut told) = (0, Ok(()));
        for (token, place) in tokens.iter().zip(1..) {
            match vault.delete(token.expose()).await {
                Ok(()) if session.output.is_json() => {}
                // Whoever has read enough of this wants the others deleted all the same.
                Ok(()) => told = told.and(session.output.text(&format!("deleted {}\n", token.expose()))),
                Err(error) if tokens.len() == 1 => return Err(error.into()),
                Err(error) => {
                    let (of, is_alone) = (tokens.len(), error.code().is_some_and(fails_alone));
                    let what = format!("token {place} of {of}");
                    if !is_alone {
                        return Err(Complaint::failed(&format!("stopped at {what}"), Complaint::from(error)));
                    }
                    failed += 1;
                    let _ = writeln!(io::stderr(), "vaultctl: {what}: {}", Complaint::from(error));
                }
            }
        }
        if failed > 0 {
            let of = tokens.len();
            return Err(Complaint::Failed(format!(
                "{failed} of {of} tokens were not deleted; they are named above"
            )));
        }
        if session.output.is_json() { session.output.text("{}\n") } else { told }
    }
}

/// Whether other tokens may have another answer.
fn fails_alone(code: Code) -> bool {
    matches!(code, Code::UnknownToken | Code::InvalidToken | Code::TokenExpired | Code::ApprovalRequired)
}

fn table(found: &SearchAnswer) -> Zeroizing<String> {
    let mut table = Table::new(["TOKEN", "MASKED_PAN", "BRAND", "HOLDER", "CREATED", "EXPIRES"]);
    for record in &found.tokens {
        table.row([
            record.token.clone(),
            record.masked_pan.clone(),
            record.brand.to_string(),
            or_dash(record.holder.as_ref().map(Sensitive::expose)),
            record.created_at.to_string(),
            or_never(record.expires_at),
        ]);
    }
    let mut text = table.text();
    if let Some(cursor) = &found.cursor {
        for part in ["there may be more: --cursor ", cursor, ", or --all\n"] {
            text.push_str(part);
        }
    }
    text
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_SEARCH_LIMIT).contains(number));
    number.ok_or_else(|| format!("it must be 1 to {MAX_SEARCH_LIMIT}"))
}
