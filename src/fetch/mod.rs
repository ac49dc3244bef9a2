//! The conversation with a mirror's upload-pack. So far one question is asked: which of its refs are symbolic.

#[cfg(fuzzing)]
pub mod fuzzed;
mod symbolic;

pub use symbolic::{Symbolic, symbolic};
