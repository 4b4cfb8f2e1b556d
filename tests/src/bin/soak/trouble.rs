//! What happens to the vault, one thing at a time.

use std::{fs, io::Write, os::unix::net::UnixStream, thread, time::Duration};

use vault_tests::{PURPOSES, Vault, keys};

/// A fault, which is over when it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// `kill -9`, and a new start.
    Kill,
    /// The HSM fails by one of [`SCRIPTS`].
    Hsm(usize),
    /// Configuration and keys are read anew.
    Reload,
    /// A key gets a new version, old records are brought to it, and what nobody needs any more is destroyed.
    Rotate,
    /// No file may grow.
    Disk,
    /// The audit log's file is moved away and back.
    Log,
    /// There are no descriptors left.
    Descriptors,
    /// Callers who are slow, who leave half way, and who send nonsense.
    Callers,
}

const MOMENT: Duration = Duration::from_millis(500);
/// Longer than a call may last.
const HANG: Duration = Duration::from_millis(2_500);
/// Each class of fault.
const SCRIPTS: [&str; 14] = [
    "C_Encrypt error CKR_DEVICE_ERROR",
    "C_Sign error CKR_SESSION_HANDLE_INVALID",
    "C_Decrypt error CKR_USER_NOT_LOGGED_IN",
    "C_SignInit error CKR_KEY_HANDLE_INVALID",
    "C_GenerateRandom error CKR_GENERAL_ERROR",
    "C_EncryptInit error CKR_DATA_INVALID",
    "C_Sign error CKR_DEVICE_REMOVED",
    "* error CKR_DEVICE_ERROR rate=0.1",
    "* lose-sessions rate=0.02",
    "* lose-login rate=0.02",
    "* stale-handles rate=0.02",
    "C_Decrypt wrong-length -1",
    "* latency 2ms",
    "C_Sign hang",
];

impl Trouble {
    /// Everything that can happen, in any order.
    pub(crate) fn shuffled() -> std::vec::IntoIter<Self> {
        let mut all = vec![
            Self::Kill,
            Self::Reload,
            Self::Rotate,
            Self::Disk,
            Self::Log,
            Self::Descriptors,
            Self::Callers,
            Self::Kill,
            Self::Callers,
        ];
        all.extend((0..SCRIPTS.len()).map(Self::Hsm));
        fastrand::shuffle(&mut all);
        all.into_iter()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Hsm(_) => "HSM",
            Self::Reload => "reload",
            Self::Rotate => "rotate",
            Self::Disk => "disk",
            Self::Log => "log file",
            Self::Descriptors => "descriptors",
            Self::Callers => "callers",
        }
    }

    pub(crate) fn happen(self, vault: &mut Vault) {
        match self {
            Self::Kill => {
                vault.kill();
                vault.restart();
            }
            Self::Hsm(script) => {
                let script = SCRIPTS[script];
                vault.trouble(script);
                thread::sleep(if script.ends_with("hang") { HANG } else { MOMENT });
                vault.calm();
            }
            Self::Reload => {
                vault.signal("HUP");
                vault.admin("POST", "/v1/reload");
            }
            Self::Rotate => rotate(vault),
            Self::Disk => {
                vault.limit("--fsize=4096:");
                thread::sleep(MOMENT);
                vault.limit("--fsize=unlimited:");
            }
            Self::Log => move_log(vault),
            Self::Descriptors => {
                vault.limit(&format!("--nofile={}:", vault.descriptors()));
                let waiting: Vec<_> =
                    (0..50).filter_map(|_| UnixStream::connect(vault.socket()).ok()).collect();
                thread::sleep(MOMENT);
                vault.limit("--nofile=4096:");
                drop(waiting);
            }
            Self::Callers => bother(vault),
        }
    }
}

/// Whether something of it is refused does not matter: it may not be its time.
fn rotate(vault: &Vault) {
    let purpose = PURPOSES[fastrand::usize(..PURPOSES.len())];
    vault.admin("POST", &format!("/v1/keys/{purpose}/rotate"));
    vault.admin("POST", "/v1/rewrap");
    for key in keys(vault) {
        if key["state"] == "retired" {
            let path = format!("/v1/keys/{}/{}", key["purpose"].as_str().unwrap(), key["version"]);
            vault.admin("DELETE", &path);
        }
    }
}

fn move_log(vault: &Vault) {
    let files = fs::read_dir(vault.path("audit")).unwrap().map(|file| file.unwrap().path());
    let log = files.filter(|file| file.extension().is_some_and(|end| end == "jsonl")).max().unwrap();
    let away = vault.path("away");
    fs::rename(&log, &away).unwrap();
    thread::sleep(MOMENT);
    fs::rename(&away, &log).unwrap();
}

fn bother(vault: &Vault) {
    let half = format!(
        "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {}\r\ncontent-type: \
         application/json\r\ncontent-length: 1000\r\n\r\n{{\"pan\":\"4111",
        vault.jwt()
    );
    let greedy = "GET /v1/openapi.json HTTP/1.1\r\nhost: v\r\n\r\n".repeat(4);
    let kinds = ["GET /healthz HT", "\r\n\0\u{1}nonsense\r\n\r\n", "", half.as_str(), greedy.as_str()];
    let mut streams: Vec<_> = (0..100)
        .filter_map(|number| {
            let mut stream = UnixStream::connect(vault.socket()).ok()?;
            stream.write_all(kinds[number % kinds.len()].as_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    for _ in 0..10 {
        thread::sleep(MOMENT / 5);
        // Whoever was shown out stays out.
        streams.retain_mut(|stream| stream.write_all(b"x").is_ok());
    }
}
