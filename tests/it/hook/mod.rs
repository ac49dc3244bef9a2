//! The hook and the spool.

mod records;
mod spool;
