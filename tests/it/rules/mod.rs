//! What becomes of a ref: the rules, end to end, and what is remembered between runs.

mod books;
mod first_contact;
mod formats;
mod gaps;
mod model;
mod names;
mod refusals;
mod runs;
mod stores;
