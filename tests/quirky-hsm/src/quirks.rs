//! What is peculiar.

/// Who makes the nonces of GCM, and where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Nonce {
    #[default]
    Caller,
    Room,
    Append,
}

/// What is peculiar.
#[derive(Debug, Default)]
pub(crate) struct Quirks {
    pub(crate) nonce: Nonce,
    pub(crate) no_copy: bool,
    pub(crate) read_only: bool,
    pub(crate) sessions: Option<usize>,
    pub(crate) protected_path: Option<String>,
    pub(crate) untold: bool,
}

impl Quirks {
    /// Reads the list of quirks; `None` if one of them is unknown.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut quirks = Self::default();
        for quirk in text.split(',').filter(|quirk| !quirk.is_empty()) {
            match quirk.split_once('=').unwrap_or((quirk, "")) {
                ("room", "") => quirks.nonce = Nonce::Room,
                ("append", "") => quirks.nonce = Nonce::Append,
                ("no_copy", "") => quirks.no_copy = true,
                ("read_only", "") => quirks.read_only = true,
                ("sessions", most) => quirks.sessions = Some(most.parse().ok()?),
                ("protected_path", pin) => quirks.protected_path = Some(pin.to_owned()),
                ("untold", "") => quirks.untold = true,
                _ => return None,
            }
        }
        Some(quirks)
    }
}
