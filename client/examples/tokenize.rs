//! The first token: swaps a card number for a token and back.
//!
//! ```text
//! VAULT_SOCKET=run/dev/vaultd.sock VAULT_TOKEN_FILE=run/dev/token.jwt cargo run --example tokenize
//! ```
//!
//! Reads the card number from standard input; takes a test card if that is a terminal or empty.
// A program for people: what it has to say goes to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    error::Error,
    io::{self, IsTerminal, Read},
    process::ExitCode,
};

use vault_client::{Sensitive, TokenizeAnswer, TokenizeRequest, VaultClient};
use zeroize::Zeroizing;

/// A test card of Visa; belongs to nobody.
const TEST_CARD: &str = "4111 1111 1111 1111";
/// 19 digits with a separator after each, and a line break.
const MAX_INPUT_BYTES: usize = 40;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match first_token().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokenize: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn first_token() -> Result<(), Box<dyn Error>> {
    let vault = VaultClient::from_env()?;
    let request = TokenizeRequest::new(card_number()?);

    let record = vault.tokenize(&request).await?;
    print(&record);

    let card = vault.detokenize(&record.token).await?;
    if !same_digits(card.pan.expose(), request.pan.expose()) {
        return Err("the vault gave back another card number; tell its operator".into());
    }
    println!("  detokenized  {}  the card number came back equal", record.masked_pan);
    Ok(())
}

fn print(record: &TokenizeAnswer) {
    let brand = format!("{:?}", record.brand).to_lowercase();
    let made = if record.created { "new" } else { "known since" };
    let ends = record.expires_at.map_or_else(|| "never expires".to_owned(), |end| format!("expires {end}"));
    println!("  card         {}  {brand}", record.masked_pan);
    println!("  token        {}", record.token);
    println!("               {made} {:.0}, {ends}, template {}", record.created_at, record.template);
}

fn card_number() -> Result<Sensitive, Box<dyn Error>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(TEST_CARD.into());
    }
    // Never grows, so no copy is left behind.
    let mut bytes = Zeroizing::new([0; MAX_INPUT_BYTES + 1]);
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match stdin.lock().read(free)? {
            0 => break,
            count => filled += count,
        }
    }
    let text = bytes.get(..filled).filter(|_| filled <= MAX_INPUT_BYTES);
    match text.and_then(|text| std::str::from_utf8(text).ok()).map(str::trim) {
        Some("") => Ok(TEST_CARD.into()),
        Some(text) => Ok(text.into()),
        None => Err("standard input holds more than one card number; give it one".into()),
    }
}

/// Whether both have the same digits; the vault gives them back without the separators they came with.
fn same_digits(one: &str, other: &str) -> bool {
    let digits = |byte: &u8| byte.is_ascii_digit();
    one.as_bytes().iter().filter(|byte| digits(byte)).eq(other.as_bytes().iter().filter(|byte| digits(byte)))
}
