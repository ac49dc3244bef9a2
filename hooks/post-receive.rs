//! The post-receive hook binary: standard input to one spool record, at most one line on stderr.
//!
//! Git runs it with the repository as working directory and `GIT_DIR=.` (githooks(5)). Exits 0, or as the hook did that was
//! there before.

#![expect(clippy::disallowed_methods, reason = "what git hands to a hook")]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let git_dir = std::env::var_os("GIT_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let invoked_as = std::env::args_os().next().map_or_else(PathBuf::new, PathBuf::from);
    let ended = git_mirror_push::hook::run(git_dir, &invoked_as, std::io::stdin().lock());
    if let Some(line) = ended.line {
        // A pusher who cannot be told is no reason to fail.
        let _ = writeln!(std::io::stderr(), "git-mirror-push: {line}");
    }
    ExitCode::from(ended.status)
}
