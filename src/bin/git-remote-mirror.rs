//! `git-remote-mirror`, git's remote helper for `mirror::NAME`.

use std::process::ExitCode;

fn main() -> ExitCode {
    git_mirror_push::remote_helper::main()
}
