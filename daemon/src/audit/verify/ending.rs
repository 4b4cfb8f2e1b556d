//! Whether a log ends where `head.json` says that it does.

use jiff::{SignedDuration, Timestamp};

use super::{
    finding::Damage,
    head::HEAD_FILE,
    keys::Verdict,
    line::{Line, hex},
    runs::Place,
    walk::{Walk, at},
};

/// The most lines of a log that no checkpoint has signed yet, and its age: it is then just a few moments old.
const MAX_LINES_OF_A_YOUNG_LOG: u64 = 100_000;
const MAX_AGE_OF_A_YOUNG_LOG: SignedDuration = SignedDuration::from_hours(1);

impl Walk {
    /// A file without a byte. `is_newest` is whether it is the file that is written.
    pub(super) fn empty(&mut self, is_newest: bool) {
        if is_newest {
            self.tally.is_unbegun = true;
        } else if let Some(name) = self.names.last() {
            self.findings.of_file(Damage::Removed, name, "the file is empty".to_owned());
        }
    }

    /// Bytes after the last line feed of a file. `is_newest` is whether it is the file that is written, and
    /// `is_written` whether somebody writes now.
    pub(super) fn rest(
        &mut self,
        bytes: &[u8],
        line: u64,
        is_newest: bool,
        is_written: impl FnOnce() -> bool,
    ) {
        let last = self.last.as_ref().map_or(0, |last| last.seq);
        let may_be_written = self.head.as_ref().is_some_and(|head| {
            if last == head.seq && head.is_closed() { is_written() } else { last >= head.seq }
        });
        if is_newest && may_be_written {
            self.tally.unfinished = bytes.len();
            return;
        }
        let place = self.place(line);
        let what = "does not end with a line feed";
        self.findings.of_stranger(Damage::HalfWritten, at(&self.names, place), what);
        if Line::parse(bytes).is_ok() {
            self.line(bytes, line);
        } else {
            self.half_line();
        }
    }

    /// Holds the walk against `head.json`. To be called when there are no more lines.
    pub(super) fn end(&mut self) {
        self.close();
        if self.tally.lines == 0 {
            self.findings.of_file(Damage::CutOff, HEAD_FILE, "no line of the log is left".to_owned());
        } else if self.keys.is_some()
            && self.tally.checkpoint_lines == 0
            && (self.tally.lines > MAX_LINES_OF_A_YOUNG_LOG || self.age() > MAX_AGE_OF_A_YOUNG_LOG)
        {
            let (file, _) = at(&self.names, Place::default());
            let what = format!("there is no checkpoint in {} lines", self.tally.lines);
            self.findings.of_file(Damage::Removed, file, what);
        }
        self.head_place();
        self.head_checkpoint();
    }

    /// How much time the log spans.
    fn age(&self) -> SignedDuration {
        let time = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
        let ends = time(self.tally.from.as_deref()).zip(time(self.last_time()));
        ends.map_or(SignedDuration::MAX, |(from, to)| to.duration_since(from))
    }

    fn head_place(&mut self) {
        let Some(head) = &self.head else { return };
        if self.vault.as_ref().is_some_and(|vault| *vault != head.vault) {
            let what = format!("names the vault {}, the log is of another", head.vault);
            self.findings.of_file(Damage::Altered, HEAD_FILE, what);
        }
        let Some(met) = &self.head_line else {
            if self.tally.first_seq.is_some_and(|first| head.seq < first) {
                let what = format!("says that the log ends with seq {}, before its first line", head.seq);
                self.findings.of_file(Damage::Altered, HEAD_FILE, what);
            }
            return;
        };
        let (file, line) = at(&self.names, met.place);
        if met.hash == head.hash {
            if self.numbers.get(met.place.file) != Some(&head.file) {
                let what =
                    format!("says that seq {} is in the file {}, it is in {file}", head.seq, head.file);
                self.findings.of_file(Damage::Altered, HEAD_FILE, what);
            }
            return;
        }
        if self.findings.names(head.seq) {
            return;
        }
        let hashes = format!("{} is the SHA-256 of seq {}", hex(&met.hash), head.seq);
        if met.is_confirmed {
            let what = format!("says {}, but {hashes}", hex(&head.hash));
            self.findings.of_file(Damage::Altered, HEAD_FILE, what);
        } else {
            let what =
                format!("{hashes}, but head.json says {}: one of the two was altered", hex(&head.hash));
            self.findings.of_line(Damage::Altered, (file, line), head.seq, what);
        }
    }

    fn head_checkpoint(&mut self) {
        let Some(head) = self.head.as_ref().filter(|head| head.members().is_some()) else { return };
        if self.tally.is_head_checkpoint_met {
            return;
        }
        let Some(checkpoint) = head.checkpoint() else {
            let what = "holds something else than a checkpoint".to_owned();
            return self.findings.of_file(Damage::Altered, HEAD_FILE, what);
        };
        let upto = checkpoint.fields.upto;
        let keys = self.keys.as_mut();
        let verdict =
            keys.map(|keys| keys.check(&checkpoint.fields.kid, checkpoint.statement, checkpoint.signature));
        let is_elsewhere = self.is_partial && self.tally.first_seq.is_some_and(|first| upto < first);
        match verdict {
            Some(Verdict::Bad | Verdict::UnknownKey) => {
                let what = "the signature of the checkpoint in it does not verify".to_owned();
                self.findings.of_file(Damage::Altered, HEAD_FILE, what);
            }
            Some(Verdict::Good) | None if is_elsewhere || !self.findings.is_empty() => {}
            Some(Verdict::Good) | None => {
                let what = format!("the checkpoint in it, of seq {upto}, is not in the log");
                self.findings.of_file(Damage::Altered, HEAD_FILE, what);
            }
        }
    }
}
