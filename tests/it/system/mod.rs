//! Everything together, as an administrator meets it; and what must reach nobody else.

mod edges;
pub(crate) mod installed;
mod instructions;
mod many;
mod secrets;
mod trust;
