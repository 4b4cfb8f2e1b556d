//! A checkout to see the vault in: a card becomes a token, is found by its holder's name, and is revealed on request.
//!
//! ```text
//! VAULT_SOCKET=run/dev/vaultd.sock VAULT_TOKEN_FILE=run/dev/token.jwt cargo run -p checkout
//! ```
//!
//! It reaches the vault through `vault-client` only, listens on loopback only, works without JavaScript, and keeps
//! no card data: what a form brings and a page shows is wiped when the request is over, and no log line has it.
//! The HTTP library's own buffers are no exception: each connection serves one request, and all memory is wiped
//! when it is freed.
#![forbid(unsafe_code)]

mod csrf;
mod form;
mod headers;
mod pages;
mod receipts;
mod site;
mod visit;
mod wrong;

use std::{
    alloc::System,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddrV4},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;
use vault_client::ClientBuilder;
use zeroizing_alloc::ZeroAlloc;

use crate::{csrf::Guard, site::Site};

/// Wipes what is freed: the read buffers of the HTTP library, which know nothing of card data.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// A checkout on 127.0.0.1. The vault is the one of `VAULT_SOCKET`, with `VAULT_TOKEN_FILE` or `VAULT_TOKEN`; with
/// neither it logs in.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The port on 127.0.0.1; 0 takes any that is free.
    #[arg(long, default_value = "8480", value_name = "PORT", value_parser = port)]
    listen: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).init();
    match serve(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    // A connection that stayed open would keep the vault's last answer in its read buffer.
    let vault = ClientBuilder::from_env()?.max_idle_connections(0).build()?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, arguments.listen);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let port = listener.local_addr()?.port();
    let site = Site::new(vault, Guard::new(port)?);

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
    };
    writeln!(io::stdout(), "ready: http://127.0.0.1:{port}").context("cannot write to standard output")?;
    axum::serve(listener, site::router(site)).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// A port, or `127.0.0.1:` and a port: no other address is ever listened on.
fn port(text: &str) -> Result<u16, String> {
    let port = text.strip_prefix("127.0.0.1:").unwrap_or(text);
    port.parse().map_err(|_| "it must be a port, 0 to 65535; the address is always 127.0.0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_loopback_only() {
        assert_eq!((port("0"), port("127.0.0.1:8480")), (Ok(0), Ok(8480)));
        for refused in ["0.0.0.0:80", "[::]:80", "192.168.0.1:80", "65536", ""] {
            assert!(port(refused).is_err(), "{refused}");
        }
    }
}
