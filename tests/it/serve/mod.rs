//! The daemon: its life, its API, its page.

mod api;
mod fairness;
mod http_abuse;
mod life;
mod listening;
mod page;
mod roots;
