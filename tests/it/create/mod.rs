//! Mirrors whose repository does not exist yet: who makes it, when, and that nothing is made by looking.

mod hosts;
mod once;
mod places;
