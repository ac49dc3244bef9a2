//! The whole program as an administrator uses it, and the secrets that it must not leak.

mod all_repositories;
mod confined;
mod foreign;
pub(crate) mod installed;
mod instruction_counts;
mod owners;
mod restricted;
mod secrets;
mod set_ups;
mod trust;
