//! Who may log in: the configured rules, with the system's user and group ids.

use std::{collections::BTreeMap, os::unix::net::UnixStream};

use nix::unistd::{Group, User};

use super::CommandError;
use crate::{auth::PeerRule, config::Config, sandbox::peer_process};

/// The names of the rules of the start, with their ids. Tools that add a user replace `/etc/passwd` and `/etc/group`, and a
/// confined daemon cannot open the new ones: a reload, which may be to withdraw an issuer, must not depend on that.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
}

impl Names {
    /// The names in `config`, whose rules are `rules`.
    pub(super) fn of(config: &Config, rules: &[PeerRule]) -> Self {
        let mut names = Self::default();
        for (peer, rule) in config.peers.iter().zip(rules) {
            names.users.extend(peer.user.clone().zip(rule.uid));
            names.groups.extend(peer.group.clone().zip(rule.gid));
        }
        names
    }
}

/// The rules of `config`, each name looked up, and taken from `started` where that does not find it. Without `started` it is
/// the start.
pub(super) fn resolve(config: &Config, started: Option<&Names>) -> Result<Vec<PeerRule>, CommandError> {
    if let Some(number) = config.peers.iter().position(|peer| peer.rule.unit.is_some())
        && let Err(error) = UnixStream::pair().and_then(|(ours, _theirs)| peer_process(ours))
    {
        // Such a rule would fit nobody, and nothing would say why.
        let why = format!(
            "needs a kernel that tells which process is behind a socket, Linux 6.5 or later: {error}"
        );
        return Err(config.objection(&format!("auth.peers.{number}.unit"), why).into());
    }
    config
        .peers
        .iter()
        .enumerate()
        .map(|(number, peer)| {
            let mut rule = peer.rule.clone();
            let missing = |kind: &str, name: &str| {
                let hint = started.map_or("", |_| {
                    ", or it was made after vaultd had started, which cannot see it: name it by its number, or restart"
                });
                let why = format!("there is no {kind} {name:?} on this system{hint}");
                config.objection(&format!("auth.peers.{number}.{kind}"), why)
            };
            if let Some(name) = &peer.user {
                let found = User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
                let known = || started?.users.get(name).copied();
                rule.uid = Some(found.or_else(known).ok_or_else(|| missing("user", name))?);
            }
            if let Some(name) = &peer.group {
                let found = Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
                let known = || started?.groups.get(name).copied();
                rule.gid = Some(found.or_else(known).ok_or_else(|| missing("group", name))?);
            }
            Ok(rule)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_name_that_cannot_be_looked_up_any_more_is_that_of_the_start() {
        let text = |name: &str| {
            format!(
                r#"
                [server]
                socket = "/run/v/vaultd.sock"
                admin_socket = "/run/v/admin.sock"
                [hsm]
                module = "/m.so"
                token_label = "t"
                pin_file = "/pin"
                [store]
                dir = "/s"
                [audit]
                dir = "/a"
                [auth]
                audience = "vaultd"
                [[auth.peers]]
                name = "checkout"
                user = "{name}"
                group = "{name}"
                tenant = "shop"
                scopes = ["tokenize"]
                "#
            )
        };
        let config = |name: &str| Config::parse(Path::new("vaultd.toml"), &text(name)).unwrap();
        let gone = config("no-such-name");
        assert!(resolve(&gone, None).is_err());
        let names = Names {
            users: [("no-such-name".to_owned(), 4_001)].into(),
            groups: [("no-such-name".to_owned(), 4_002)].into(),
        };
        let rules = resolve(&gone, Some(&names)).unwrap();
        assert_eq!((rules[0].uid, rules[0].gid), (Some(4_001), Some(4_002)));
        let other = resolve(&config("no-other-name"), Some(&names)).unwrap_err().to_string();
        assert!(other.contains("no-other-name") && other.contains("restart"), "{other}");

        let root = config("root");
        let rules = resolve(&root, None).unwrap();
        let names = Names::of(&root, &rules);
        assert_eq!((names.users["root"], names.groups["root"]), (0, 0));
    }
}
