//! A second hand that writes audit logs, from `docs/audit-log.md` alone: shares nothing with the daemon.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use flate2::{Compression, write::GzEncoder};
use jsonwebtoken::{
    Algorithm, EncodingKey,
    jwk::{AlgorithmParameters, Jwk},
};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A key that signs checkpoints.
pub struct AuditKey {
    key: EncodingKey,
    /// Its RFC 7638 thumbprint.
    pub kid: String,
    /// Its public half.
    pub jwk: serde_json::Value,
}

impl AuditKey {
    /// A new key.
    pub fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref()));
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let AlgorithmParameters::RSA(rsa) = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap().algorithm
        else {
            panic!("an RSA key that is none")
        };
        let canonical = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, rsa.e, rsa.n);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
        let jwk = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": rsa.n, "e": rsa.e });
        Self { key, kid, jwk }
    }

    /// RS256 over `text`, in base64url.
    pub fn sign(&self, text: &str) -> String {
        jsonwebtoken::crypto::sign(text.as_bytes(), &self.key, Algorithm::RS256).unwrap()
    }
}

/// A log that is being written.
pub struct MadeLog<'k> {
    dir: PathBuf,
    vault: String,
    key: &'k AuditKey,
    file: u64,
    out: BufWriter<File>,
    time_us: u64,
    /// Number and hash of the last line.
    last: (u64, String),
    checkpoint: Option<String>,
}

impl<'k> MadeLog<'k> {
    /// Begins the log of `vault` (16 hexadecimal digits) in the directory `dir`, which must be there.
    pub fn begin(dir: &Path, vault: &str, key: &'k AuditKey) -> Self {
        let keys = json!({ "keys": [key.jwk] });
        fs::write(dir.join("keys.json"), keys.to_string()).unwrap();
        let mut log = Self {
            dir: dir.to_owned(),
            vault: vault.to_owned(),
            key,
            file: 0,
            out: BufWriter::new(File::create(dir.join("head.json")).unwrap()),
            time_us: 0,
            last: (0, "0".repeat(64)),
            checkpoint: None,
        };
        log.rotate();
        log
    }

    /// The number of the last line.
    pub fn seq(&self) -> u64 {
        self.last.0
    }

    /// Adds a line with these members.
    pub fn line(&mut self, kind: &str, members: &str) {
        let (seq, prev) = (self.last.0 + 1, &self.last.1);
        self.time_us += 137;
        let time = self.time();
        let line = format!(
            r#"{{"v":1,"seq":{seq},"time":"{time}","vault":"{}","type":"{kind}","prev":"{prev}",{members}}}"#,
            self.vault
        );
        self.last = (seq, hex(Sha256::digest(&line).as_slice()));
        writeln!(self.out, "{line}").unwrap();
    }

    /// Adds a line about a request.
    pub fn access(&mut self, random: &mut fastrand::Rng) {
        let op = random.choice(["detokenize", "tokenize", "tokens.read"]).unwrap();
        let members = format!(
            r#""request_id":"{:032x}","subject":"till-{}","issuer":"shop","tenant":"shop","uid":1000,"gid":1000,"pid":{},"op":"{op}","outcome":"granted","status":200,"via":"api","tokens":["tok_{:022x}"]"#,
            random.u128(..),
            random.u8(..),
            random.u16(1..),
            random.u64(..),
        );
        self.line("access", &members);
    }

    /// Adds an event.
    pub fn event(&mut self, event: &str) {
        self.line("event", &format!(r#""event":"{event}""#));
    }

    /// What a checkpoint of the log up to now says, and its signature.
    pub fn sign(&mut self, is_final: bool) -> String {
        let end = if is_final { r#","final":true"# } else { "" };
        let (upto, hash) = &self.last;
        let (vault, kid, time) = (&self.vault, &self.key.kid, self.time());
        let statement = format!(
            r#"{{"vault":"{vault}","kid":"{kid}","upto":{upto},"hash":"{hash}","time":"{time}"{end}}}"#
        );
        let signature = self.key.sign(&statement);
        format!(r#""statement":{statement},"signature":"{signature}""#)
    }

    /// Adds a checkpoint that [`MadeLog::sign`] made.
    pub fn checkpoint(&mut self, signed: &str) {
        self.line("checkpoint", signed);
        self.checkpoint = Some(signed.to_owned());
    }

    /// Begins the next file.
    pub fn rotate(&mut self) {
        self.out.flush().unwrap();
        self.file += 1;
        let path = self.dir.join(format!("audit-{:08}.jsonl", self.file));
        self.out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
        self.line("begin", &format!(r#""file":{},"vaultd":"0.1.0""#, self.file));
    }

    /// Writes what there is, and `head.json`.
    pub fn flush(&mut self) {
        self.out.flush().unwrap();
        let (seq, hash) = &self.last;
        let checkpoint = self
            .checkpoint
            .as_ref()
            .map(|signed| format!(r#","checkpoint":{{{signed}}}"#))
            .unwrap_or_default();
        let head = format!(
            r#"{{"v":1,"vault":"{}","file":{},"seq":{seq},"hash":"{hash}"{checkpoint}}}   "#,
            self.vault, self.file
        );
        fs::write(self.dir.join("head.json"), head + "\n").unwrap();
    }

    /// Ends the log as a vault does that is stopped.
    pub fn stop(&mut self) {
        self.event("stop");
        let signed = self.sign(true);
        self.checkpoint(&signed);
        self.flush();
    }

    /// A whole log of about `lines` lines, with everything that happens to logs. It was stopped in good order.
    pub fn any(dir: &Path, vault: &str, key: &'k AuditKey, random: &mut fastrand::Rng, lines: u64) {
        let mut log = Self::begin(dir, vault, key);
        log.event("start");
        let mut waiting = None;
        while log.seq() < lines {
            match random.u8(..100) {
                0..3 => log.rotate(),
                3 => {
                    log.stop();
                    waiting = None;
                    log.event("start");
                }
                4 => log.event(random.choice(["key.rotated", "repair", "recovered"]).unwrap()),
                5..8 if waiting.is_none() => waiting = Some(log.sign(false)),
                8..20 => {
                    if let Some(signed) = waiting.take() {
                        log.checkpoint(&signed);
                    }
                }
                _ => log.access(random),
            }
        }
        log.stop();
        for file in 1..log.file {
            if random.u8(..4) == 0 {
                compress(&dir.join(format!("audit-{file:08}.jsonl")));
            }
        }
    }

    fn time(&self) -> String {
        // A day of October is long enough for every test.
        let (s, us) = (self.time_us / 1_000_000, self.time_us % 1_000_000);
        format!(
            "2026-10-{:02}T{:02}:{:02}:{:02}.{us:06}Z",
            1 + s / 86_400,
            s / 3_600 % 24,
            s / 60 % 60,
            s % 60
        )
    }
}

fn compress(path: &Path) {
    let name = format!("{}.gz", path.display());
    let mut out = GzEncoder::new(File::create(name).unwrap(), Compression::default());
    out.write_all(&fs::read(path).unwrap()).unwrap();
    out.finish().unwrap();
    fs::remove_file(path).unwrap();
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
