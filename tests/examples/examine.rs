//! Makes a vault on a fresh token of `VAULTD_TEST_MODULE` and prints what `vaultd init` and `vaultd check` say.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

use std::fs;

use vault_tests::{Module, run};

fn main() {
    let module = Module::of_this_run();
    let dir = tempfile::Builder::new().prefix("vt").tempdir_in("/tmp").unwrap();
    let hsm = fs::read_to_string(module.make_token(dir.path())).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let config = format!(
        "[server]\nsocket = \"{}\"\nadmin_socket = \"{}\"\n{hsm}\n[store]\ndir = \"{}\"\n[audit]\ndir = \"{}\"\n",
        at("vaultd.sock"),
        at("admin.sock"),
        at("store"),
        at("audit")
    );
    fs::write(at("vaultd.toml"), config).unwrap();
    for command in ["init", "check"] {
        let output = run(&[command, "--config", &at("vaultd.toml")]);
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            println!("{command}: {line}");
        }
        let failed = String::from_utf8_lossy(&output.stderr).into_owned();
        for line in failed.lines().filter(|line| line.starts_with("vaultd: ")) {
            println!("{command}: {line}");
        }
        println!("{command}: exit {}", output.status.code().unwrap_or(-1));
    }
    module.clean_up(dir.path());
}
