//! `vaultctl` where something is not as it should be.

use vault_tests::{Vault, finish};

/// The form of a JWT (RFC 7519): its header begins with `{"`.
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJzZWNyZXQifQ.c2lnbmF0dXJl";

#[test]
fn a_jwt_in_the_wrong_place_is_not_repeated() {
    let vault = Vault::start();
    let is_silent = |said: &str| !["eyJ", "c2lnbmF0"].iter().any(|part| said.contains(part));
    for line in [
        format!("open {JWT}"),
        format!("detokenize {JWT}"),
        format!("show '{JWT}'"),
        format!("status --token-file {JWT}"),
        format!("status --token-file={JWT}"),
        format!("status --approval-file {JWT}"),
        format!("open --file ./{JWT}"),
        format!("tokenize --metadata=session={JWT}"),
        format!("login --approves {JWT}"),
        JWT.to_owned(),
    ] {
        let refused = vault.ctl(&line, "");
        assert!(refused.complaint(2).contains("looks like a JWT"), "{refused:?}");
        assert!(is_silent(&refused.stderr) && refused.stdout.is_empty(), "{refused:?}");
    }
    for more in [vec![], vec!["--json"]] {
        let mut command = vault.ctl_command();
        let refused = finish(command.args(["status"]).args(more).env("VAULT_TOKEN_FILE", JWT), "");
        assert!(refused.complaint(1).contains("is a JWT, not a file"), "{refused:?}");
        assert!(is_silent(&refused.stderr), "{refused:?}");
    }
    // A name with dots is only that.
    let missing = vault.ctl("status --token-file eyJ.jwt", "");
    assert!(missing.complaint(1).contains("cannot read the token file eyJ.jwt"), "{missing:?}");
}
