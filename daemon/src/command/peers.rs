//! Who may log in: the configured rules, with the system's user and group ids.

use std::os::unix::net::UnixStream;

use nix::unistd::{Group, User};

use super::CommandError;
use crate::{auth::PeerRule, config::Config, sandbox::peer_process};

/// The rules of `config`, each name looked up.
pub(super) fn resolve(config: &Config) -> Result<Vec<PeerRule>, CommandError> {
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
                let why = format!("there is no {kind} {name:?} on this system");
                config.objection(&format!("auth.peers.{number}.{kind}"), why)
            };
            if let Some(name) = &peer.user {
                let user = User::from_name(name).ok().flatten().ok_or_else(|| missing("user", name))?;
                rule.uid = Some(user.uid.as_raw());
            }
            if let Some(name) = &peer.group {
                let group = Group::from_name(name).ok().flatten().ok_or_else(|| missing("group", name))?;
                rule.gid = Some(group.gid.as_raw());
            }
            Ok(rule)
        })
        .collect()
}
