//! A hostile PKCS#11 module inside vaultd: whatever it tries fails, nothing outside is touched, and the log says so.
//!
//! The same attempts come off in a program that has no sandbox, so that it is the sandbox that stops them.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output},
};

use nix::unistd::geteuid;
use vault_tests::{Bait, Module, built};

/// Where a process is that tried something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Free {
    /// It goes on as if nothing had happened.
    Goes,
    /// It goes on, if it is root's.
    GoesAsRoot,
    /// It is another program now, or has ended by itself.
    Ends,
    /// It has died and left a core.
    Dies,
    /// This kernel has no such thing, or it was refused for a reason of its own: enough that no filter did it.
    IsNotFiltered,
}

/// What the module tries, and what comes of it where nothing is in its way.
const ATTEMPTS: &[(&str, Free)] = &[
    ("socket-inet", Free::Goes),
    ("socket-inet6", Free::Goes),
    ("socket-netlink", Free::Goes),
    ("socket-packet", Free::GoesAsRoot),
    ("thread socket-inet", Free::Goes),
    ("in-silence socket-inet", Free::Goes),
    ("32-bit-socket", Free::IsNotFiltered),
    ("x32-socket", Free::IsNotFiltered),
    ("bind-abstract", Free::Goes),
    ("connect {outside}/socket", Free::Goes),
    ("read /etc/shadow", Free::GoesAsRoot),
    ("read {outside}/secret", Free::Goes),
    ("read /proc/self/root{outside}/secret", Free::Goes),
    ("read {inside}/../../../../../../../../../..{outside}/secret", Free::Goes),
    ("read /proc/{pid}/environ", Free::Goes),
    ("read /proc/{pid}/mem", Free::Goes),
    ("read-openat2 {outside}/secret", Free::Goes),
    ("read-by-handle {outside}/secret", Free::GoesAsRoot),
    ("read-reopened {outside}/secret", Free::Goes),
    ("read-by-link {outside}/secret {inside}/link", Free::Goes),
    ("hard-link {outside}/secret {inside}/link", Free::Goes),
    ("list {outside}", Free::Goes),
    ("write {outside}/new", Free::Goes),
    ("write {outside}/precious", Free::Goes),
    ("write /etc/hostile-hsm", Free::GoesAsRoot),
    ("truncate {outside}/precious", Free::Goes),
    ("remove {outside}/precious", Free::Goes),
    ("rename {outside}/precious {outside}/gone", Free::Goes),
    ("make-directory {outside}/new", Free::Goes),
    ("make-device {outside}/memory", Free::GoesAsRoot),
    ("make-device {inside}/memory", Free::GoesAsRoot),
    ("change-mode {outside}/precious", Free::Goes),
    ("change-owner {outside}/precious", Free::Goes),
    ("change-times {outside}/precious", Free::Goes),
    ("change-attribute {outside}/precious", Free::Goes),
    ("fork", Free::Goes),
    ("vfork", Free::Goes),
    ("clone", Free::Goes),
    ("clone3", Free::Goes),
    ("thread clone", Free::Goes),
    ("exec /usr/bin/touch {outside}/new", Free::Ends),
    ("execveat /usr/bin/touch {outside}/new", Free::Ends),
    ("trace-me", Free::Goes),
    ("trace {pid}", Free::Goes),
    ("read-memory {pid} {address}", Free::Goes),
    ("write-memory {pid} {address}", Free::Goes),
    ("kill {pid}", Free::Goes),
    ("kill-by-descriptor {pid}", Free::Goes),
    ("take-descriptor {pid}", Free::Goes),
    ("limit-another {pid}", Free::Goes),
    ("map-writable-code", Free::Goes),
    ("make-executable", Free::Goes),
    ("map-memory-file-as-code", Free::Goes),
    ("map-file-as-code {inside}/code", Free::Goes),
    ("dumpable", Free::Goes),
    ("core-limit", Free::GoesAsRoot),
    ("abort", Free::Dies),
    ("write-to-nowhere", Free::Dies),
    ("setuid", Free::GoesAsRoot),
    ("setresuid", Free::GoesAsRoot),
    ("setgid", Free::GoesAsRoot),
    ("setgroups", Free::GoesAsRoot),
    ("capset", Free::Goes),
    ("mount {outside}/empty", Free::GoesAsRoot),
    ("chroot /", Free::GoesAsRoot),
    ("unshare", Free::GoesAsRoot),
    ("setns", Free::GoesAsRoot),
    ("bpf", Free::GoesAsRoot),
    ("keyctl", Free::Goes),
    ("io-uring", Free::GoesAsRoot),
    ("perf-event", Free::IsNotFiltered),
    ("userfaultfd", Free::IsNotFiltered),
    ("shared-memory", Free::Goes),
    ("kernel-log", Free::GoesAsRoot),
    ("clock", Free::GoesAsRoot),
    ("default-sigsys", Free::Goes),
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
    for (order, outcome) in ATTEMPTS {
        let dir = tempfile::tempdir().unwrap();
        let mut bait = Bait::of(geteuid().as_raw());
        let output = in_another_program(&bait.order(order, dir.path()), dir.path());
        let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
        let etc = fs::remove_file("/etc/hostile-hsm").is_ok();
        assert_eq!(etc, is_root && order.contains("/etc/hostile-hsm"), "{order}");
        eprintln!("{order:<60} {status} {:?}", bait.harm());
        match outcome {
            Free::Goes => assert!(status.success(), "{order}: {status} {said}"),
            Free::GoesAsRoot => assert!(status.success() || !is_root, "{order}: {status} {said}"),
            Free::Ends => assert!(status.success() && !bait.harm().is_empty(), "{order}: {status} {said}"),
            Free::Dies => assert!(status.core_dumped(), "{order}: {status} {said}"),
            Free::IsNotFiltered => {}
        }
        assert_ne!(status.signal(), Some(nix::libc::SIGSYS), "{order}");
    }
}
