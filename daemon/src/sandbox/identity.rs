//! Who the process is: it gives up root and every privilege, and makes sure that they are gone for good.

use caps::{CapSet, runtime};
use nix::{
    sys::prctl,
    unistd::{
        Gid, Uid, User, getegid, geteuid, getgrouplist, getresgid, getresuid, setgroups, setresgid, setresuid,
    },
};

/// Why the process may not serve as who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody said who it should be.
    #[error(
        "vaultd does not serve as root: start it with --user NAME, or by its systemd unit (for development alone: \
         sandbox.allow_root = true)"
    )]
    Root,
    /// There is no such user.
    #[error("--user {0}: the system knows no such user")]
    NoUser(String),
    /// The user is root.
    #[error("--user {0}: is root, who may not serve; name a user that has no privileges")]
    RootByName(String),
    /// Only root can become somebody else.
    #[error("--user {0}: only root can become another user; start vaultd as {0}, or as root")]
    NotRoot(String),
    /// A system call failed.
    #[error("cannot give up privileges: {step}: {why}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        why: String,
    },
    /// A privilege is still there.
    #[error("privileges are not gone: {0}")]
    Left(&'static str),
}

/// A user that the process is to become.
#[derive(Clone, Debug)]
pub struct Identity {
    name: std::ffi::CString,
    uid: Uid,
    gid: Gid,
}

impl Identity {
    /// The user with this name in the system's user database, whom the process can become or is already.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of(name: &str) -> Result<Self, IdentityError> {
        let unknown = || IdentityError::NoUser(name.to_owned());
        let user = User::from_name(name).map_err(failed("the user database"))?.ok_or_else(unknown)?;
        if user.uid.is_root() {
            return Err(IdentityError::RootByName(name.to_owned()));
        }
        if !geteuid().is_root() && user.uid != geteuid() {
            return Err(IdentityError::NotRoot(name.to_owned()));
        }
        let name = std::ffi::CString::new(user.name).map_err(|_| unknown())?;
        Ok(Self { name, uid: user.uid, gid: user.gid })
    }

    /// Its user id and its first group's id.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }
}

/// Makes the process `identity`'s if it is root, takes every privilege from it, and verifies that none is left and that
/// none comes back. To be called while there is one thread.
///
/// # Errors
/// [`IdentityError`]; the process must not go on then.
pub fn drop_privileges(identity: Option<&Identity>, may_be_root: bool) -> Result<(), IdentityError> {
    match identity {
        Some(identity) if geteuid().is_root() => {
            // First, as it takes a capability that goes with the user id.
            empty_bounding_set()?;
            become_user(identity)?;
        }
        None if geteuid().is_root() => {
            refuse_root(identity, may_be_root)?;
            tracing::warn!("serving as root, which sandbox.allow_root is for: for development only");
            empty_bounding_set()?;
        }
        Some(_) | None => {}
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        // Where systemd has emptied it already, its filter may forbid to do it again.
        if !caps::read(None, set).map_err(failed("reading capabilities"))?.is_empty() {
            caps::clear(None, set).map_err(failed("clearing capabilities"))?;
        }
    }
    prctl::set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"))?;
    // Becoming another user may have undone it (prctl(2), `fs.suid_dumpable`).
    prctl::set_dumpable(false).map_err(failed("PR_SET_DUMPABLE"))?;
    verify(may_be_root && identity.is_none())
}

/// Refuses to go on as root, unless `identity` is to be assumed or root is allowed.
///
/// # Errors
/// [`IdentityError::Root`].
pub fn refuse_root(identity: Option<&Identity>, may_be_root: bool) -> Result<(), IdentityError> {
    let refused = identity.is_none() && geteuid().is_root() && !may_be_root;
    if refused { Err(IdentityError::Root) } else { Ok(()) }
}

fn become_user(identity: &Identity) -> Result<(), IdentityError> {
    let groups = getgrouplist(&identity.name, identity.gid).map_err(failed("getgrouplist"))?;
    setgroups(&groups).map_err(failed("setgroups"))?;
    setresgid(identity.gid, identity.gid, identity.gid).map_err(failed("setresgid"))?;
    setresuid(identity.uid, identity.uid, identity.uid).map_err(failed("setresuid"))
}

fn empty_bounding_set() -> Result<(), IdentityError> {
    for capability in runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability).map_err(failed("the capability bounding set"))?;
    }
    Ok(())
}

/// Whatever started the process, this is how it must be.
fn verify(may_be_root: bool) -> Result<(), IdentityError> {
    let (uids, gids) = (getresuid().map_err(failed("getresuid"))?, getresgid().map_err(failed("getresgid"))?);
    let (uid, gid) = (geteuid(), getegid());
    if [uids.real, uids.saved] != [uid; 2] || [gids.real, gids.saved] != [gid; 2] {
        return Err(IdentityError::Left("real, effective and saved ids differ"));
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        if !caps::read(None, set).map_err(failed("reading capabilities"))?.is_empty() {
            return Err(IdentityError::Left("the process has capabilities"));
        }
    }
    if prctl::get_dumpable().map_err(failed("PR_GET_DUMPABLE"))? {
        return Err(IdentityError::Left("its memory can be dumped"));
    }
    if !prctl::get_no_new_privs().map_err(failed("PR_GET_NO_NEW_PRIVS"))? {
        return Err(IdentityError::Left("no_new_privs is not set"));
    }
    if !may_be_root {
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        if gid == group {
            return Err(IdentityError::Left("its group is root's"));
        }
        if setresuid(user, user, user).is_ok() || setresgid(group, group, group).is_ok() {
            return Err(IdentityError::Left("the process can become root again"));
        }
    }
    if !caps::read(None, CapSet::Bounding).map_err(failed("reading capabilities"))?.is_empty() {
        tracing::info!(
            "the capability bounding set is not empty; no_new_privs makes that harmless, and CapabilityBoundingSet= in \
             the unit ends it"
        );
    }
    Ok(())
}

fn failed<E: ToString>(step: &'static str) -> impl Fn(E) -> IdentityError {
    move |error| IdentityError::Failed { step, why: error.to_string() }
}
