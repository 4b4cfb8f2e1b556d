//! The bearer token: given once, kept in a file that something else renews, or got by logging in.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use vault_api::LoginRequest;
use zeroize::Zeroizing;

use crate::{Error, TokenError, call::Call, login::Session, wiping::WipingBuffer};

/// The largest bearer token, in bytes; a JWT has about one thousand.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What some programs write before UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Where the bearer token comes from.
pub(crate) enum Bearer {
    /// Nowhere: only the endpoints that need none can be used.
    None,
    /// Given to the builder.
    Fixed(HeaderValue),
    /// A file.
    File(TokenFile),
    /// A login, with this call.
    Login(Box<Session>, Call),
}

impl Bearer {
    /// A token that never changes.
    pub(crate) fn fixed(token: &SecretString) -> Result<Self, TokenError> {
        header(token.expose_secret()).map(Self::Fixed)
    }

    /// The token in the file `path`, which is read at the first use.
    pub(crate) fn file(path: PathBuf) -> Self {
        Self::File(TokenFile { path, read: Mutex::new(None) })
    }

    /// The token that a login with `request` gives; the first is made when the first token is needed. No call may take
    /// longer than `timeout`.
    pub(crate) fn login(request: &LoginRequest, timeout: Duration) -> Result<Self, Error> {
        Ok(Self::Login(Box::new(Session::new(timeout)), Call::login(request)?))
    }
}

/// A token file and what was last read from it.
///
/// Its calls block on the file system: one `stat` a request, and a small read when the file has changed. Token
/// files live in a tmpfs; a thread hop would cost more than either.
pub(crate) struct TokenFile {
    path: PathBuf,
    read: Mutex<Option<(Stamp, HeaderValue)>>,
}

impl TokenFile {
    /// The token that the file holds.
    pub(crate) fn current(&self) -> Result<HeaderValue, TokenError> {
        let stamp =
            std::fs::metadata(&self.path).map(|file| Stamp::of(&file)).map_err(|e| self.unreadable(e))?;
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some((read, header)) if read == stamp => Ok(header),
            _ => self.reread(),
        }
    }

    /// A token other than `refused`; `None` if the file holds no other.
    pub(crate) fn renewed(&self, refused: &HeaderValue) -> Result<Option<HeaderValue>, TokenError> {
        Ok(Some(self.reread()?).filter(|header| header != refused))
    }

    fn reread(&self) -> Result<HeaderValue, TokenError> {
        // To open a FIFO is to wait for whoever writes to it, and no timeout would end that.
        if !std::fs::metadata(&self.path).map_err(|e| self.unreadable(e))?.is_file() {
            return Err(self.unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
        }
        let file = File::open(&self.path).map_err(|e| self.unreadable(e))?;
        let stamp = file.metadata().map(|file| Stamp::of(&file)).map_err(|e| self.unreadable(e))?;
        // Never grows, so no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TOKEN_BYTES + 1));
        read_up_to(file, MAX_TOKEN_BYTES + 1, &mut bytes).map_err(|e| self.unreadable(e))?;

        let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::Malformed)?;
        let text = text.trim_start_matches(BYTE_ORDER_MARK).trim();
        if text.is_empty() {
            return Err(TokenError::Empty { path: self.path.clone() });
        }
        let header = header(text)?;
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, header.clone()));
        Ok(header)
    }

    fn unreadable(&self, source: io::Error) -> TokenError {
        TokenError::Unreadable { path: self.path.clone(), source }
    }
}

/// What changes when a file is written or replaced.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    size: u64,
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { modified: file.modified().ok(), inode: file.ino(), size: file.size() }
    }
}

/// Reads at most `limit` bytes into `bytes`, within its capacity.
fn read_up_to(file: File, limit: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.resize(limit, 0);
    let mut file = file.take(u64::try_from(limit).unwrap_or(u64::MAX));
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read(free) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(())
}

/// `Bearer <token>` in memory that is wiped, marked so that nothing prints it.
pub(crate) fn header(token: &str) -> Result<HeaderValue, TokenError> {
    secret_value("Bearer ", token)
}

/// The JWT of somebody who approves a request, without a scheme before it.
pub(crate) fn approval(token: &str) -> Result<HeaderValue, TokenError> {
    secret_value("", token.trim())
}

fn secret_value(scheme: &str, token: &str) -> Result<HeaderValue, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLarge);
    }
    // RFC 6750, 2.1: b64token. Anything looser could smuggle a second header or scheme.
    let is_b64token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(is_b64token) {
        return Err(TokenError::Malformed);
    }
    let mut value = WipingBuffer::with_capacity(scheme.len() + token.len());
    value.push(scheme.as_bytes());
    value.push(token.as_bytes());
    let mut header =
        HeaderValue::from_maybe_shared(Bytes::from_owner(value)).map_err(|_| TokenError::Malformed)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(content: &str) -> (tempfile::TempDir, PathBuf, TokenFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.jwt");
        std::fs::write(&path, content).unwrap();
        let file = token_file(path.clone());
        (dir, path, file)
    }

    fn token_file(path: PathBuf) -> TokenFile {
        let Bearer::File(file) = Bearer::file(path) else { panic!("it is a file") };
        file
    }

    #[test]
    fn a_fixed_token_is_sent_as_it_is_and_is_not_printed() {
        let Ok(Bearer::Fixed(header)) = Bearer::fixed(&SecretString::from("aaa.bbb.ccc")) else {
            panic!("it is fixed")
        };
        assert_eq!(header, "Bearer aaa.bbb.ccc");
        assert!(!format!("{header:?}").contains("aaa"), "{header:?}");
    }

    #[test]
    fn what_cannot_be_a_token_is_refused() {
        for token in ["", "a b", "a\r\nx-evil: 1", "ü"] {
            assert!(matches!(header(token), Err(TokenError::Malformed)), "{token:?}");
        }
        assert!(header(&"a".repeat(MAX_TOKEN_BYTES)).is_ok());
        assert!(matches!(header(&"a".repeat(MAX_TOKEN_BYTES + 1)), Err(TokenError::TooLarge)));
    }

    #[test]
    fn a_token_file_is_read_again_when_it_changes() {
        let (_dir, path, file) = in_file("one\n");
        assert_eq!(file.current().unwrap(), "Bearer one");
        std::fs::write(&path, "\u{feff}second\r\n").unwrap();
        assert_eq!(file.current().unwrap(), "Bearer second");
    }

    #[test]
    fn a_renewed_token_is_one_that_differs() {
        let (_dir, path, file) = in_file("one");
        let refused = file.current().unwrap();
        assert!(file.renewed(&refused).unwrap().is_none());
        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.renewed(&refused).unwrap().unwrap(), "Bearer two");
    }

    #[test]
    fn a_missing_an_empty_an_oversized_and_no_file_say_so() {
        let (dir, path, file) = in_file(" \n");
        assert!(matches!(file.current(), Err(TokenError::Empty { .. })));
        std::fs::write(&path, "a".repeat(2 * MAX_TOKEN_BYTES)).unwrap();
        assert!(matches!(file.current(), Err(TokenError::TooLarge)));
        let socket = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = token_file(socket).current().unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        let absent = token_file(dir.path().join("absent"));
        assert!(matches!(absent.current(), Err(TokenError::Unreadable { .. })));
    }
}
