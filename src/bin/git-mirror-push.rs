//! `git mirror-push`: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    git_mirror_push::cli::main()
}
