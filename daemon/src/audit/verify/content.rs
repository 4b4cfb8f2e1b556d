//! What single lines have to say by their type: where files begin, and what is signed.

use super::{
    finding::Damage,
    head::Head,
    keys::{Verdict, shown},
    line::{Checkpoint, Kind, Line, hex},
    walk::{Seen, Walk, at},
};

impl Walk {
    /// Judges what `line` says. `goes_on` is whether it follows the line before.
    pub(super) fn content(&mut self, line: &Line<'_>, seen: &mut Seen, goes_on: bool) {
        match line.kind {
            Kind::Begin => self.begin(line, seen),
            Kind::Access => {}
            Kind::Event => match line.event().as_deref() {
                Some("repair") => self.tally.repairs += 1,
                Some("resumed") => self.tally.resumptions += 1,
                Some(_) => {}
                None => self.blame(seen, "is an event without a name"),
            },
            Kind::Checkpoint => self.checkpoint(line, seen, goes_on),
        }
        if goes_on && seen.place.line == 1 && line.kind != Kind::Begin {
            let what = "belongs to the file before: no file begins with such a line".to_owned();
            self.findings.of_line(Damage::Reordered, at(&self.names, seen.place), seen.seq, what);
        }
    }

    fn begin(&mut self, line: &Line<'_>, seen: &mut Seen) {
        let Some(begin) = line.begin() else {
            return self.blame(seen, "begins a file without its number");
        };
        self.tally.resumptions += u64::from(begin.resumed.is_some());
        let what = if seen.place.line != 1 {
            format!("begins the file {}, in the middle of another", begin.file)
        } else if Some(begin.file) != self.number() {
            format!("begins the file {}, which is not what the file is called", begin.file)
        } else {
            return;
        };
        self.findings.of_line(Damage::Reordered, at(&self.names, seen.place), seen.seq, what);
    }

    fn checkpoint(&mut self, line: &Line<'_>, seen: &mut Seen, goes_on: bool) {
        self.tally.checkpoint_lines += 1;
        let Some(checkpoint) = Checkpoint::parse(line.members()) else {
            return self.blame(seen, "is a checkpoint without a statement and its signature");
        };
        self.signature(&checkpoint, seen, goes_on);
        let head = self.head.as_ref().and_then(Head::members);
        self.tally.is_head_checkpoint_met |= head == Some(line.members());
    }

    fn signature(&mut self, checkpoint: &Checkpoint<'_>, seen: &mut Seen, goes_on: bool) {
        let fields = &checkpoint.fields;
        let Some(keys) = &mut self.keys else { return };
        match keys.check(&fields.kid, checkpoint.statement, checkpoint.signature) {
            Verdict::Good if Some(&fields.vault) != self.vault.as_ref() => {
                seen.is_blamed = true;
                let what = format!("is a checkpoint of the vault {}", fields.vault);
                return self.findings.of_line(Damage::Foreign, at(&self.names, seen.place), seen.seq, what);
            }
            Verdict::Good => {}
            Verdict::Bad => return self.blame(seen, "the signature of this checkpoint does not verify"),
            Verdict::UnknownKey => {
                seen.is_blamed = true;
                let what =
                    format!("is signed by the key {}, which is not among the keys", shown(&fields.kid));
                return self.findings.of_line(Damage::Foreign, at(&self.names, seen.place), seen.seq, what);
            }
        }
        if fields.upto >= seen.seq || fields.is_final && !is_next(fields.upto, seen) {
            let what = format!("is a checkpoint of seq {} that does not belong here", fields.upto);
            return self.findings.of_line(Damage::Inserted, at(&self.names, seen.place), seen.seq, what);
        }
        match self.history.hash(fields.upto) {
            Some(is) if is == checkpoint.hash => {
                keys.count(&fields.kid);
                self.tally.checkpoints += 1;
                (self.tally.signed_upto, self.tally.signed_hash) = (fields.upto, checkpoint.hash);
                self.history.sign(fields.upto);
                seen.is_final = fields.is_final;
            }
            Some(is) => {
                let what = format!(
                    "signs {} as the SHA-256 of seq {}, which is {}: lines before were altered",
                    hex(&checkpoint.hash),
                    fields.upto,
                    hex(&is)
                );
                if !self.findings.names(fields.upto) && !self.is_suspect(fields.upto) {
                    self.findings.of_line(Damage::Altered, at(&self.names, seen.place), seen.seq, what);
                }
            }
            // A second signature of the same line: the first one was thought to have failed.
            None if fields.upto == self.tally.signed_upto && checkpoint.hash == self.tally.signed_hash => {
                self.tally.checkpoints += 1;
                keys.count(&fields.kid);
            }
            None if goes_on && fields.upto <= self.tally.signed_upto => {
                let what = format!("signs seq {}, which was signed before", fields.upto);
                self.findings.of_line(Damage::Inserted, at(&self.names, seen.place), seen.seq, what);
            }
            // Of a line that is not here: before the first of these files, or among those that are missing.
            None => {}
        }
    }
}

/// Whether `seen` is the next line after `upto`, but for one that begins its file.
fn is_next(upto: u64, seen: &Seen) -> bool {
    let between = seen.seq.saturating_sub(upto);
    between == 1 || between == 2 && seen.place.line == 2
}
