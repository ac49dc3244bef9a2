//! The program against real git, sshd, nginx with git http-backend, and git daemon, each test in a home of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may fail, start programs and read the clock"
)]

mod ahead;
mod api;
mod bad_input;
mod books;
mod browser;
mod classes;
mod commands;
mod completions;
mod concurrency;
mod connections;
mod crash;
mod crowd;
mod daemon;
mod damage;
mod doctor;
mod documents;
mod edges;
mod every;
mod fence;
mod first_contact;
mod formats;
mod gaps;
mod history;
mod hook;
mod hostile;
mod installed;
mod instructions;
mod keys;
mod leases;
mod limits;
mod listening;
mod many;
mod model;
mod monitoring;
mod names;
mod network;
mod order;
mod packs;
mod page;
mod portions;
mod progress;
mod refusals;
mod remote_helper;
mod retry;
mod rules;
mod sandbox;
mod secrets;
mod sent;
mod serve;
mod servers;
mod spool;
mod stores;
mod transports;
mod trust;
