//! Started as root by hand, vaultd ends in the state that systemd would have started it in, or says why it does not.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    process::{Command, Output},
};

use nix::unistd::{Group, User};
use vault_tests::Vault;

const USER: &str = "nobody";
/// Whose the API's socket is, and a user who is in no such group.
const CLIENTS: &str = "users";
const STRANGER: &str = "daemon";
const SOCKETS_AND_LOCKS: [&str; 4] = ["vaultd.sock", "vaultd.sock.lock", "admin.sock", "admin.sock.lock"];

/// A vault that is stopped and belongs to [`USER`]; `None` if there can be none.
fn handed_over() -> Option<Vault> {
    if !Vault::can_be_handed_over() {
        return None;
    }
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault.change_config(|config| {
        let clients = format!("[server]\nsocket_group = \"{CLIENTS}\"\n");
        config.replace("allow_root = true", "allow_root = false").replace("[server]\n", &clients)
    });
    vault.hand_over(USER);
    // Clients pass through it to the socket.
    fs::set_permissions(vault.path(""), Permissions::from_mode(0o711)).unwrap();
    Some(vault)
}

/// What the kernel says of each thread of the daemon that bears on what it may do, and of its limits.
fn state(vault: &Vault) -> BTreeMap<String, String> {
    let process = format!("/proc/{}", vault.pid());
    let mut state = BTreeMap::new();
    for thread in fs::read_dir(format!("{process}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for line in status.lines() {
            let (name, value) = line.split_once(':').unwrap();
            if FIELDS.contains(&name) {
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                let known = state.entry(name.to_owned()).or_insert_with(|| value.clone());
                assert_eq!(*known, value, "{name}: threads differ");
            }
        }
    }
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    for name in ["Max core file size", "Max locked memory"] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let values: Vec<_> = line[name.len()..].split_whitespace().take(2).collect();
        state.insert(name.to_owned(), values.join(" "));
    }
    let owner = fs::metadata(format!("{process}/environ")).unwrap().uid();
    state.insert("owner in /proc".to_owned(), owner.to_string());
    let filter = fs::read_to_string(format!("{process}/coredump_filter")).unwrap();
    state.insert("coredump_filter".to_owned(), filter.trim().to_owned());
    state
}

const FIELDS: [&str; 12] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Umask",
];

/// Descriptors of the process that a program it started would inherit, but for input, output and errors.
fn inheritable(process: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // The one this directory is read by is closed by now.
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let closes = u32::from_str_radix(flags, 8).unwrap() & nix::libc::O_CLOEXEC.cast_unsigned() != 0;
        if number > 2 && !closes {
            found.insert(fs::read_link(format!("/proc/{process}/fd/{number}")).unwrap());
        }
    }
    found
}

#[test]
fn by_hand_it_ends_as_under_systemd() {
    let Some(mut vault) = handed_over() else { return };
    vault.restart();
    let by_hand = state(&vault);
    let handed_on = inheritable("self");
    let open = inheritable(&vault.pid().to_string());
    assert!(open.is_subset(&handed_on), "{open:?}, of which the tests have {handed_on:?}");
    assert!(vault.stop().success());
    assert!(!vault.socket().exists(), "its own socket is removed by the user it became");

    // As User=, CapabilityBoundingSet=, NoNewPrivileges= and LimitCORE= have it.
    let user = User::from_name(USER).unwrap().unwrap();
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    let locked = by_hand["Max locked memory"].split(' ').next().unwrap();
    let locked = if locked == "unlimited" { "--memlock=unlimited" } else { "--memlock" };
    let mut systemd = vec!["prlimit", "--core=0"];
    if locked.contains('=') {
        systemd.push(locked);
    }
    systemd.extend(["setpriv", "--reuid", &uid, "--regid", &gid, "--init-groups", "--inh-caps=-all"]);
    systemd.extend(["--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]);
    vault.change_config(|config| config.replace(&format!("socket_group = \"{CLIENTS}\"\n"), ""));
    vault.restart_through(&systemd);
    let under_systemd = state(&vault);
    eprintln!("{by_hand:#?}");
    assert_eq!(by_hand, under_systemd);

    let none = "0000000000000000";
    for (name, value) in [
        ("Uid", [uid.as_str(); 4].join(" ")),
        ("Gid", [gid.as_str(); 4].join(" ")),
        ("Groups", gid.clone()),
        ("CapInh", none.to_owned()),
        ("CapPrm", none.to_owned()),
        ("CapEff", none.to_owned()),
        ("CapBnd", none.to_owned()),
        ("CapAmb", none.to_owned()),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("Umask", "0077".to_owned()),
        ("Max core file size", "0 0".to_owned()),
        ("owner in /proc", "0".to_owned()),
        ("coredump_filter", "00000000".to_owned()),
    ] {
        assert_eq!(by_hand[name], value, "{name}");
    }
}

#[test]
fn the_clients_group_is_let_in_and_nobody_else() {
    let Some(mut vault) = handed_over() else { return };
    vault.restart();
    let (user, group) =
        (User::from_name(USER).unwrap().unwrap(), Group::from_name(CLIENTS).unwrap().unwrap());
    let socket = fs::metadata(vault.socket()).unwrap();
    assert_eq!(
        (socket.uid(), socket.gid(), socket.mode() & 0o777),
        (user.uid.as_raw(), group.gid.as_raw(), 0o660)
    );
    let admin = fs::metadata(vault.path("admin.sock")).unwrap();
    assert_eq!(
        (admin.uid(), admin.gid(), admin.mode() & 0o777),
        (user.uid.as_raw(), user.gid.as_raw(), 0o600)
    );
    for (group, door, is_let_in) in
        [(CLIENTS, "vaultd.sock", true), (STRANGER, "vaultd.sock", false), (CLIENTS, "admin.sock", false)]
    {
        let mut curl = Command::new("setpriv");
        curl.args(["--reuid", STRANGER, "--regid", group, "--clear-groups", "--inh-caps=-all"]);
        curl.args(["curl", "-sS", "--max-time", "20", "--unix-socket"]).arg(vault.path(door));
        let output = curl.arg("http://localhost/healthz").output().unwrap();
        assert_eq!(output.status.success(), is_let_in, "{group} at {door}: {output:?}");
    }
}

#[test]
fn in_a_directory_of_roots_it_starts_again() {
    let Some(mut vault) = handed_over() else { return };
    let sockets = tempfile::tempdir().unwrap();
    fs::set_permissions(sockets.path(), Permissions::from_mode(0o755)).unwrap();
    let (own, roots) = (vault.path("").display().to_string(), sockets.path().display().to_string());
    vault.change_config(|config| {
        let is_moved = |line: &str| line.contains("socket = ");
        let moved = |line: &str| line.replace(own.trim_end_matches('/'), &roots);
        let lines = config.lines().map(|line| if is_moved(line) { moved(line) } else { line.to_owned() });
        lines.collect::<Vec<_>>().join("\n")
    });
    // The user it becomes may not remove them.
    for _ in 0..2 {
        vault.restart();
        assert!(sockets.path().join("vaultd.sock").exists());
        assert!(vault.stop().success());
    }
}

#[test]
fn it_is_led_to_no_file_of_anothers() {
    let Some(mut vault) = handed_over() else { return };
    let (precious, lock) = (vault.path("precious"), vault.path("vaultd.sock.lock"));
    fs::write(&precious, "precious").unwrap();
    fs::remove_file(&lock).unwrap();
    let owner = fs::metadata(&precious).unwrap().uid();
    let lead: [fn(&PathBuf, &PathBuf); 2] = [
        |to, from| std::os::unix::fs::symlink(to, from).unwrap(),
        |to, from| fs::hard_link(to, from).unwrap(),
    ];
    for lead in lead {
        lead(&precious, &lock);
        let said = refusal(&vault.run_with(&["serve", "--user", USER]), 1);
        assert!(said.contains("vaultd.sock.lock"), "{said}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::metadata(&precious).unwrap().uid(), owner);
        fs::remove_file(&lock).unwrap();
    }
    vault.restart();
}

/// The one line that a start ends with that came to nothing.
#[track_caller]
fn refusal(output: &Output, status: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("vaultd:")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].to_owned()
}

#[test]
fn it_does_not_serve_as_root_nor_as_nobody_there_is() {
    let Some(mut vault) = handed_over() else { return };
    for lock in SOCKETS_AND_LOCKS {
        let _ = fs::remove_file(vault.path(lock));
    }
    assert!(refusal(&vault.run("serve"), 1).contains("does not serve as root: start it with --user"));
    for (user, says) in [("no-such-user", "no such user"), ("root", "is root")] {
        let said = refusal(&vault.run_with(&["serve", "--user", user]), 2);
        assert!(said.contains(user) && said.contains(says), "{said}");
    }
    let mut unprivileged = Command::new("setpriv");
    unprivileged.args(["--reuid", USER, "--regid", "nogroup", "--clear-groups"]);
    let copy = vault.copy_of_vaultd();
    unprivileged.arg(copy).args(["serve", "--user", STRANGER, "--config"]).arg(vault.path("vaultd.toml"));
    assert!(refusal(&unprivileged.output().unwrap(), 2).contains("only root can become another user"));
    for left in SOCKETS_AND_LOCKS {
        assert!(!vault.path(left).exists(), "{left} is left of a start that came to nothing");
    }
    vault.restart();
}
