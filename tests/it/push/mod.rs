//! The way to a mirror, and the conversation with it.

mod companions;
mod connection_reuse;
mod failure_table;
mod history;
mod hostile;
mod optimistic;
mod packs;
mod remote_helper;
mod sent;
mod timeouts;
mod transports;
