//! `vaultctl login`.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use serde::{Deserialize, Serialize};
use vault_client::{LoginAnswer, LoginRequest, Scope, Sensitive};
use zeroize::Zeroizing;

use crate::{complaint::Complaint, session::Session, table::details, time};

const EXAMPLES: &str = "\
Examples:
  vaultctl login                                    who am I to the vault?
  vaultctl login --save ~/vault.jwt --expires-in 10m
  vaultctl login --approves zHSSCUlu4YVCVVbKqFM_r-8Qy2d56S6URvozBiD6cJ0 --save approval.jwt
  export VAULT_TOKEN=$(vaultctl login --json | jq -r .access_token)";

/// Options of `login`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Login {
    /// The bank or merchant to act for, where you act for several
    #[arg(long)]
    client: Option<String>,
    /// Only these scopes, separated by commas; all that you may have if left out
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', value_parser = scope)]
    scopes: Option<Vec<Scope>>,
    /// Lifetime, such as 10m; the longest allowed if left out
    #[arg(long, value_name = "DURATION", value_parser = time::seconds)]
    expires_in: Option<u64>,
    /// Get a JWT that approves one request of somebody else and does nothing else: its digest, as `approval_required` says
    #[arg(long, value_name = "DIGEST", allow_hyphen_values = true, conflicts_with = "scopes")]
    approves: Option<String>,
    /// Write the JWT into this file (mode 0600), for --token-file or --approval-file
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    save: Option<PathBuf>,
}

/// The vault's answer, and whom it takes the caller for.
#[derive(Serialize)]
struct Known {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(flatten)]
    answer: LoginAnswer,
}

impl Login {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let Self { client, scopes, expires_in, approves, save } = self;
        let answer = session.vault()?.login(&LoginRequest { client, scopes, expires_in, approves }).await?;
        if let Some(path) = &save {
            write(path, &answer.access_token)?;
        }
        let known = Known { subject: subject(&answer.access_token), answer };
        session.output.answer(&known, |Known { subject, answer }| {
            details([
                ("subject", subject.clone()),
                ("tenant", Some(answer.tenant.clone())),
                ("scope", Some(answer.scope.clone())),
                ("expires_in", Some(time::short(answer.expires_in))),
                ("access_token", save.is_none().then(|| answer.access_token.expose().to_owned())),
            ])
        })
    }
}

/// Whom `jwt` names (RFC 7519), to be shown: the vault has just signed it, and verifies it when it is used.
fn subject(jwt: &Sensitive) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let claims = BASE64_URL_SAFE_NO_PAD.decode(jwt.expose().split('.').nth(1)?).ok().map(Zeroizing::new)?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.sub)
}

/// Whole, or not at all.
fn write(path: &Path, jwt: &Sensitive) -> Result<(), Complaint> {
    let failed = |error| Complaint::file("write", path, &error);
    if path.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    // A name that nobody else has given a file.
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", process::id()));
    let draft = path.with_file_name(name);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
    let written = file.write_all(jwt.expose().as_bytes()).and_then(|()| std::fs::rename(&draft, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&draft);
        failed(error)
    })
}

fn scope(name: &str) -> Result<Scope, String> {
    name.parse().map_err(|()| {
        let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        format!("there is no such scope; these exist: {}", known.join(", "))
    })
}
