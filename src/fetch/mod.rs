//! The conversation with upload-pack (gitprotocol-v2(5), gitprotocol-pack(5)): a list of refs, and
//! a pack of what is missing here. A second, shorter conversation asks a mirror which of its refs
//! are symbolic.
//!
//! Guaranteed: nothing here changes upstream; memory does not grow with the pack; a list or message
//! that is too long is an error. Absent: decisions. A [`Held, Stage`] keeps the pack apart from the
//! repository.

#[cfg(fuzzing)]
pub mod fuzzed;
mod greeting;
mod list;
mod pack;
mod session;
mod stage;
mod symbolic;

pub use list::Listed;
pub use pack::Wanted;
pub use session::{Session, sink_failed};
pub use stage::{Held, Limit, Stage, sweep};
pub use symbolic::{Symbolic, symbolic};
