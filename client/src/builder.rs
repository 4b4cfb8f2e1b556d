//! How a client is set up.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use vault_api::LoginRequest;
use zeroize::Zeroizing;

use crate::{
    Error, RetryPolicy, TokenError, VaultClient, bearer::Bearer, call::Caller, client::Inner,
    transport::Transport,
};

/// The socket of an installed vault.
pub const DEFAULT_SOCKET: &str = "/run/vaultd/vaultd.sock";

/// How long a call may take if the builder is not told.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many idle connections are kept if the builder is not told.
const DEFAULT_MAX_IDLE: usize = 32;

/// Sets up a [`VaultClient`]; made by [`VaultClient::builder`].
#[derive(Debug)]
pub struct ClientBuilder {
    socket: PathBuf,
    token: TokenSource,
    timeout: Duration,
    max_idle: usize,
    retry: RetryPolicy,
    retry_tokenize: bool,
}

#[derive(Debug)]
enum TokenSource {
    None,
    Fixed(SecretString),
    File(PathBuf),
    /// A JWT in the place of a file's name, of which nothing is kept.
    NotAFile,
    Login(LoginRequest),
}

impl ClientBuilder {
    /// A client of the vault behind `socket`, with no token, a timeout of 10 s, 32 idle connections and the default
    /// [`RetryPolicy`].
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            token: TokenSource::None,
            timeout: DEFAULT_TIMEOUT,
            max_idle: DEFAULT_MAX_IDLE,
            retry: RetryPolicy::default(),
            retry_tokenize: false,
        }
    }

    /// A builder with the socket from `VAULT_SOCKET` (or [`DEFAULT_SOCKET`]) and the token from `VAULT_TOKEN`, or from
    /// the file named by `VAULT_TOKEN_FILE`; with neither, the client [logs in](Self::login) with all the scopes it may
    /// have. `VAULT_TOKEN` wins if both are set; an empty variable counts as none.
    ///
    /// # Errors
    /// [`Error::Token`] if `VAULT_TOKEN` is not UTF-8.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let builder = Self::new(variable("VAULT_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.into()));
        if let Some(token) = variable("VAULT_TOKEN") {
            let token = token.into_string().map(Zeroizing::new).map_err(|_| TokenError::Malformed)?;
            return Ok(builder.token(SecretString::from(token.as_str())));
        }
        Ok(match variable("VAULT_TOKEN_FILE") {
            Some(path) => builder.token_file(path),
            None => builder.login(LoginRequest::default()),
        })
    }

    /// Another socket than the one given first.
    #[must_use]
    pub fn socket(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = socket.into();
        self
    }

    /// The JWT to send with every call that needs one. Replaces a token file.
    #[must_use]
    pub fn token(mut self, token: SecretString) -> Self {
        self.token = TokenSource::Fixed(token);
        self
    }

    /// A file that holds the JWT, which may be renewed at any time: it is read again when it changes, and when the vault
    /// refuses the JWT that was read last. A regular file, for no call waits for whoever writes to a pipe. Replaces a token.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.token = if is_jwt(&path) { TokenSource::NotAFile } else { TokenSource::File(path) };
        self
    }

    /// Has the client log in by itself, with `request`: before the first call that needs a JWT, before the JWT ends (at 80 %
    /// of its lifetime), and once more for a call whose JWT was refused. Replaces a token and a token file.
    #[must_use]
    pub fn login(mut self, request: LoginRequest) -> Self {
        self.token = TokenSource::Login(request);
        self
    }

    /// How long a call may take, all its attempts and the waits between them included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many connections stay open while there is nothing to do. It does not bound how many are open at once:
    /// each call that is under way has one.
    #[must_use]
    pub fn max_idle_connections(mut self, count: usize) -> Self {
        self.max_idle = count;
        self
    }

    /// How often and how patiently requests are sent again.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Whether a tokenize is sent again after its connection broke. Off by default, because a template with
    /// `reuse = "never"` could make a second token of which nobody knows. Safe where PANs keep their token
    /// (`reuse = "tenant"`); the answer may then say `created: false` for a token that this very call made.
    #[must_use]
    pub fn retry_tokenize(mut self, again: bool) -> Self {
        self.retry_tokenize = again;
        self
    }

    /// The client. Neither connects nor logs in nor reads the token file yet.
    ///
    /// # Errors
    /// [`Error::Config`] if the socket's path cannot be one; [`Error::Token`] if the token cannot be one, or the token file
    /// that was named is a JWT.
    pub fn build(self) -> Result<VaultClient, Error> {
        let bearer = match self.token {
            TokenSource::None => Bearer::None,
            TokenSource::Fixed(token) => Bearer::fixed(&token)?,
            TokenSource::File(path) => Bearer::file(path),
            TokenSource::NotAFile => return Err(TokenError::NotAFile.into()),
            TokenSource::Login(request) => Bearer::login(&request, self.timeout)?,
        };
        let transport = Arc::new(Transport::new(self.socket, self.max_idle)?);
        let caller = Caller {
            login: Arc::clone(&transport),
            transport,
            bearer: Arc::new(bearer),
            approval: None,
            limit: Arc::default(),
            timeout: self.timeout,
            retry: self.retry,
        };
        Ok(VaultClient(Arc::new(Inner { caller, retry_tokenize: self.retry_tokenize })))
    }
}

/// Whether a path is no path but a JWT, which no message may repeat: three parts (RFC 7515), of which the first is JSON.
fn is_jwt(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes().trim_ascii();
    text.starts_with(b"eyJ") && !text.contains(&b'/') && text.split(|byte| *byte == b'.').count() >= 3
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn from_variables(variables: &[(&str, &str)]) -> ClientBuilder {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        ClientBuilder::from_variables(find).unwrap()
    }

    #[test]
    fn the_environment_names_the_socket_and_the_token_file() {
        let builder = from_variables(&[("VAULT_SOCKET", "/v.sock"), ("VAULT_TOKEN_FILE", "/t.jwt")]);
        assert_eq!(builder.socket.as_os_str(), "/v.sock");
        assert!(matches!(builder.token, TokenSource::File(path) if path.as_os_str() == "/t.jwt"));
    }

    #[test]
    fn a_token_wins_over_a_token_file_and_is_not_printed() {
        let builder = from_variables(&[("VAULT_TOKEN", "aaa.bbb.ccc"), ("VAULT_TOKEN_FILE", "/t.jwt")]);
        assert!(!format!("{builder:?}").contains("aaa"), "{builder:?}");
        assert!(matches!(builder.token, TokenSource::Fixed(token) if token.expose_secret() == "aaa.bbb.ccc"));
    }

    #[test]
    fn a_jwt_in_the_place_of_a_file_is_refused_and_not_printed() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJhIn0.c2lnbmF0dXJl";
        let builder = from_variables(&[("VAULT_TOKEN_FILE", jwt)]);
        assert!(!format!("{builder:?}").contains("eyJ"), "{builder:?}");
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::Token(TokenError::NotAFile)), "{error:?}");
        for path in ["eyJ.jwt", "./eyJ.a.b", "/run/eyJ/a.b.c"] {
            assert!(from_variables(&[("VAULT_TOKEN_FILE", path)]).build().is_ok(), "{path}");
        }
    }

    #[test]
    fn an_empty_environment_means_the_installed_vault_and_a_login() {
        for variables in [&[][..], &[("VAULT_SOCKET", ""), ("VAULT_TOKEN", ""), ("VAULT_TOKEN_FILE", "")]] {
            let builder = from_variables(variables);
            assert_eq!(builder.socket.as_os_str(), DEFAULT_SOCKET);
            assert!(matches!(builder.token, TokenSource::Login(request) if request.client.is_none()));
        }
    }

    #[test]
    fn a_token_that_cannot_be_one_is_refused_before_anything_is_sent() {
        let result = ClientBuilder::new("/v.sock").token(SecretString::from("two words")).build();
        assert!(matches!(result, Err(Error::Token(TokenError::Malformed))));
    }
}
