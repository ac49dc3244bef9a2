//! Smart HTTP (gitprotocol-http(5)): one GET and one POST on one connection, credentials with the first request.
//!
//! Guaranteed: credentials go only where the configuration says, because redirects are refused; a POST is never sent twice; every wait has
//! a limit. Absent: what is in the requests and answers.

#![expect(clippy::disallowed_methods, reason = "reads the file of trusted certificates")]

use std::io::{self, Read};
use std::path::PathBuf;

use base64::Engine;
use gix_transport::packetline::PacketLineRef;
use gix_transport::packetline::blocking_io::StreamingPeekableIter;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, DefaultConnector, NextTimeout, TcpConnector};
use ureq::{Agent, Body, SendBody, http::Response};

use super::egress::CheckedResolver;
use super::headers::{seconds, target_of_redirect};
use super::pool::{Kind, MAX_PER_HOST};
use super::tls::Trusting;
use super::{CertificateProblem, Error, Limit, Pool, Service, Target};
use crate::credentials::{Credentials, Redactor};

/// Servers and proxies recognise git by `git/` in the user agent.
const USER_AGENT: &str = concat!("git/2.47 git-mirror-push/", env!("CARGO_PKG_VERSION"));

/// A server that speaks HTTP.
pub(crate) struct Http {
    pub(super) agent: Agent,
    /// Whether the agent may have a connection that was used before, which the server may have closed.
    may_be_kept: bool,
    url: String,
    host: String,
    authorization: Option<String>,
    redactor: Redactor,
}

/// The packet lines of an answer.
pub(crate) type Lines = StreamingPeekableIter<io::BufReader<ureq::BodyReader<'static>>>;

impl Http {
    /// Prepares; nothing is sent yet.
    pub(super) fn new(url: &str, host: &str, target: &Target, pool: &Pool) -> Result<Self, Error> {
        let timeouts = target.timeouts;
        let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let kind = Kind {
            ca_file: target.ca_file.as_ref().map(|path| (path.clone(), modified(path))),
            proxy: target.proxy.clone(),
            timeouts: [timeouts.connect, timeouts.stall, timeouts.whole],
            egress: target.egress.clone().map(|egress| (egress, host.to_owned())),
        };
        let (agent, may_be_kept) = pool.agent(kind, || agent(host, target))?;
        let (url, host) = (url.to_owned(), host.to_owned());
        Ok(Self {
            agent,
            may_be_kept,
            url,
            host,
            authorization: basic(&target.credentials),
            redactor: Redactor::new(&target.credentials),
        })
    }

    /// `GET info/refs`. Reads only the head of the answer.
    pub(crate) fn info_refs(&self, service: Service) -> Result<Lines, Error> {
        let kind = format!("application/x-{}-advertisement", service.name());
        let url = format!("{}/info/refs?service={}", self.url, service.name());
        let get = || {
            let mut get = self.agent.get(&url).header("Accept", &kind).header("Pragma", "no-cache");
            if let Some(version) = service.version() {
                get = get.header("Git-Protocol", version);
            }
            if let Some(authorization) = &self.authorization {
                get = get.header("Authorization", authorization);
            }
            get.call().map_err(|error| self.read_error(error))
        };
        // The server may have closed a kept connection. Then the request is sent once more.
        let answered = match get() {
            Err(Error::Broken { .. }) if self.may_be_kept => get(),
            answered => answered,
        };
        Ok(packet_lines(self.checked(answered?, &kind)?))
    }

    /// `POST` to the service. Without a `length` the body is streamed in chunks, once the server agrees or has said nothing for a second.
    pub(crate) fn post(&self, service: Service, body: &mut dyn Read, length: Option<u64>) -> Result<Lines, Error> {
        let kind = format!("application/x-{}-result", service.name());
        let mut post = self
            .agent
            .post(format!("{}/{}", self.url, service.name()))
            .header("Content-Type", format!("application/x-{}-request", service.name()))
            .header("Accept", &kind);
        if let Some(version) = service.version() {
            post = post.header("Git-Protocol", version);
        }
        if let Some(authorization) = &self.authorization {
            post = post.header("Authorization", authorization);
        }
        match length {
            Some(length) => post = post.header("Content-Length", length.to_string()),
            // A server can then refuse a large body before we send it. An answer that arrives while we write is lost.
            None => post = post.header("Expect", "100-continue"),
        }
        let answered = post.send(SendBody::from_reader(body)).map_err(|error| self.read_error(error));
        Ok(packet_lines(self.checked(answered?, &kind)?))
    }

    fn checked(&self, mut response: Response<Body>, expected: &str) -> Result<Response<Body>, Error> {
        let status = response.status().as_u16();
        let kind =
            response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        match status {
            200 if kind == expected => return Ok(response),
            200 => return Err(Error::NotSmart(kind).cleaned(&self.redactor)),
            _ => {}
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let location = header("location").and_then(|location| target_of_redirect(location, &self.url));
        let retry_after = header("retry-after").and_then(|text| seconds(text, header("date")));
        let message = if kind.starts_with("text/plain") { first_bytes(&mut response) } else { String::new() };
        let error = match status {
            401 | 403 | 407 => Error::Credentials(format!(" (HTTP {status}){message}")),
            404 | 410 => Error::NotFound(format!("HTTP {status}{message}")),
            300..=399 => Error::Redirect { status, location },
            _ => Error::Status { status, message, retry_after },
        };
        Err(error.cleaned(&self.redactor))
    }

    fn tls_error(&self, error: &rustls::Error) -> Error {
        let host = self.host.clone();
        match error {
            rustls::Error::InvalidMessage(_) => Error::NoTls { host },
            rustls::Error::InvalidCertificate(why) => {
                let (message, problem) = certificate_problem(why);
                Error::Certificate { host, message, problem }
            }
            // For example an alert or a damaged record, maybe after the commands were sent.
            other => Error::Broken { doing: "speaking TLS with it", source: io::Error::other(other.to_string()) },
        }
    }

    /// Cleans an error that the reader of an answer found, because it may quote the server.
    pub(crate) fn clean(&self, error: Error) -> Error {
        error.cleaned(&self.redactor)
    }

    /// The host for messages, followed by the proxy if one is used.
    fn connected_to(&self) -> String {
        let uri = self.url.parse::<Uri>().ok();
        let is_used = |proxy: &&ureq::Proxy| !uri.as_ref().is_some_and(|uri| proxy.is_no_proxy(uri));
        match self.agent.config().proxy().filter(is_used) {
            // Messages put this text into quotes. The inner quotes end the quoted host and begin the quoted proxy.
            Some(proxy) => format!("{}' through the proxy '{}:{}", self.host, proxy.host(), proxy.port()),
            None => self.host.clone(),
        }
    }

    /// The error of a request.
    pub(super) fn read_error(&self, error: ureq::Error) -> Error {
        let host = self.connected_to();
        match error {
            ureq::Error::HostNotFound => Error::Resolve { host },
            ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::PerCall) => Error::Timeout(Limit::Whole),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Error::Timeout(Limit::Connect),
            ureq::Error::Timeout(_) => Error::Timeout(Limit::Stall),
            ureq::Error::Rustls(error) => self.tls_error(&error),
            // The standard library has no error kind for a failed lookup.
            ureq::Error::Io(source) if source.to_string().contains("failed to lookup address") => {
                Error::Resolve { host }
            }
            // A failed TLS handshake comes as an I/O error.
            ureq::Error::Io(source) if tls_cause(&source).is_some() => {
                self.tls_error(tls_cause(&source).expect("just found"))
            }
            ureq::Error::Io(source) if source.kind() == io::ErrorKind::ConnectionRefused => {
                Error::Connect { host, source }
            }
            ureq::Error::Io(source) => Error::Broken { doing: "talking to it", source },
            ureq::Error::ConnectionFailed => {
                Error::Connect { host, source: io::Error::other("no address of the host answered") }
            }
            ureq::Error::Other(error) => match error.downcast::<Error>() {
                Ok(blocked) => *blocked,
                Err(other) => Error::Protocol(other.to_string()),
            },
            other => Error::Protocol(other.to_string()),
        }
    }
}

/// What is wrong with a certificate, in words and in kind.
fn certificate_problem(why: &rustls::CertificateError) -> (String, CertificateProblem) {
    use rustls::CertificateError as Why;
    let text = why.to_string();
    let (message, problem) = match why {
        Why::Expired | Why::ExpiredContext { .. } => ("it has expired", CertificateProblem::Dates),
        Why::NotValidYet | Why::NotValidYetContext { .. } => ("it is not valid yet", CertificateProblem::Dates),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            ("it is for another host", CertificateProblem::Name)
        }
        Why::UnknownIssuer => ("no authority that is trusted here has signed it", CertificateProblem::Trust),
        Why::Other(_) if text.contains("CaUsedAsEndEntity") => ("it is signed by itself", CertificateProblem::Trust),
        _ => return (text, CertificateProblem::Other),
    };
    (message.to_owned(), problem)
}

/// The TLS error inside an I/O error.
fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn agent(host: &str, target: &Target) -> Result<Agent, Error> {
    let timeouts = target.timeouts;
    let mut config = Agent::config_builder()
        .user_agent(USER_AGENT)
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(4 * MAX_PER_HOST)
        .max_idle_connections_per_host(MAX_PER_HOST)
        .timeout_connect(Some(timeouts.connect))
        .timeout_per_read(Some(timeouts.stall))
        .timeout_per_write(Some(timeouts.stall))
        .timeout_global(Some(timeouts.whole));
    if let Some(proxy) = &target.proxy {
        let proxy = ureq::Proxy::new(proxy).map_err(|_| Error::Unable("its proxy is not a URL".into()))?;
        config = config.proxy(Some(proxy));
    }
    let config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build()).build();
    let resolver: Box<dyn Resolver> = match &target.egress {
        None => Box::new(DefaultResolver::default()),
        Some(egress) => Box::new(CheckedResolver { egress: egress.clone(), host: host.to_owned() }),
    };
    let resolver = Chosen(resolver);
    Ok(match &target.ca_file {
        None => Agent::with_parts(config, DefaultConnector::default(), resolver),
        Some(file) => {
            let plain = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
            Agent::with_parts(config, plain.chain(certificates(file)?), resolver)
        }
    })
}

/// The resolver in use: ureq's own, or the one that checks the egress policy.
#[derive(Debug)]
struct Chosen(Box<dyn Resolver>);

impl Resolver for Chosen {
    fn resolve(&self, uri: &Uri, config: &Config, left: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, left)
    }
}

fn basic(credentials: &Credentials) -> Option<String> {
    let secret = credentials.secret.as_ref()?;
    let pair = format!("{}:{}", credentials.username.as_deref().unwrap_or_default(), secret.expose());
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
}

/// Trusts the certificates of `file` and no others.
pub(super) fn certificates(file: &std::path::Path) -> Result<Trusting, Error> {
    let unusable = |why: String| Error::Unable(format!("its ca_file '{}' cannot be used: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate.der().to_vec().into()),
            Ok(_) => {}
            Err(error) => return Err(unusable(error.to_string())),
        }
    }
    if found.is_empty() {
        Err(unusable("it contains no certificate".into()))
    } else {
        Trusting::new(found).map_err(|error| unusable(error.to_string()))
    }
}

fn packet_lines(response: Response<Body>) -> Lines {
    let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
    StreamingPeekableIter::new(io::BufReader::with_capacity(64 << 10, reader), &[PacketLineRef::Flush], false)
}

/// Reads the rest of an answer, so that the connection can serve the next request. If more than 64 KiB are left, it is not reused.
pub(crate) fn drain(lines: Lines) {
    let _ = io::copy(&mut lines.into_inner().take(64 << 10), &mut io::sink());
}

/// Bytes of a message that are read: more than are shown, so that a secret is whole when it is masked.
const MAX_MESSAGE: u64 = 4 << 10;

fn first_bytes(response: &mut Response<Body>) -> String {
    let mut message = Vec::new();
    let _ = response.body_mut().as_reader().take(MAX_MESSAGE).read_to_end(&mut message);
    let message: String =
        String::from_utf8_lossy(&message).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if message.trim().is_empty() { String::new() } else { format!(": {}", message.trim()) }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError as Why;

    use super::*;

    #[test]
    fn the_problems_of_a_certificate_are_distinguished() {
        for (why, expected) in [
            (Why::Expired, CertificateProblem::Dates),
            (Why::NotValidYet, CertificateProblem::Dates),
            (Why::NotValidForName, CertificateProblem::Name),
            (Why::UnknownIssuer, CertificateProblem::Trust),
            (Why::Revoked, CertificateProblem::Other),
        ] {
            assert_eq!(certificate_problem(&why).1, expected, "{why:?}");
        }
    }
}
