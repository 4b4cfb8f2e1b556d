//! The clients of one run, as environment and options say.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use vault_client::{Admin, ClientBuilder, VaultClient};
use zeroize::Zeroizing;

use crate::{arguments::Common, complaint::Complaint, input, output::Output};

/// What every command has: its clients and where it writes.
pub(crate) struct Session {
    vault: VaultClient,
    admin_socket: Option<PathBuf>,
    /// The second JWT, if there is one.
    approval: Option<SecretString>,
    pub(crate) output: Output,
}

impl Session {
    /// Reads options, environment and files; connects to nothing.
    pub(crate) fn new(common: Common) -> Result<Self, Complaint> {
        let mut builder = ClientBuilder::from_env()?.timeout(Duration::from_secs(common.timeout));
        if let Some(socket) = common.socket {
            builder = builder.socket(socket);
        }
        if let Some(path) = common.token_file {
            builder = if input::is_stream(&path) {
                builder.token(input::jwt_file(&path)?)
            } else {
                builder.token_file(path)
            };
        }
        let approval = match common.approval_file {
            Some(path) => Some(input::jwt_file(&path)?),
            None => approval_from_env()?,
        };
        let (vault, output) = (builder.build()?, Output::new(common.json)?);
        Ok(Self { vault, admin_socket: common.admin_socket, approval, output })
    }

    /// The client of the API's socket.
    pub(crate) fn vault(&self) -> Result<VaultClient, Complaint> {
        Ok(match &self.approval {
            Some(approval) => self.vault.approved(approval)?,
            None => self.vault.clone(),
        })
    }

    /// The client of the admin socket.
    pub(crate) fn admin(&self) -> Result<Admin, Complaint> {
        let admin = match &self.admin_socket {
            Some(socket) => self.vault.admin(socket)?,
            None => self.vault.admin_from_env()?,
        };
        Ok(match &self.approval {
            Some(approval) => admin.approved(approval)?,
            None => admin,
        })
    }
}

/// The second JWT of the environment; an empty variable counts as none.
fn approval_from_env() -> Result<Option<SecretString>, Complaint> {
    let Some(approval) = std::env::var_os("VAULT_APPROVAL") else { return Ok(None) };
    let approval = approval.into_string().map(Zeroizing::new);
    let approval = approval.map_err(|_| Complaint::Failed("VAULT_APPROVAL is not UTF-8".to_owned()))?;
    Ok(Some(approval.trim()).filter(|approval| !approval.is_empty()).map(SecretString::from))
}
