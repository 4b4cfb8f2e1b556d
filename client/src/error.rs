//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

use vault_api::{Code, Problem};

/// Why a call failed. No message contains card data, a JWT or a vault token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The vault answered with an error; match on [`Error::code`].
    #[error("the vault refused: {} ({}, request {})", .0.detail, .0.code, .0.request_id)]
    Api(Problem),

    /// No connection could be made, or the vault closed it before the request was through: it has done nothing.
    #[error("cannot connect to the vault at {}: {source}; {}", .socket.display(), connect_advice(.source))]
    Connect {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The connection ended before the answer was complete.
    #[error(
        "the connection broke before the vault had answered; it may have done the work: \
         check that vaultd is up, and look before you send the request again"
    )]
    Broken,

    /// No complete answer within the client's timeout, retries included.
    #[error(
        "no answer from the vault within {} s; it may have done the work: look before you send the request \
         again, and ask {} /readyz what is slow", .after.as_secs_f64(), .socket.display()
    )]
    Timeout {
        /// The timeout of the client.
        after: Duration,
        /// The socket the vault was asked on.
        socket: PathBuf,
    },

    /// The answer is not what this version of the client understands.
    #[error(
        "the answer was not understood: {0}; check that the socket is vaultd's, and that client and vault \
         have the same version"
    )]
    Protocol(String),

    /// The bearer token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),

    /// The login before the request failed, or the one after the vault had refused its JWT: it has done nothing. A missing
    /// connection is [`Error::Connect`].
    #[error("cannot log in: {}", login_advice(.0))]
    Login(Box<Error>),

    /// The client was given something it cannot work with.
    #[error("the client is not configured correctly: {0}")]
    Config(String),
}

impl Error {
    /// The vault's stable code, if the vault answered with an error, be it to the login.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Api(problem) => Some(problem.code),
            Self::Login(error) => error.code(),
            _ => None,
        }
    }

    /// The error of a login that failed with this one.
    pub(crate) fn at_login(self) -> Self {
        match self {
            Self::Connect { .. } => self,
            error => Self::Login(Box::new(error)),
        }
    }
}

/// Why there is no bearer token to send. The vault has seen nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The client was built without a token, and the endpoint needs one.
    #[error("this call needs a bearer token: give the builder one, or have it log in")]
    Missing,

    /// What was given as the name of the token file is a JWT.
    #[error(
        "the name given for the token file is a JWT, not a file, and is not repeated here; \
         put it into VAULT_TOKEN, or into a file and give the file's name"
    )]
    NotAFile,

    /// The token file cannot be read.
    #[error("cannot read the token file {}: {source}; check VAULT_TOKEN_FILE and the file's permissions", .path.display())]
    Unreadable {
        /// The token file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The token file holds no token.
    #[error("the token file {} is empty; write one JWT into it", .path.display())]
    Empty {
        /// The token file.
        path: PathBuf,
    },

    /// The token is larger than [`MAX_TOKEN_BYTES`](crate::MAX_TOKEN_BYTES).
    #[error(
        "the bearer token is larger than {} bytes; give the client one JWT and nothing else",
        crate::MAX_TOKEN_BYTES
    )]
    TooLarge,

    /// The token has characters that no JWT has.
    #[error(
        "the bearer token has characters that do not belong in a JWT, such as spaces or line breaks; \
         give the client one JWT and nothing else"
    )]
    Malformed,
}

/// What kept the caller from logging in, and what usually helps.
fn login_advice(error: &Error) -> String {
    match error {
        Error::Timeout { after, socket } => format!(
            "no answer from the vault within {} s; the request itself was not sent: ask {} /readyz what is slow",
            after.as_secs_f64(),
            socket.display()
        ),
        error => format!("{error}; see [[auth.peers]] in the vault's configuration, or set VAULT_TOKEN_FILE"),
    }
}

/// What usually helps, by what the system said.
fn connect_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "start vaultd, or point VAULT_SOCKET (VAULT_ADMIN_SOCKET) at its socket",
        io::ErrorKind::ConnectionRefused => "nobody listens there: start vaultd",
        io::ErrorKind::InvalidInput => "point VAULT_SOCKET (VAULT_ADMIN_SOCKET) at vaultd's socket",
        io::ErrorKind::PermissionDenied => "run as a user that may open the socket (see its group)",
        io::ErrorKind::BrokenPipe => "it closed the connection: check that vaultd stays up",
        _ => "check that vaultd is up and VAULT_SOCKET (VAULT_ADMIN_SOCKET) is its socket",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_happened_and_what_to_do() {
        let connect = Error::Connect {
            socket: "/run/v.sock".into(),
            source: io::Error::from(io::ErrorKind::ConnectionRefused),
        };
        assert_eq!(
            connect.to_string(),
            "cannot connect to the vault at /run/v.sock: connection refused; nobody listens there: start vaultd"
        );
        let timeout = Error::Timeout { after: Duration::from_millis(1_500), socket: "/run/v.sock".into() };
        assert!(timeout.to_string().starts_with("no answer from the vault within 1.5 s; "), "{timeout}");
    }

    #[test]
    fn only_an_answer_of_the_vault_has_a_code() {
        let problem = Problem::new(Code::UnknownToken, "no such token", "r-1");
        let error = Error::Api(problem);
        assert_eq!(error.code(), Some(Code::UnknownToken));
        assert_eq!(error.to_string(), "the vault refused: no such token (unknown_token, request r-1)");
        assert_eq!(Error::Broken.code(), None);
    }
}
