//! `git://`: a TCP connection to git-daemon(1).

#![expect(clippy::disallowed_methods, reason = "the only place that opens TCP connections; each has a time limit")]

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use gix_transport::packetline::blocking_io::encode;

use super::stream::Stream;
use super::{Error, Limit, Service, Target};

/// Connects and asks for a service of git.
pub(super) fn connect(service: Service, host: &str, port: u16, path: &str, target: &Target) -> Result<Stream, Error> {
    let socket = dial(host, port, path, service, service.version(), target)?;
    let failed = |source| Error::Connect { host: host.to_owned(), source };
    let input = socket.try_clone().map_err(failed)?;
    let output = socket.try_clone().map_err(failed)?;
    let socket = std::sync::Arc::new(socket);
    let abort = move |_| {
        // An error means that the connection is gone already.
        let _ = socket.shutdown(Shutdown::Both);
    };
    Ok(Stream::of_socket(Box::new(input), Box::new(output), target.timeouts, abort))
}

/// Connects and asks for a service (gitprotocol-pack(5), "Git Transport").
pub(super) fn dial(
    host: &str,
    port: u16,
    path: &str,
    service: Service,
    version: Option<&str>,
    target: &Target,
) -> Result<TcpStream, Error> {
    let socket = open(host, port, target)?;
    let failed = |source| Error::Connect { host: host.to_owned(), source };
    socket.set_nodelay(true).map_err(failed)?;
    let name = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let version = version.map(|version| format!("\0{version}\0")).unwrap_or_default();
    let service = service.name();
    let request = format!("{service} {path}\0host={name}:{port}\0{version}");
    let mut line = Vec::new();
    encode::data_to_write(request.as_bytes(), &mut line)
        .map_err(|_| Error::Unable("the path in its URL is too long".into()))?;
    (&socket).write_all(&line).map_err(failed)?;
    Ok(socket)
}

/// How many addresses of a host are tried. The owner of the host name could list any number, and we wait for each of them.
const MAX_TRIES: usize = 4;

/// Tries the addresses of the host in turn.
fn open(host: &str, port: u16, target: &Target) -> Result<TcpStream, Error> {
    let unresolved = |_| Error::Resolve { host: host.to_owned() };
    let addresses: Vec<SocketAddr> = match &target.egress {
        Some(egress) => egress.resolve(host, port)?,
        None => (host, port).to_socket_addrs().map_err(unresolved)?.collect(),
    };
    let mut last = Error::Resolve { host: host.to_owned() };
    for address in addresses.into_iter().take(MAX_TRIES) {
        match TcpStream::connect_timeout(&address, target.timeouts.connect) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => last = Error::Timeout(Limit::Connect),
            Err(source) => last = Error::Connect { host: host.to_owned(), source },
        }
    }
    Err(last)
}

/// The first of these addresses that accepts a connection. Only four are tried. If none accepts, the result is the first address. A single
/// address is not tried.
pub(super) fn reachable(addresses: &[SocketAddr], limit: Duration) -> SocketAddr {
    let takes = |address: &&SocketAddr| TcpStream::connect_timeout(address, limit).is_ok();
    let found = if addresses.len() > 1 { addresses.iter().take(MAX_TRIES).find(takes) } else { None };
    *found.unwrap_or(&addresses[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_that_takes_a_connection_is_chosen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let open = listener.local_addr().expect("its address");
        let dead = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            gone.local_addr().expect("its address")
        };
        let limit = Duration::from_secs(2);
        assert_eq!(reachable(&[dead, open], limit), open);
        assert_eq!(reachable(&[open, dead], limit), open);
        assert_eq!(reachable(&[dead, dead], limit), dead);
        assert_eq!(reachable(&[dead, dead, dead, dead, open], limit), dead, "only four addresses are tried");
    }
}
