//! `vaultctl tokenize` and `detokenize`.

use std::path::PathBuf;

use clap::Args;
use vault_client::{
    MAX_BATCH_ITEMS, Metadata, MetadataValue, Sensitive, TokenizeRequest,
    api::{DetokenizeAnswer, TokenizeAnswer},
};

use super::bulk;
use crate::{
    complaint::{Complaint, note},
    input,
    output::json,
    session::Session,
    table::{details, or_never},
    time,
};

const TOKENIZE_EXAMPLES: &str = "\
The card number is asked for on a terminal, and else read from standard input.

A card that was seen before keeps its record: holder, expiry date, lifetime and metadata are for new ones, and a note says
where they were not applied. Delete the token first to have them changed.

--file takes one card number a line, or CSV whose first line names the column `pan` and, if there are any, `holder` and
`expiry_date`. Other columns are refused, but for `line` and `token`, as detokenize writes them. It writes CSV: line,
token, masked_pan, created. A bad line fails alone and is named by its number. With --json: {\"results\": [...]}, as from
the API's batches.

Examples:
  vaultctl tokenize
  vaultctl tokenize --holder 'Ada Lovelace' --expiry 12/30 --metadata order=A-1 < card.txt
  vaultctl tokenize --file cards.csv > tokens.csv";

const DETOKENIZE_EXAMPLES: &str = "\
A token that looks like a card number is given on standard input, without TOKEN.

--file takes one token a line, or CSV whose first line names the column `token`. It writes CSV: line, token, pan,
expiry_date. A bad line fails alone and is named by its number. With --json: {\"results\": [...]}.

Examples:
  vaultctl detokenize 0198c0de-7a31-7c55-9d5e-0a1b2c3d4e5f
  vaultctl detokenize --masked 0198c0de-7a31-7c55-9d5e-0a1b2c3d4e5f
  vaultctl detokenize --file tokens.csv > cards.csv";

/// A file of many.
#[derive(Args)]
pub(crate) struct Many {
    /// Swap every line of a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// How many lines go into one request, 1 to 1000
    #[arg(long, value_name = "N", requires = "file", default_value_t = MAX_BATCH_ITEMS, value_parser = batch)]
    pub(super) batch: usize,
}

/// What may go with a card number, or with each of a file.
#[derive(Args)]
pub(crate) struct Wishes {
    /// The template that says how the token looks
    #[arg(long)]
    template: Option<String>,
    /// The card holder's name
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    /// The card's expiry date, such as 12/30
    #[arg(long, value_name = "MM/YY")]
    expiry: Option<String>,
    /// How long the token lives, such as 90d
    #[arg(long, value_name = "DURATION", value_parser = time::seconds)]
    expires_in: Option<u64>,
    /// Something to remember with the token; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

impl Wishes {
    /// The request for `pan`. What a file says of its card comes before the options.
    pub(super) fn request(
        &self,
        pan: Sensitive,
        holder: Option<Sensitive>,
        expiry: Option<Sensitive>,
    ) -> TokenizeRequest {
        let metadata =
            self.metadata.iter().map(|(name, value)| (name.clone(), MetadataValue::Text(value.clone())));
        TokenizeRequest {
            template: self.template.clone(),
            holder: holder.or_else(|| self.holder.as_deref().map(Sensitive::from)),
            expiry_date: expiry.or_else(|| self.expiry.as_deref().map(Sensitive::from)),
            expires_in: self.expires_in,
            metadata: (!self.metadata.is_empty()).then(|| Metadata(metadata.collect())),
            ..TokenizeRequest::new(pan)
        }
    }

    /// How many bytes these take in a request, for each card.
    pub(super) fn bytes(&self) -> Result<u64, Complaint> {
        let text = json(&self.request(String::new().into(), None, None))?;
        Ok(u64::try_from(text.len()).unwrap_or(u64::MAX))
    }
}

/// Whether `request` asks for what a card that was seen before does not get.
pub(super) fn wants_more(request: &TokenizeRequest) -> bool {
    let TokenizeRequest { holder, expiry_date, expires_in, metadata, .. } = request;
    holder.is_some() || expiry_date.is_some() || expires_in.is_some() || metadata.is_some()
}

/// What to do about it.
pub(super) const CHANGE: &str = "`PATCH /v1/tokens/TOKEN` changes metadata and lifetime; for another holder or expiry date \
                                 delete the token first";

/// Options of `tokenize`.
#[derive(Args)]
#[command(after_help = TOKENIZE_EXAMPLES)]
pub(crate) struct Tokenize {
    #[command(flatten)]
    many: Many,
    #[command(flatten)]
    wishes: Wishes,
}

impl Tokenize {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let vault = session.vault()?;
        if let Some(file) = &self.many.file {
            return bulk::tokenize(&vault, &session.output, file, self.many.batch, &self.wishes).await;
        }
        let request = self.wishes.request(input::ask("Card number")?, None, None);
        let answer = vault.tokenize(&request).await?;
        if !answer.created && wants_more(&request) {
            note(&format!("the card was seen before, and its record was not changed: {CHANGE}"));
        }
        session.output.answer(&answer, |answer: &TokenizeAnswer| {
            details([
                ("token", Some(answer.token.clone())),
                ("created", Some(answer.created.to_string())),
                ("masked_pan", Some(answer.masked_pan.clone())),
                ("brand", Some(answer.brand.to_string())),
                ("template", Some(answer.template.clone())),
                ("created_at", Some(answer.created_at.to_string())),
                ("expires_at", Some(or_never(answer.expires_at))),
            ])
        })
    }
}

/// Options of `detokenize`.
#[derive(Args)]
#[command(after_help = DETOKENIZE_EXAMPLES)]
pub(crate) struct Detokenize {
    /// The token; read from standard input if left out
    #[arg(conflicts_with = "file")]
    token: Option<String>,
    /// Show the first six and the last four digits only
    #[arg(long, conflicts_with = "file")]
    masked: bool,
    #[command(flatten)]
    many: Many,
}

impl Detokenize {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let vault = session.vault()?;
        if let Some(file) = &self.many.file {
            return bulk::detokenize(&vault, &session.output, file, self.many.batch).await;
        }
        let token = token_or_ask(self.token)?;
        let answer = if self.masked {
            DetokenizeAnswer::Masked { masked_pan: vault.detokenize_masked(token.expose()).await? }
        } else {
            let card = vault.detokenize(token.expose()).await?;
            DetokenizeAnswer::Full { pan: card.pan, expiry_date: card.expiry_date }
        };
        session.output.answer(&answer, |answer| match answer {
            DetokenizeAnswer::Full { pan, expiry_date } => details([
                ("pan", Some(pan.expose().to_owned())),
                ("expiry_date", expiry_date.as_ref().map(|date| date.expose().to_owned())),
            ]),
            DetokenizeAnswer::Masked { masked_pan } => details([("masked_pan", Some(masked_pan.clone()))]),
        })
    }
}

/// The token of the command line, or the one on standard input: it may look like a card number.
pub(super) fn token_or_ask(token: Option<String>) -> Result<Sensitive, Complaint> {
    token.map_or_else(|| input::ask("Token"), |token| Ok(token.into()))
}

fn batch(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_BATCH_ITEMS).contains(number));
    number.ok_or_else(|| format!("it must be 1 to {MAX_BATCH_ITEMS}"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("use NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
