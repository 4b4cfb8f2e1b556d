//! A hostile PKCS#11 module inside vaultd: whatever it tries fails, nothing outside is touched, and the log says so.
//!
//! The same attempts come off in a program that has no sandbox, so that it is the sandbox that stops them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    unistd::{User, getegid, geteuid},
};
use serde_json::json;
use vault_tests::{Answer, Bait, KernelAudit, Module, Vault, built, connect, not_run, read_answer_if_whole};

const PAN: &str = "4111111111111111";
/// How long a vault may take to be well again.
const PATIENCE: Duration = Duration::from_secs(20);

/// What comes of an attempt in a program without a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Free {
    /// It comes off.
    Goes,
    /// It comes off, if the program is root's.
    GoesAsRoot,
    /// It comes off: the program is another one now.
    IsReplaced,
    /// It comes off: the program dies and leaves a core.
    LeavesCore,
    /// Kernels differ. Whatever comes of it, no filter did it.
    IsNotFiltered,
}

/// What comes of it in vaultd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confined {
    /// vaultd ends, and the last it says names this system call.
    Ends(&'static str),
    /// vaultd ends by SIGSYS, and nobody but the kernel says why.
    EndsUnheard,
    /// The system refuses it, and for vaultd the HSM has failed.
    IsRefused,
    /// vaultd dies by this signal and leaves no core.
    LeavesNoCore(i32),
    /// It comes off: docs/sandbox.md says so.
    ComesOff,
}

use Confined::{ComesOff, Ends, EndsUnheard, IsRefused, LeavesNoCore};
use Free::{Goes, GoesAsRoot, IsNotFiltered, IsReplaced, LeavesCore};

/// What the module tries, what comes of it where nothing is in its way, and what in vaultd.
const ATTEMPTS: &[(&str, Free, Confined)] = &[
    ("socket-inet", Goes, Ends("socket")),
    ("socket-inet6", Goes, Ends("socket")),
    ("socket-netlink", Goes, Ends("socket")),
    ("socket-packet", GoesAsRoot, Ends("socket")),
    ("thread socket-inet", Goes, Ends("socket")),
    ("in-silence socket-inet", Goes, EndsUnheard),
    ("32-bit-socket", IsNotFiltered, EndsUnheard),
    ("x32-socket", IsNotFiltered, Ends("?")),
    ("bind-abstract", Goes, Ends("bind")),
    ("connect {outside}/socket", Goes, ComesOff),
    ("read /etc/shadow", GoesAsRoot, IsRefused),
    ("read {outside}/secret", Goes, IsRefused),
    ("read /proc/self/root{outside}/secret", Goes, IsRefused),
    ("read {inside}/../../../../../../../../../..{outside}/secret", Goes, IsRefused),
    ("read /proc/{pid}/environ", Goes, IsRefused),
    ("read /proc/{pid}/mem", Goes, IsRefused),
    ("read-openat2 {outside}/secret", Goes, Ends("openat2")),
    ("read-by-handle {outside}/secret", GoesAsRoot, Ends("name_to_handle_at")),
    ("read-reopened {outside}/secret", Goes, IsRefused),
    ("read-by-link {outside}/secret {inside}/link", Goes, Ends("symlinkat")),
    ("hard-link {outside}/secret {inside}/link", Goes, Ends("linkat")),
    ("list {outside}", Goes, IsRefused),
    ("write {outside}/new", Goes, IsRefused),
    ("write {outside}/precious", Goes, IsRefused),
    ("write /etc/{name}", GoesAsRoot, IsRefused),
    ("write-own-memory", Goes, IsRefused),
    ("truncate {outside}/precious", Goes, Ends("truncate")),
    ("remove {outside}/precious", Goes, IsRefused),
    ("rename {outside}/precious {outside}/gone", Goes, IsRefused),
    ("make-directory {outside}/new", Goes, IsRefused),
    ("make-device {outside}/memory", GoesAsRoot, Ends("mknodat")),
    ("make-device {inside}/memory", GoesAsRoot, Ends("mknodat")),
    ("change-mode {outside}/precious", Goes, ComesOff),
    ("change-owner {outside}/precious", Goes, Ends("fchownat")),
    ("give-away {inside}/given", Goes, IsRefused),
    ("change-times {outside}/precious", Goes, Ends("utimensat")),
    ("change-attribute {outside}/precious", Goes, Ends("setxattr")),
    ("fork", Goes, Ends("fork")),
    ("vfork", Goes, Ends("vfork")),
    ("clone", Goes, Ends("clone")),
    ("clone3", Goes, IsRefused),
    ("thread clone", Goes, Ends("clone")),
    ("exec /usr/bin/touch {outside}/new", IsReplaced, Ends("execve")),
    ("execveat /usr/bin/touch {outside}/new", IsReplaced, Ends("execveat")),
    ("trace-me", Goes, Ends("ptrace")),
    ("trace {pid}", Goes, Ends("ptrace")),
    ("read-memory {pid} {address}", Goes, Ends("process_vm_readv")),
    ("write-memory {pid} {address}", Goes, Ends("process_vm_writev")),
    ("kill {pid}", Goes, Ends("kill")),
    ("kill-by-descriptor {pid}", Goes, Ends("pidfd_open")),
    ("take-descriptor {pid}", Goes, Ends("pidfd_open")),
    ("limit-another {pid}", Goes, Ends("prlimit64")),
    ("map-writable-code", Goes, Ends("mmap")),
    ("make-executable", Goes, Ends("mprotect")),
    ("map-memory-file-as-code", Goes, Ends("memfd_create")),
    ("map-file-as-code {inside}/code", Goes, ComesOff),
    ("dumpable", Goes, Ends("prctl")),
    ("core-limit", GoesAsRoot, Ends("prlimit64")),
    ("abort", LeavesCore, LeavesNoCore(libc::SIGABRT)),
    ("write-to-nowhere", LeavesCore, LeavesNoCore(libc::SIGSEGV)),
    ("setuid", GoesAsRoot, Ends("setuid")),
    ("setresuid", GoesAsRoot, Ends("setresuid")),
    ("setgid", GoesAsRoot, Ends("setgid")),
    ("setgroups", GoesAsRoot, Ends("setgroups")),
    ("capset", Goes, Ends("capset")),
    ("mount {outside}/empty", GoesAsRoot, Ends("mount")),
    ("chroot /", GoesAsRoot, Ends("chroot")),
    ("unshare", GoesAsRoot, Ends("unshare")),
    ("setns", GoesAsRoot, Ends("setns")),
    ("bpf", GoesAsRoot, Ends("bpf")),
    ("keyctl", Goes, Ends("keyctl")),
    ("io-uring", GoesAsRoot, Ends("io_uring_setup")),
    ("perf-event", IsNotFiltered, Ends("perf_event_open")),
    ("userfaultfd", IsNotFiltered, Ends("userfaultfd")),
    ("shared-memory", Goes, Ends("shmget")),
    ("kernel-log", GoesAsRoot, Ends("syslog")),
    ("clock", GoesAsRoot, Ends("settimeofday")),
    ("default-sigsys", Goes, Ends("rt_sigaction")),
];

/// What it tries as soon as it is loaded, and as soon as it is called.
const AT_ONCE: [&str; 10] = [
    "socket-inet",
    "read /etc/shadow",
    "read {outside}/secret",
    "write {outside}/new",
    "clone",
    "exec /usr/bin/touch {outside}/new",
    "trace {pid}",
    "core-limit",
    "setuid",
    "kill {pid}",
];

/// Has `pkcs11-tool` initialise the hostile module, in `dir`.
fn in_another_program(order: &str, dir: &Path) -> Output {
    fs::write(dir.join("order"), format!("C_Initialize {order}\n")).unwrap();
    fs::write(dir.join("softhsm2.conf"), format!("directories.tokendir = {}\n", dir.display())).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -c unlimited; exec pkcs11-tool --module \"$0\" --list-slots"]);
    shell.arg(built("libhostile_hsm.so")).current_dir(dir);
    shell.env("HOSTILE_HSM_MODULE", Module::Softhsm2.path()).env("HOSTILE_HSM_ORDER", dir.join("order"));
    shell.env("SOFTHSM2_CONF", dir.join("softhsm2.conf")).output().unwrap()
}

#[test]
fn in_a_program_without_a_sandbox_each_attempt_comes_off() {
    let is_root = geteuid().is_root();
    for (order, free, _) in ATTEMPTS {
        let dir = tempfile::tempdir().unwrap();
        let mut bait = Bait::of(ourselves());
        let output = in_another_program(&bait.order(order, dir.path()), dir.path());
        let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
        match free {
            Goes => assert!(status.success(), "{order}: {status} {said}"),
            GoesAsRoot => assert!(status.success() || !is_root, "{order}: {status} {said}"),
            IsReplaced => assert!(status.success() && !bait.harm().is_empty(), "{order}: {status} {said}"),
            LeavesCore => assert!(status.core_dumped(), "{order}: {status} {said}"),
            IsNotFiltered => {}
        }
        assert_ne!(status.signal(), Some(libc::SIGSYS), "{order}");
    }
}

/// The user and the group of whoever runs the tests.
fn ourselves() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// A vault with a card, whose module is hostile; it is stopped.
struct Besieged {
    vault: Vault,
    token: String,
    owner: (u32, u32),
    kernel: Option<KernelAudit>,
}

impl Besieged {
    /// As `user`; as whoever runs the tests if that is `None`.
    fn new(user: Option<&str>) -> Self {
        let mut vault = Vault::start();
        let answer = vault.request("POST", "/v1/tokenize", &json!({ "pan": PAN }).to_string());
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        assert!(vault.stop().success());
        // Where every user may read it.
        let hostile = vault.path("libhostile_hsm.so");
        fs::copy(built("libhostile_hsm.so"), &hostile).unwrap();
        let (real, order) = (Module::of_this_run().path(), vault.path("order"));
        let (real, order) = (real.display().to_string(), order.display());
        let variables =
            format!("environment = {{ HOSTILE_HSM_MODULE = \"{real}\", HOSTILE_HSM_ORDER = \"{order}\",");
        vault.change_config(|config| {
            config.replace(&real, hostile.to_str().unwrap()).replace("environment = {", &variables)
        });
        let mut owner = ourselves();
        if let Some(user) = user {
            vault.change_config(|config| config.replace("allow_root = true", "allow_root = false"));
            vault.hand_over(user);
            let user = User::from_name(user).unwrap().unwrap();
            owner = (user.uid.as_raw(), user.gid.as_raw());
        }
        let kernel = KernelAudit::listen();
        if kernel.is_none() {
            not_run("what the kernel's audit log says: that takes root, and a kernel that has one");
        } else if !KernelAudit::hears_landlock() {
            not_run("what Landlock says in the kernel's audit log: that takes Linux 6.15");
        }
        Self { vault, token, owner, kernel }
    }

    /// Has the module try `order` from `moment` on.
    fn order(&self, moment: &str, order: &str) {
        fs::write(self.vault.path("order.new"), format!("{moment} {order}\n")).unwrap();
        fs::rename(self.vault.path("order.new"), self.vault.path("order")).unwrap();
    }

    fn call_off(&self) {
        fs::remove_file(self.vault.path("order")).unwrap();
    }

    /// Where the module may write.
    fn inside(&self) -> PathBuf {
        self.vault.path("store")
    }

    /// Asks for the card; `None` if the vault goes away over it.
    fn ask(&self) -> Option<Answer> {
        let mut stream = connect(&self.vault.socket()).ok()?;
        let (jwt, body) = (self.vault.jwt(), json!({ "token": self.token }).to_string());
        let request = format!(
            "POST /v1/detokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).ok()?;
        read_answer_if_whole(&mut stream)
    }

    /// It serves, or does so again soon, and has the card.
    fn assert_well(&self, after: &str) {
        let began = Instant::now();
        loop {
            match self.ask() {
                Some(answer) if answer.status == 200 => {
                    return assert_eq!(answer.json()["pan"], PAN, "{after}");
                }
                answer => assert!(began.elapsed() < PATIENCE, "after {after}: {answer:?}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Lets the module try `order` while a card is decrypted, and compares what comes of it.
    fn suffer(&mut self, order: &str, expected: Confined) {
        let mut bait = Bait::of(self.owner);
        let (logged, pid) = (self.vault.log().len(), self.vault.pid());
        self.kernel.iter().for_each(KernelAudit::forget);
        self.order("C_Decrypt", &bait.order(order, &self.inside()));
        let answer = self.ask();
        let refused = answer.as_ref().is_some_and(|answer| answer.status == 503);
        let status = answer.is_none().then(|| self.vault.wait());
        let (log, harm) = (self.vault.log()[logged..].to_owned(), bait.harm());
        let died_of = |signal| {
            let status = status.unwrap_or_else(|| panic!("{order}: vaultd lives on: {answer:?} {log}"));
            assert_eq!(
                (status.signal(), status.core_dumped()),
                (Some(signal), false),
                "{order}: {status} {log}"
            );
        };
        match expected {
            Ends(call) => {
                died_of(libc::SIGSYS);
                assert!(log.contains(&format!("event=sandbox: the system call {call} (")), "{order}: {log}");
            }
            EndsUnheard => {
                died_of(libc::SIGSYS);
                self.assert_kernel_says(order, pid, "sig=31");
            }
            LeavesNoCore(signal) => {
                died_of(signal);
                self.assert_kernel_says(order, pid, &format!("sig={signal}"));
            }
            IsRefused => {
                assert!(refused, "{order}: {answer:?} {status:?}");
                assert!(
                    log.contains("the HSM is down") && log.contains("CKR_FUNCTION_FAILED"),
                    "{order}: {log}"
                );
                // Of these others think first, and say nothing.
                let is_seccomps = ["clone3", "give-away"].iter().any(|call| order.starts_with(call));
                // What is root's, as is the memory of whoever may not be looked at, nobody else may open anyway.
                let is_roots = ["read /etc/shadow", "write-own-memory"].contains(&order);
                let is_modes = is_roots && self.owner.0 != 0;
                let is_landlocks = !is_seccomps && !is_modes && !order.contains("{pid}");
                if is_landlocks && KernelAudit::hears_landlock() {
                    self.assert_kernel_says(order, pid, "blockers=");
                }
            }
            ComesOff => assert!(answer.is_some_and(|answer| answer.status == 200), "{order}: {log}"),
        }
        assert!(harm.is_empty() || expected == ComesOff, "{order}: {harm:?}");
        self.call_off();
        if status.is_some() {
            self.vault.restart();
        }
        self.assert_well(order);
    }

    fn assert_kernel_says(&self, order: &str, pid: u32, what: &str) {
        if let Some(kernel) = &self.kernel {
            let pattern = [what, &format!(" pid={pid} ")];
            assert!(kernel.says(&pattern), "{order}: the kernel's audit log has nothing of {what}");
        }
    }

    /// Lets the module try `order` at `moment`, while vaultd starts, and says how that ended.
    fn start(&mut self, moment: &str, order: &str) -> (ExitStatus, String) {
        let mut bait = Bait::of(self.owner);
        self.order(moment, &bait.order(order, &self.inside()));
        let output = self.vault.run_to_its_end();
        assert_eq!(bait.harm(), [""; 0], "{moment} {order}");
        self.call_off();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn whatever_it_tries(user: Option<&str>) {
    let mut besieged = Besieged::new(user);
    besieged.vault.restart();
    besieged.assert_well("nothing");
    for (order, _, confined) in ATTEMPTS {
        besieged.suffer(order, *confined);
    }
}

fn whatever_it_tries_first(user: Option<&str>) {
    let mut besieged = Besieged::new(user);
    for moment in ["load", "C_Initialize"] {
        for order in AT_ONCE {
            let (_, _, expected) = ATTEMPTS.iter().find(|(known, ..)| *known == order).unwrap();
            let (status, said) = besieged.start(moment, order);
            if let Ends(call) = expected {
                assert_eq!(status.signal(), Some(libc::SIGSYS), "{moment} {order}: {said}");
                assert!(
                    said.contains(&format!("event=sandbox: the system call {call} (")),
                    "{order}: {said}"
                );
            } else {
                assert_eq!(status.code(), Some(1), "{moment} {order}: {said}");
                assert!(said.contains("vaultd: ") && said.contains("libhostile_hsm.so"), "{order}: {said}");
            }
        }
    }
    besieged.vault.restart();
    besieged.assert_well("everything");
}

#[test]
fn in_vaultd_it_gets_nowhere() {
    whatever_it_tries(None);
}

#[test]
fn in_a_vaultd_that_was_root_it_gets_nowhere() {
    if Vault::can_be_handed_over() {
        whatever_it_tries(Some("nobody"));
    }
}

#[test]
fn while_vaultd_starts_it_gets_nowhere() {
    whatever_it_tries_first(None);
}

#[test]
fn while_a_vaultd_starts_that_was_root_it_gets_nowhere() {
    if Vault::can_be_handed_over() {
        whatever_it_tries_first(Some("nobody"));
    }
}
