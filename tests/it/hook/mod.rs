//! The hook and the spool.

mod others;
mod places;
mod records;
mod spool;
mod terminal;
