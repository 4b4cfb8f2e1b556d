//! What of the file system the daemon needs: what the configuration names, what its module reads, and no more.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    config::{Config, Seccomp},
    sandbox::{Confinement, OnViolation, View},
};

/// Libraries of the module, and how they are found.
const LIBRARIES: [&str; 7] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/ld.so.preload"];
/// What the C library and cryptographic libraries read: users for `[[auth.peers]]`, time zones, settings, randomness; and how
/// many processors there are, and how much of them is given out.
const SYSTEM: [&str; 13] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pkcs11",
    "/dev/urandom",
    "/dev/random",
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];
/// Names of hosts.
const NETWORK: [&str; 6] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
];

/// How the daemon with `config` is confined.
pub(super) fn confinement(config: &Config) -> Confinement {
    let sandbox = &config.sandbox;
    let mut read: Vec<PathBuf> = LIBRARIES.iter().chain(&SYSTEM).map(PathBuf::from).collect();
    if sandbox.network {
        read.extend(NETWORK.map(PathBuf::from));
    }
    // Files that are read anew are replaced by others of the same name, so that it takes their directories.
    read.extend(directories(&config.path));
    read.extend(config.issuers.iter().flat_map(|issuer| directories(&issuer.keys)));
    // A module brings libraries of its own.
    read.extend(directories(&config.hsm.library.path));
    // The module is told the PIN in any case.
    read.extend(config.hsm.pin_file.clone());
    read.extend(config.hsm.environment.values().map(PathBuf::from).filter(|path| path.is_file()));
    read.extend_from_slice(&sandbox.read);
    let mut write = vec![config.store.dir.clone(), config.audit.dir.clone()];
    if let Some((conf, tokens)) = softhsm(config) {
        read.push(conf);
        write.push(tokens);
    }
    write.extend_from_slice(&sandbox.write);
    let sockets = [&config.server.socket.path, &config.server.admin_socket.path];
    Confinement {
        view: View { read, write, remove: sockets.into_iter().flat_map(|path| directories(path)).collect() },
        network: sandbox.network,
        on_violation: match sandbox.seccomp {
            Seccomp::Enforce => OnViolation::End,
            Seccomp::Log => OnViolation::Log,
        },
        require: sandbox.require,
    }
}

/// The directories of `path` and of what it leads to, if it is a link.
fn directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    let ends = [std::path::absolute(path), fs::canonicalize(path)];
    ends.into_iter().flatten().filter_map(|path| path.parent().map(Path::to_owned))
}

/// SoftHSM2's configuration, and the directory of its tokens, to which it writes at each login: other modules are told where
/// theirs are by `[hsm]` and `[sandbox]`, it has places of its own.
fn softhsm(config: &Config) -> Option<(PathBuf, PathBuf)> {
    const VARIABLE: &str = "SOFTHSM2_CONF";
    const USUAL: [&str; 2] = ["/etc/softhsm/softhsm2.conf", "/etc/softhsm2.conf"];
    let environment = &config.hsm.environment;
    let set = environment.get(VARIABLE).map(OsString::from).or_else(|| std::env::var_os(VARIABLE));
    let module = config.hsm.library.path.to_string_lossy();
    let is_softhsm = |path: &str| path.contains("softhsm");
    let path = match set {
        Some(set) => PathBuf::from(set),
        None if is_softhsm(&module) || environment.values().any(|value| is_softhsm(value)) => {
            USUAL.iter().map(PathBuf::from).find(|path| path.exists())?
        }
        None => return None,
    };
    let text = fs::read_to_string(&path).ok()?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "directories.tokendir").then(|| value.trim())
    });
    Some((path, PathBuf::from(value?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_file_and_directory() {
        const LIST: &str = include_str!("../../../docs/sandbox.md");
        let (always, network) = LIST.split_once("\n## With `network").unwrap();
        for (section, paths) in [(always, LIBRARIES.as_slice()), (always, &SYSTEM), (network, &NETWORK)] {
            for path in paths {
                assert!(section.contains(&format!("`{path}`")), "{path}");
            }
        }
    }
}
