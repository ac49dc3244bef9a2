//! The way to a mirror and what is said there.

mod ahead;
mod classes;
mod connections;
mod history;
mod hostile;
mod limits;
mod packs;
mod remote_helper;
mod sent;
mod transports;
