//! Who may log in: the configured rules, with the system's user and group ids.

use std::os::unix::net::UnixStream;

use nix::unistd::{Group, User};

use super::CommandError;
use crate::{auth::PeerRule, config::Config, sandbox::peer_process};

/// The rules of `config`, each name looked up.
pub(super) fn resolve(config: &Config) -> Result<Vec<PeerRule>, CommandError> {
    if let Some(peer) = config.peers.iter().find(|peer| peer.rule.unit.is_some())
        && let Err(error) = UnixStream::pair().and_then(|(ours, _theirs)| peer_process(ours))
    {
        // Such a rule would fit nobody, and nothing would say why.
        let why = format!(
            "{:?}: unit needs a kernel that tells which process is behind a socket, Linux 6.5 or later: {error}",
            peer.rule.name
        );
        return Err(CommandError::new("auth.peers", why));
    }
    config
        .peers
        .iter()
        .map(|peer| {
            let mut rule = peer.rule.clone();
            let missing = |kind: &str, name: &str| {
                let why = format!("{:?}: there is no {kind} {name:?} on this system", rule.name);
                CommandError::new("auth.peers", why)
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
