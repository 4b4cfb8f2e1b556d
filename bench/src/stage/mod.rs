//! The stages of a run, one a file: each measures one thing and says what its figures mean.

pub(crate) mod alternatives;
pub(crate) mod connections;
pub(crate) mod memory;
pub(crate) mod open_loop;
pub(crate) mod restarts;
pub(crate) mod rotation;
pub(crate) mod rounds;
pub(crate) mod store_sizes;
