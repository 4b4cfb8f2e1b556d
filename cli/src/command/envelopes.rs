//! `vaultctl seal` and `open`.

use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use vault_client::{CardData, SealEnvelopeAnswer, SealEnvelopeRequest, Sensitive};

use crate::{
    complaint::Complaint,
    input::{self, Answers},
    session::Session,
    table::details,
    time,
};

const SEAL_EXAMPLES: &str = "\
The card number, the expiry date if --expiry is left out, and with --cvv the card verification value are asked for on a
terminal, and else read from standard input, one a line in this order.

Examples:
  vaultctl seal --cvv --expiry 12/30
  vaultctl seal --expiry 12/30 --audience payment-gateway --single-use < card.txt
  vaultctl seal --expiry 12/30 --json < card.txt | vaultctl open";

const OPEN_EXAMPLES: &str = "\
The envelope is read from standard input or a file: the JWT alone, or the JSON that `seal --json` wrote.

Examples:
  vaultctl open < envelope.jwt
  vaultctl open --file envelope.jwt --json | jq .meta_data";

/// Options of `seal`.
#[derive(Args)]
#[command(after_help = SEAL_EXAMPLES)]
pub(crate) struct Seal {
    /// The card's expiry date
    #[arg(long, value_name = "MM/YY")]
    expiry: Option<String>,
    /// Seal a card verification value too
    #[arg(long)]
    cvv: bool,
    /// Whom it is for: who takes it compares that, the vault the tenant alone
    #[arg(long)]
    audience: Option<String>,
    /// Lifetime, such as 30m
    #[arg(long, value_name = "DURATION", value_parser = time::seconds)]
    expires_in: Option<u64>,
    /// It may be opened only once
    #[arg(long)]
    single_use: bool,
}

impl Seal {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let mut answers = Answers::new()?;
        let card_number = answers.next("Card number")?;
        let expiry_date = match self.expiry {
            Some(date) => date.into(),
            None => answers.next("Expiry date")?,
        };
        let cvv = if self.cvv { Some(answers.next("Card verification value")?) } else { None };
        answers.finish()?;
        let request = SealEnvelopeRequest {
            meta_data: CardData { card_number, expiry_date, cvv },
            audience: self.audience,
            expires_in: self.expires_in,
            single_use: self.single_use.then_some(true),
        };
        let answer = session.vault()?.seal_envelope(&request).await?;
        session.output.answer(&answer, |answer: &SealEnvelopeAnswer| {
            details([
                ("jti", Some(answer.jti.clone())),
                ("expires_at", Some(answer.expires_at.to_string())),
                ("jwt", Some(answer.jwt.clone())),
            ])
        })
    }
}

/// Options of `open`.
#[derive(Args)]
#[command(after_help = OPEN_EXAMPLES)]
pub(crate) struct Open {
    /// A file that holds the envelope; standard input if left out
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Open {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let text = input::jwt_file(self.file.as_deref().unwrap_or(Path::new("-")))?;
        let opened = session.vault()?.open_envelope(jwt(&text)?.expose()).await?;
        session.output.answer(&opened, |opened| {
            let (card, claims) = (&opened.meta_data, &opened.claims);
            details([
                ("card_number", Some(card.card_number.expose().to_owned())),
                ("expiry_date", Some(card.expiry_date.expose().to_owned())),
                ("cvv", card.cvv.as_ref().map(|cvv| cvv.expose().to_owned())),
                ("iss", Some(claims.iss.clone())),
                ("aud", Some(claims.aud.clone())),
                ("iat", Some(claims.iat.to_string())),
                ("exp", Some(claims.exp.to_string())),
                ("jti", Some(claims.jti.clone())),
                ("tenant", Some(claims.tenant.clone())),
                ("single_use", Some(claims.single_use.to_string())),
            ])
        })
    }
}

/// The envelope in `text`, which is it or the JSON of `seal`.
fn jwt(text: &SecretString) -> Result<Sensitive, Complaint> {
    #[derive(Deserialize)]
    struct Sealed {
        jwt: Sensitive,
    }

    let text = text.expose_secret();
    if !text.starts_with('{') {
        return Ok(text.into());
    }
    let sealed: Result<Sealed, _> = serde_json::from_str(text);
    sealed.map(|sealed| sealed.jwt).map_err(|_| {
        Complaint::Failed("the envelope is neither a JWT nor what `seal --json` writes".to_owned())
    })
}
