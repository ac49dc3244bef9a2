//! Where the daemon listens, as typed on the command line.

use std::path::PathBuf;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(String),
    /// A Unix domain socket, `unix:PATH`.
    Unix(PathBuf),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is not an address to listen on; write 127.0.0.1:8417, [::1]:8417 or unix:/run/x.sock");
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(wrong()),
            None => text.parse::<std::net::SocketAddr>().map(|_| Self::Tcp(text.to_owned())).map_err(|_| wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_where_one_can_listen() {
        for good in ["127.0.0.1:8417", "[::1]:0", "unix:/run/x.sock"] {
            assert!(good.parse::<Listen>().is_ok(), "{good}");
        }
        for bad in ["", "8417", "localhost:8417", "unix:x.sock", "unix:", "127.0.0.1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
