//! HTTP/1.1 over Unix sockets: listening, limits, routing, and what goes over the wire.
//!
//! The door is [`Server::serve`]. This is the only room that knows statuses and headers, and `problem` the only place
//! that turns a failure into one. A PAN is a [`crate::card::Pan`] as soon as it is parsed.

mod app;
mod approval;
mod audit;
mod backup;
mod batch;
mod body;
mod bucket;
mod connections;
mod detokenize;
mod ending;
mod envelopes;
mod health;
mod honey;
mod key_set;
mod keys;
mod locks;
mod login;
mod metrics;
mod openapi;
mod problem;
mod reply;
mod reveals;
mod rewrap;
mod router;
mod search;
mod server;
mod short_reads;
mod socket;
mod status;
mod stream;
mod tenants;
mod tokenize;
mod tokens;
mod trail;
mod turned_away;

pub use app::{App, Callers, Reload};
pub use body::parse_json;

pub use router::Endpoints;
pub use server::{Door, Server};
pub use socket::{BoundSocket, SocketError};
pub use stream::SocketStream;
