//! The hook and the spool.

mod places;
mod records;
mod spool;
mod terminal;
