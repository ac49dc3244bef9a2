//! The daemon: its life, its API, its page.

mod api;
mod fairness;
mod http_abuse;
mod life;
mod listening;
mod many;
mod openapi;
mod overview;
mod page;
mod roots;
