//! How a command fails: one line on standard error, or JSON there with `--json`, and git's exit statuses.

use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{DONE, talk};
use crate::config;
use crate::credentials::Redactor;
use crate::mirror;

/// Every failure that is not the fault of the command line, for example a bad repository or configuration.
pub(super) const FATAL: u8 = 128;
/// The command line is not valid.
const USAGE: u8 = 129;

/// The command line asks for something that is not possible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Reports why a command failed, and returns its exit status.
pub(super) fn of_command(error: &anyhow::Error, is_json: bool) -> u8 {
    // Nobody reads a closed pipe.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return DONE;
    }
    let status = if is_usage(error) { USAGE } else { FATAL };
    let text = Redactor::default().clean(&chain(error).replace('\n', " ")).to_string();
    match is_json {
        true => print_json(&text, status),
        false => talk(&format!("fatal: {text}")),
    }
    status
}

/// Prints what clap says of the command line, help included, and returns the exit status.
pub(super) fn of_arguments(mut error: clap::Error, is_json: bool) -> u8 {
    if !error.use_stderr() {
        // Nobody reads a closed pipe.
        let _ = error.print();
        return DONE;
    }
    suggest_key(&mut error);
    if is_json {
        let text = error.render().to_string();
        print_json(text.strip_prefix("error: ").unwrap_or(&text).trim_end(), USAGE);
    } else {
        // Nobody reads a closed pipe.
        let _ = error.print();
    }
    USAGE
}

/// Suggests KEY=VALUE for a key that was written as an option.
fn suggest_key(error: &mut clap::Error) {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else { return };
    let key = typed.trim_start_matches('-').split('=').next().unwrap_or_default().replace('-', "_");
    let is_key = config::keys().any(|known| known.name == key);
    if error.kind() == ErrorKind::UnknownArgument && is_key {
        let text = format!("'{key}' is a key of the configuration and not an option; write {key}=VALUE");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![text.into()]));
    }
}

/// The error as `--json` prints it.
fn print_json(text: &str, status: u8) {
    let json = serde_json::json!({"error": text, "exit_status": status});
    // If standard error is closed, nobody wants the message.
    let _ = writeln!(io::stderr(), "{json}");
}

/// Whether the command line is at fault, and not a repository or a file.
fn is_usage(error: &anyhow::Error) -> bool {
    let is_bad_value = matches!(error.downcast_ref(), Some(config::Error::Value(_)));
    let is_bad_change = matches!(
        error.downcast_ref(),
        Some(mirror::Error::Refused(_) | mirror::Error::Config(config::Error::Value(_)))
    );
    error.is::<Usage>() || is_bad_value || is_bad_change
}

/// The error and its causes. A cause is left out if the text so far contains it, because many errors include the text of their cause.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
