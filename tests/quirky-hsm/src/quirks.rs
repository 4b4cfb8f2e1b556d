//! What is peculiar.

/// A peculiarity; `lib.rs` describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    Room,
    Append,
    NoCopy,
    ReadOnly,
    WritingOnly,
    ShortRsa,
    Untold,
    LastTry,
}

/// What is peculiar.
#[derive(Debug, Default)]
pub(crate) struct Quirks {
    list: Vec<Quirk>,
    /// The most sessions there may be.
    pub(crate) sessions: Option<usize>,
    /// The PIN that the token asks for by its own means.
    pub(crate) protected_path: Option<String>,
    /// The PIN that the token is logged in with from the beginning.
    pub(crate) no_login: Option<String>,
}

impl Quirks {
    /// Reads the list of quirks; `None` if one of them is unknown.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut all = Self::default();
        for quirk in text.split(',').filter(|quirk| !quirk.is_empty()) {
            match quirk.split_once('=').unwrap_or((quirk, "")) {
                ("room", "") => all.list.push(Quirk::Room),
                ("append", "") => all.list.push(Quirk::Append),
                ("no_copy", "") => all.list.push(Quirk::NoCopy),
                ("read_only", "") => all.list.push(Quirk::ReadOnly),
                ("writing_only", "") => all.list.push(Quirk::WritingOnly),
                ("short_rsa", "") => all.list.push(Quirk::ShortRsa),
                ("untold", "") => all.list.push(Quirk::Untold),
                ("last_try", "") => all.list.push(Quirk::LastTry),
                ("sessions", most) => all.sessions = Some(most.parse().ok()?),
                ("protected_path", pin) => all.protected_path = Some(pin.to_owned()),
                ("no_login", pin) => all.no_login = Some(pin.to_owned()),
                _ => return None,
            }
        }
        Some(all)
    }

    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.list.contains(&quirk)
    }
}
