//! Everything together, as an administrator meets it; and what must reach nobody else.

mod all_repositories;
pub(crate) mod installed;
mod instruction_counts;
mod secrets;
mod set_ups;
mod trust;
