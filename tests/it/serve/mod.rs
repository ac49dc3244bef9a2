//! The daemon: its life, its API, its page.

mod api;
mod crowd;
mod life;
mod listening;
mod page;
