//! Secrets: from a terminal without echo, from standard input, from a file.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IsTerminal, Read},
    os::fd::AsFd,
    path::Path,
};

use secrecy::SecretString;
use vault_client::Sensitive;
use zeroize::Zeroizing;

use crate::{
    complaint::{Complaint, note},
    terminal::Terminal,
};

/// The most bytes of standard input that can be a few secrets: a JWT has some two thousand.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

/// Answers to questions, in turn.
pub(crate) enum Answers {
    /// Asked on the terminal.
    Asked(Terminal),
    /// The lines of standard input.
    Lines(VecDeque<Sensitive>),
}

impl Answers {
    /// Reads standard input, unless it is a terminal.
    pub(crate) fn new() -> Result<Self, Complaint> {
        if io::stdin().is_terminal() {
            return Terminal::open().map(Self::Asked).map_err(|error| unasked(&error));
        }
        let text = read(stdin()?, "standard input")?;
        let lines = unmarked(&text).lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(Self::Lines(lines.map(Sensitive::from).collect()))
    }

    /// The answer to `question`, which is never shown.
    pub(crate) fn next(&mut self, question: &str) -> Result<Sensitive, Complaint> {
        let answer = match self {
            Self::Asked(terminal) => {
                let answer = terminal.ask(question).map_err(|error| unasked(&error))?;
                (!answer.expose().is_empty()).then_some(answer)
            }
            Self::Lines(lines) => lines.pop_front(),
        };
        answer.ok_or_else(|| {
            let question = question.to_lowercase();
            Complaint::Failed(format!(
                "no {question} was given: write it to standard input, one value a line"
            ))
        })
    }

    /// Complains about lines that nobody asked for: they may be card numbers the caller thinks are done.
    pub(crate) fn finish(self) -> Result<(), Complaint> {
        match self {
            Self::Lines(lines) if !lines.is_empty() => Err(Complaint::Failed(
                "standard input has more lines than this command takes; for many at once use --file"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

fn unasked(error: &io::Error) -> Complaint {
    match error.kind() {
        io::ErrorKind::Interrupted => Complaint::Failed("interrupted; nothing was sent".to_owned()),
        _ => Complaint::failed("cannot ask on the terminal", error),
    }
}

/// The one answer to `question`.
pub(crate) fn ask(question: &str) -> Result<Sensitive, Complaint> {
    let mut answers = Answers::new()?;
    let answer = answers.next(question)?;
    answers.finish()?;
    Ok(answer)
}

/// `text`, or the one answer to `question` if it is `-`.
pub(crate) fn dash(text: String, question: &str) -> Result<Sensitive, Complaint> {
    if text == "-" { ask(question) } else { Ok(text.into()) }
}

/// The JWT in the file `path`, or on standard input if that is `-`.
pub(crate) fn jwt_file(path: &Path) -> Result<SecretString, Complaint> {
    let (text, name) = if path.as_os_str() == "-" {
        if io::stdin().is_terminal() {
            note("paste it, and press Ctrl-D on a line of its own");
        }
        let name = "standard input".to_owned();
        (read(stdin()?, &name)?, name)
    } else {
        let file = File::open(path).map_err(|error| Complaint::file("read", path, &error))?;
        let name = path.display().to_string();
        (read(file, &name)?, name)
    };
    match unmarked(&text).trim() {
        "" => Err(Complaint::Failed(format!("{name} is empty: nothing was sent"))),
        text => Ok(SecretString::from(text)),
    }
}

/// Whether what is at `path` can be read only once, as standard input and pipes can.
pub(crate) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-" || path.metadata().is_ok_and(|file| !file.is_file() && !file.is_dir())
}

/// `text` without what some programs write before UTF-8.
fn unmarked(text: &str) -> &str {
    text.trim_start_matches('\u{feff}')
}

/// Standard input without a buffer that would keep what went through it.
pub(crate) fn stdin() -> Result<File, Complaint> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    stdin.map(File::from).map_err(|error| Complaint::failed("cannot use standard input", error))
}

fn read(file: File, name: &str) -> Result<Zeroizing<String>, Complaint> {
    let mut text = Zeroizing::new(String::new());
    let count = file.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text);
    let count = count.map_err(|error| Complaint::failed(&format!("cannot read {name}"), error))?;
    if u64::try_from(count).is_ok_and(|count| count <= MAX_INPUT_BYTES) {
        Ok(text)
    } else {
        Err(Complaint::Failed(format!("{name} has more than {MAX_INPUT_BYTES} bytes, which is no secret")))
    }
}
