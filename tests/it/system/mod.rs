//! The whole program as an administrator uses it, and the secrets that it must not leak.

mod all_repositories;
pub(crate) mod installed;
mod instruction_counts;
mod secrets;
mod set_ups;
mod trust;
