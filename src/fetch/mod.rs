//! The conversation with a mirror's upload-pack. It asks one question: which refs of the mirror are symbolic.

#[cfg(fuzzing)]
pub mod fuzzed;
mod symbolic;

pub use symbolic::{Symbolic, symbolic};
