//! Configuration files: any text is a configuration or an error that names a line of it.
#![no_main]

use std::path::Path;

use git_mirror_push::config::{Error, Server, Trust, parse};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(Error::Meaning { line, .. }) = parse(Path::new("config.toml"), text, &Server::default(), None, Trust::Full) {
        assert!(line >= 1 && line <= text.lines().count() + 1);
    }
});
