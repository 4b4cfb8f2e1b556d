//! `vaultctl status` and `reload`.

use vault_client::Status;
use zeroize::Zeroizing;

use super::{keys, rewrap};
use crate::{
    complaint::Complaint,
    session::Session,
    table::{Table, details, or_dash},
    time,
};

/// Shows how the vault is.
pub(crate) async fn status(session: &Session) -> Result<(), Complaint> {
    let status = session.admin()?.status().await?;
    session.output.answer(&status, text)
}

/// Has issuers and peers read anew.
pub(crate) async fn reload(session: &Session) -> Result<(), Complaint> {
    let reloaded = session.admin()?.reload().await?;
    session.output.answer(&reloaded, |reloaded| {
        details([
            ("issuers", Some(reloaded.issuers.to_string())),
            ("peers", Some(reloaded.peers.to_string())),
        ])
    })
}

fn text(status: &Status) -> Zeroizing<String> {
    let mut checks = Table::new(["CHECK", "OK", "DETAIL"]);
    for (name, check) in &status.checks {
        let ok = if check.ok { "yes" } else { "NO" };
        checks.row([name.clone(), ok.to_owned(), or_dash(check.detail.as_deref())]);
    }
    let head = details([
        ("version", Some(status.version.clone())),
        ("uptime", Some(time::short(status.uptime))),
        ("ready", Some(if status.ready { "yes" } else { "NO" }.to_owned())),
        ("records", Some(status.records.to_string())),
        ("rewrap", Some(rewrap::line(&status.rewrap))),
    ]);
    let keys = keys::table(&status.keys);
    Zeroizing::new([head.as_str(), &checks.text(), &keys].join("\n"))
}
