//! Integration tests: they run the program against real git, sshd, nginx with git http-backend,
//! git daemon and PostgreSQL. Each test has a home of its own.
//!
//! | to test | look in |
//! |---|---|
//! | `hook`, `spool`, `wake` | `hook/` |
//! | `plan`, `status`, `repo`: what becomes of a ref, and what is remembered of it | `rules/` |
//! | `drain`, `mirror`, `durable`: one run, when it fails, is killed, or is not alone | `drain/` |
//! | `wire`, `push`, `fetch`, `remote_helper`: the way to a mirror and what is said there | `push/` |
//! | pull mirrors: `fetch`, `drain::pull` | `pull/` |
//! | two-way mirrors: `drain::both` | `both/` |
//! | mirrors that do not exist yet: `create`, `drain::absent` | `create/` |
//! | `serve`, `tokens` | `serve/` |
//! | `fleet`: several daemons and a database | `fleet/` |
//! | `cli`, `config`, `doctor`, `import`, `notify`, `metrics`, and the documents | `cli/` |
//! | `install`, `schedule`, `credentials`, `owner`: everything together | `system/` |
//! | what a test is made of: a source and its mirror, a home, servers, the daemon | `scene/` |
//!
//! The rules themselves are tables beside the code: `src/plan/tests.rs` for a push,
//! `src/plan/pull/tests.rs` and `src/plan/both/tests.rs` for the others. `tests/tidy/` checks the
//! sources and the documents.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may fail, start programs and read the clock"
)]

mod both;
mod cli;
mod create;
mod drain;
mod fleet;
mod hook;
mod pull;
mod push;
mod rules;
mod scene;
mod serve;
mod system;
