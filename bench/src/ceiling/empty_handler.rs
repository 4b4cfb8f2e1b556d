//! The ceiling of a request: an axum handler that does nothing, behind the same kind of socket.
//!
//! It runs in a process of its own, as the vault does. It parses the body of a detokenize and answers JSON of
//! the shape and size of its answer: what is left is the price of HTTP, JSON, tokio and the kernel. It gets
//! no JWT: reading past 600 bytes of it costs a tenth of the rate, and that belongs to the vault's side of the
//! ratio.

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use axum::{Json, Router, routing::post};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, runtime::Builder, sync::oneshot};

use crate::process::{Helper, READY};

/// The hidden subcommand that serves the handler.
pub(crate) const SUBCOMMAND: &str = "serve-empty-handler";

/// The running handler.
#[derive(Debug)]
pub(crate) struct EmptyHandler {
    socket: PathBuf,
    _helper: Helper,
}

impl EmptyHandler {
    /// Starts it on a socket in `dir`.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let socket = dir.join("empty.sock");
        let helper = Helper::start(SUBCOMMAND, ("--socket", &socket), &[])?;
        Ok(Self { socket, _helper: helper })
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// The subcommand: serves until stdin ends.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
        let router = Router::new().route("/v1/detokenize", post(answer));
        let (ended, end) = oneshot::channel();
        std::thread::spawn(move || {
            // An error ends the wait as well as the end of the file does.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            let _ = ended.send(());
        });
        writeln!(io::stdout(), "{READY}")?;
        tokio::select! {
            served = axum::serve(listener, router) => served.context("serving"),
            _ = end => Ok(()),
        }
    })
}

async fn answer(Json(request): Json<Request>) -> Json<Answer> {
    // The token is used, so that parsing it cannot be optimised away.
    Json(Answer { pan: if request.token.is_empty() { "" } else { "4111111111111111" } })
}

/// The shape of a detokenize.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    token: String,
}

/// The shape of its answer.
#[derive(Serialize)]
struct Answer {
    pan: &'static str,
}
