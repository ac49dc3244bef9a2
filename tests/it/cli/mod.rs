//! The commands, their messages, and the documents.

mod bad_input;
mod commands;
mod completions;
mod doctor;
pub(crate) mod documents;
mod every;
mod host_keys;
mod import;
mod import_apis;
mod import_fixtures;
mod import_rules;
mod import_sources;
mod keys;
mod messages;
mod monitoring;
mod progress;
mod recipes;
mod url_and_password;
