//! `git mirror-push`: see `git_mirror_push::cli`, and `serve` for the daemon.

use std::process::ExitCode;

use git_mirror_push::{cli, serve};

fn main() -> ExitCode {
    cli::main(&|daemon| {
        let options = serve::Options {
            listen: daemon.listen,
            state_directory: daemon.state_directory,
            runtime_directory: daemon.runtime_directory,
            server_config: daemon.server_config,
            credential_env: daemon.credential_env,
        };
        serve::run(daemon.server, &options)
    })
}
