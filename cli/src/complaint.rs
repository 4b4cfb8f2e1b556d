//! Why a command failed, as one line for a person.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use vault_client::{Code, Error, api::NO_ENDPOINT};

use crate::table::printable;

/// Why a command did not do all it was asked.
#[derive(Debug)]
pub(crate) enum Complaint {
    /// The command line asks for what cannot be.
    Usage(String),
    /// The vault refused, or could not be asked.
    Vault(Error),
    /// Something on this side.
    Failed(String),
    /// Nobody reads standard output any more: no failure.
    ReaderGone,
}

impl Complaint {
    /// `what` failed because of `why`.
    pub(crate) fn failed(what: &str, why: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// The file at `path` cannot be used.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::Failed(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// 2 if the command line is wrong, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let is_usage = matches!(self, Self::Usage(_) | Self::Vault(Error::Config(_)));
        ExitCode::from(if is_usage { 2 } else { 1 })
    }
}

impl From<Error> for Complaint {
    fn from(error: Error) -> Self {
        Self::Vault(error)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Failed(what) => f.write_str(&printable(what)),
            Self::Vault(error) => {
                f.write_str(&printable(&error.to_string()))?;
                match other_socket(error).or_else(|| error.code().and_then(advice)) {
                    Some(advice) => write!(f, "; {advice}"),
                    None => Ok(()),
                }
            }
            Self::ReaderGone => f.write_str("nobody reads the output"),
        }
    }
}

/// Says what went well and is yet to be known.
pub(crate) fn note(what: &str) {
    let _ = writeln!(io::stderr(), "vaultctl: note: {}", printable(what));
}

/// What helps if what was asked for is to be had on the other socket.
fn other_socket(error: &Error) -> Option<&'static str> {
    match error {
        Error::Login(error) => other_socket(error),
        Error::Api(problem) if problem.code == Code::NotFound && problem.detail == NO_ENDPOINT => Some(
            "is it the right socket? --admin-socket (VAULT_ADMIN_SOCKET) names the operators', admin.sock, and \
             --socket (VAULT_SOCKET) the other, vaultd.sock",
        ),
        _ => None,
    }
}

/// What usually helps, where the vault's own words do not say it.
fn advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::MissingToken | Code::InvalidJwt | Code::ExpiredJwt | Code::ReplayedJwt => {
            "give a fresh JWT in VAULT_TOKEN or by --token-file, or none to log in"
        }
        Code::SenderMismatch => {
            "run it as the user whom the JWT was made for, or whom [[auth.peers]] in vaultd's configuration names"
        }
        Code::WrongTenant => {
            "[[auth.peers]] and [[auth.issuers]] in vaultd's configuration say who may speak for which tenants"
        }
        Code::InsufficientScope => "`vaultctl login` shows the scopes that you may have",
        Code::ApprovalRequired => {
            "a colleague who wants it too runs `vaultctl login --approves DIGEST --save FILE`; then repeat it with \
             --approval-file FILE"
        }
        Code::CallerLocked => "an operator sees why with `vaultctl locks`, and can unlock",
        Code::UnknownToken | Code::TokenExpired => "check the token, and that the JWT speaks for its tenant",
        Code::KeyInUse => "`vaultctl keys` shows what depends on it, `vaultctl rewrap` moves records away",
        Code::BodyTooLarge => "with --file, --batch puts fewer lines into one request",
        Code::RateLimited | Code::Overloaded => "wait and try again",
        Code::HsmUnavailable | Code::StoreUnavailable | Code::AuditUnavailable => {
            "`vaultctl status` and vaultd's log say more"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use vault_client::Problem;

    use super::*;

    #[test]
    fn it_is_one_line_with_code_request_and_advice() {
        let problem = Problem::new(Code::CallerLocked, "locked\nby a \u{1b}[31mguard", "r-1");
        let line = Complaint::from(Error::Api(problem)).to_string();
        assert_eq!(
            line,
            "the vault refused: locked�by a �[31mguard (caller_locked, request r-1); an operator sees why with \
             `vaultctl locks`, and can unlock"
        );
    }
}
