//! What becomes of a ref: the rules, end to end, and what is remembered between runs.

mod first_contact;
mod foreign;
mod formats;
mod long_names;
mod model;
mod object_storage;
mod ref_names;
mod refusals;
mod repeated_runs;
mod shallow_partial;
mod state_files;
