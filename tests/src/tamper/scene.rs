//! The ways to edit a log.

use std::rc::Rc;

use super::{
    Files,
    text::{hash, is_packed, joined, packed, seq, split, unpacked, with_prev},
};

/// Makes an edit; `None` if it cannot be made here.
type Way = fn(&mut Scene) -> Option<()>;

/// The ways to edit a log.
pub(super) const WAYS: [(&str, Way); 22] = [
    ("flip a bit", Scene::flip),
    ("change a byte", Scene::change),
    ("delete bytes", Scene::delete_bytes),
    ("insert bytes", Scene::insert_bytes),
    ("truncate a file", Scene::truncate),
    ("delete lines", Scene::delete_lines),
    ("insert a random line", Scene::insert_line),
    ("insert a line that fits the one before", Scene::insert_forged),
    ("repeat lines", Scene::repeat_lines),
    ("swap lines", Scene::swap_lines),
    ("move a line", Scene::move_line),
    ("cut the log off", Scene::cut_off),
    ("replace a line by another vault's", Scene::foreign_line),
    ("insert lines of another vault", Scene::foreign_lines),
    ("replace a file by another vault's", Scene::foreign_file),
    ("replace head.json by another vault's", Scene::foreign_head),
    ("remove a file", Scene::remove_file),
    ("swap two files", Scene::swap_files),
    ("call a file by another number", Scene::rename_file),
    ("edit head.json", Scene::edit_head),
    ("rewrite the chain after an altered line", Scene::rewrite),
    ("rewrite the chain without a line", Scene::rewrite_without),
];

/// A copy of a log, to be edited.
pub(super) struct Scene {
    pub(super) files: Files,
    pub(super) foreign: Rc<Files>,
    pub(super) random: fastrand::Rng,
    /// Where it was edited.
    pub(super) at: String,
}

impl Scene {
    fn flip(&mut self) -> Option<()> {
        let bit = self.random.u8(..8);
        self.in_bytes(|bytes, at, _| bytes[at] ^= 1 << bit)
    }

    fn change(&mut self) -> Option<()> {
        self.in_bytes(|bytes, at, random| bytes[at] = random.u8(..))
    }

    fn delete_bytes(&mut self) -> Option<()> {
        self.in_bytes(|bytes, at, random| {
            let end = bytes.len().min(at + random.usize(1..40));
            bytes.drain(at..end);
        })
    }

    fn insert_bytes(&mut self) -> Option<()> {
        self.in_bytes(|bytes, at, random| {
            let at = at + random.usize(..2);
            let new: Vec<u8> = (0..random.usize(1..40)).map(|_| random.u8(..)).collect();
            bytes.splice(at..at, new);
        })
    }

    fn truncate(&mut self) -> Option<()> {
        self.in_bytes(|bytes, at, _| bytes.truncate(at))
    }

    fn delete_lines(&mut self) -> Option<()> {
        self.in_lines(|lines, at, random| {
            let end = lines.len().min(at + random.usize(1..6));
            lines.drain(at..end);
        })
    }

    fn insert_line(&mut self) -> Option<()> {
        self.in_lines(|lines, at, random| {
            let new: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(b' '..0x7f)).collect();
            lines.insert(at + random.usize(..2), new);
        })
    }

    fn insert_forged(&mut self) -> Option<()> {
        self.in_lines(|lines, at, random| {
            let text = String::from_utf8(lines[at].clone()).unwrap();
            let next = seq(&text) + 1;
            let line = text.replacen(&format!("\"seq\":{}", next - 1), &format!("\"seq\":{next}"), 1);
            let line = with_prev(&line, &hash(&text)).replace("granted", "refused");
            let _ = random;
            lines.insert(at + 1, line.into_bytes());
        })
    }

    fn repeat_lines(&mut self) -> Option<()> {
        self.in_lines(|lines, at, random| {
            let copied = lines[at..lines.len().min(at + random.usize(1..6))].to_vec();
            let to = random.usize(..=lines.len());
            lines.splice(to..to, copied);
        })
    }

    fn swap_lines(&mut self) -> Option<()> {
        self.in_lines(|lines, at, random| {
            let other = random.usize(..lines.len());
            lines.swap(at, other);
        })
    }

    fn move_line(&mut self) -> Option<()> {
        let line = self.in_lines(|lines, at, _| lines.remove(at))?;
        self.in_lines(|lines, at, _| lines.insert(at, line))
    }

    fn cut_off(&mut self) -> Option<()> {
        let name = self.any_log()?;
        self.in_lines_of(&name, |lines, at, _| lines.truncate(at))?;
        self.files.retain(|other, _| *other <= name || other == "head.json");
        Some(())
    }

    fn foreign_line(&mut self) -> Option<()> {
        let line = self.random_foreign_lines().pop()?;
        self.in_lines(|lines, at, _| lines[at] = line)
    }

    fn foreign_lines(&mut self) -> Option<()> {
        let new = self.random_foreign_lines();
        self.in_lines(|lines, at, _| drop(lines.splice(at..at, new)))
    }

    fn foreign_file(&mut self) -> Option<()> {
        let name = self.any_log()?;
        let foreign = self.foreign.get(&name)?.clone();
        self.files.insert(name, foreign);
        Some(())
    }

    fn foreign_head(&mut self) -> Option<()> {
        self.files.insert("head.json".to_owned(), self.foreign.get("head.json")?.clone());
        Some(())
    }

    fn remove_file(&mut self) -> Option<()> {
        let names: Vec<String> = self.files.keys().cloned().collect();
        self.at = self.random.choice(&names)?.clone();
        self.files.remove(&self.at.clone()).map(drop)
    }

    fn swap_files(&mut self) -> Option<()> {
        let (one, other) = (self.any_log()?, self.any_log()?);
        let (a, b) = (self.plain(&one)?, self.plain(&other)?);
        self.put(&one, b);
        self.put(&other, a);
        Some(())
    }

    fn rename_file(&mut self) -> Option<()> {
        let name = self.any_log()?;
        let bytes = self.files.remove(&name)?;
        let ending = name.split_once('.')?.1;
        let number = self.random.u32(1..20);
        self.files.insert(format!("audit-{number:08}.{ending}"), bytes);
        Some(())
    }

    fn edit_head(&mut self) -> Option<()> {
        "head.json".clone_into(&mut self.at);
        let bytes = self.files.get_mut("head.json")?;
        let at = self.random.usize(..bytes.len());
        match self.random.u8(..5) {
            0 => bytes[at] ^= 1 << self.random.u8(..8),
            1 => bytes[at] = b'0' + self.random.u8(..10),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, self.random.u8(..)),
            _ => bytes.truncate(at),
        }
        Some(())
    }

    /// Says of a request that somebody else made it, and makes everything after its line fit again: all that can be done
    /// without the key.
    fn rewrite(&mut self) -> Option<()> {
        let from = self.in_lines(|lines, at, random| {
            let text = String::from_utf8(lines[at].clone()).unwrap();
            let (front, rest) = text.split_once("\"uid\":")?;
            let (uid, rest) = rest.split_once(',')?;
            let other = uid.parse::<u32>().unwrap() ^ random.u32(1..8);
            lines[at] = format!("{front}\"uid\":{other},{rest}").into_bytes();
            Some(seq(&text))
        })??;
        self.rechain(from)
    }

    /// Takes a line away and makes everything after it fit again.
    fn rewrite_without(&mut self) -> Option<()> {
        let from = self.in_lines(|lines, at, _| seq(&String::from_utf8(lines.remove(at)).unwrap()))?;
        self.rechain(from)
    }

    /// Numbers and hashes of all lines from `from` on, and of `head.json`, made to fit.
    fn rechain(&mut self, from: u64) -> Option<()> {
        let names: Vec<String> = self.logs();
        let (mut next, mut prev) = (1, "0".repeat(64));
        for name in &names {
            let mut lines = Vec::new();
            for line in split(&self.plain(name)?) {
                let mut text = String::from_utf8(line).unwrap();
                if next >= from {
                    let was = seq(&text);
                    text = text.replacen(&format!("\"seq\":{was}"), &format!("\"seq\":{next}"), 1);
                    text = with_prev(&text, &prev);
                }
                (next, prev) = (next + 1, hash(&text));
                lines.push(text.into_bytes());
            }
            self.put(name, joined(&lines));
        }
        let head = String::from_utf8(self.files.get("head.json")?.clone()).unwrap();
        let (front, rest) = head.split_once("\"seq\":")?;
        let (_, rest) = rest.split_once("\",\"checkpoint\"")?;
        let head = format!("{front}\"seq\":{},\"hash\":\"{prev}\",\"checkpoint\"{rest}", next - 1);
        self.files.insert("head.json".to_owned(), head.into_bytes());
        Some(())
    }

    fn random_foreign_lines(&mut self) -> Vec<Vec<u8>> {
        let logs: Vec<&String> = self.foreign.keys().filter(|name| name.as_str() != "head.json").collect();
        let bytes = &self.foreign[*self.random.choice(&logs).unwrap()];
        let lines = split(&unpacked(bytes).unwrap_or_else(|| bytes.clone()));
        let at = self.random.usize(..lines.len());
        lines[at..lines.len().min(at + self.random.usize(1..6))].to_vec()
    }

    /// Edits any bytes of any file of the log, compressed or not.
    fn in_bytes<T>(&mut self, edit: impl FnOnce(&mut Vec<u8>, usize, &mut fastrand::Rng) -> T) -> Option<T> {
        let name = self.any_log()?;
        let bytes = self.files.get_mut(&name)?;
        let at = self.random.usize(..bytes.len().max(1));
        (at < bytes.len()).then(|| edit(bytes, at, &mut self.random))
    }

    fn in_lines<T>(
        &mut self,
        edit: impl FnOnce(&mut Vec<Vec<u8>>, usize, &mut fastrand::Rng) -> T,
    ) -> Option<T> {
        let name = self.any_log()?;
        self.in_lines_of(&name, edit)
    }

    fn in_lines_of<T>(
        &mut self,
        name: &str,
        edit: impl FnOnce(&mut Vec<Vec<u8>>, usize, &mut fastrand::Rng) -> T,
    ) -> Option<T> {
        let mut lines = split(&self.plain(name)?);
        let at = self.random.usize(..lines.len().max(1));
        self.at = format!("{}:{}", self.at, at + 1);
        let done = (at < lines.len()).then(|| edit(&mut lines, at, &mut self.random));
        self.put(name, joined(&lines));
        done
    }

    fn logs(&self) -> Vec<String> {
        self.files.keys().filter(|name| name.starts_with("audit-")).cloned().collect()
    }

    fn any_log(&mut self) -> Option<String> {
        let name = self.random.choice(self.logs())?;
        self.at = format!("{} {name}", self.at);
        Some(name)
    }

    fn plain(&self, name: &str) -> Option<Vec<u8>> {
        let bytes = self.files.get(name)?;
        if is_packed(name) { unpacked(bytes) } else { Some(bytes.clone()) }
    }

    fn put(&mut self, name: &str, plain: Vec<u8>) {
        let bytes = if is_packed(name) { packed(&plain) } else { plain };
        self.files.insert(name.to_owned(), bytes);
    }
}
