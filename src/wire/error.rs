//! Why a contact with a mirror failed, and whether another try may succeed. If the failure has an
//! error code, the code decides. ssh and receive-pack have only messages. We read the messages that
//! all versions in use write in the C locale. In the table, "one ref" means that the other refs
//! arrive and the mirror counts as failed. `https` can fail like `http`, and in three more ways.
//!
//! | transport | failure | class |
//! |---|---|---|
//! | path | no such directory | permanent |
//! | path | no repository in it | permanent |
//! | path | another object format | permanent |
//! | path | a repository of another user | permanent |
//! | path | receive-pack dies | temporary |
//! | path | receive-pack stalls | temporary |
//! | path | a ref is locked there | temporary |
//! | path | a ref is refused there | one ref |
//! | git | host name unknown | temporary |
//! | git | connection refused | temporary |
//! | git | hangs up | temporary |
//! | git | says nothing | temporary |
//! | git | sends nonsense | temporary |
//! | ssh | host name unknown | temporary |
//! | ssh | connection refused | temporary |
//! | ssh | hangs up | temporary |
//! | ssh | says nothing | temporary |
//! | ssh | sends nonsense | temporary |
//! | http | host name unknown | temporary |
//! | http | connection refused | temporary |
//! | http | hangs up | temporary |
//! | http | says nothing | temporary |
//! | http | sends nonsense | temporary |
//! | git | no such repository | permanent |
//! | git | pushing not enabled | permanent |
//! | ssh | no such repository | permanent |
//! | ssh | key refused | permanent |
//! | ssh | key readable by others | permanent |
//! | ssh | host key unknown | permanent |
//! | ssh | host key changed | permanent |
//! | http | status 400 | permanent |
//! | http | status 404 | permanent |
//! | http | status 410 | permanent |
//! | http | status 413 | permanent |
//! | http | status 418 | permanent |
//! | http | status 401 | permanent |
//! | http | status 403 | permanent |
//! | http | status 407 | permanent |
//! | http | status 301 | permanent |
//! | http | status 308 | permanent |
//! | http | status 408 | temporary |
//! | http | status 425 | temporary |
//! | http | status 429 | temporary |
//! | http | status 500 | temporary |
//! | http | status 502 | temporary |
//! | http | status 503 | temporary |
//! | http | status 504 | temporary |
//! | http | not smart HTTP | permanent |
//! | http | no such repository | permanent |
//! | http | password over plain http | permanent |
//! | path | confined, and on this machine | permanent |
//! | git | confined, and on this machine | permanent |
//! | ssh | confined, and on this machine | permanent |
//! | http | confined, and on this machine | permanent |
//! | https | authority not trusted | permanent |
//! | https | certificate of another host | permanent |
//! | https | no TLS at that port | permanent |

use std::io;

use crate::credentials::Redactor;
use crate::process;

/// What an error means for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again, with back-off: for example after a failure of network or DNS, a time limit, or HTTP 429 and 5xx.
    Temporary,
    /// Nothing will change until a person does something.
    Permanent,
}

/// Which limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `connect_timeout`
    Connect,
    /// `stall_timeout`
    Stall,
    /// `timeout`
    Whole,
}

/// When a smaller push is worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetrySmaller {
    /// Now: the server answered or hung up during the upload, and the size may be its reason.
    AtOnce,
    /// At the next attempt: the reason is not known.
    NextTime,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// Nobody who is trusted here has signed it.
    Trust,
    /// It names another host.
    Name,
    /// It has expired, or is not valid yet.
    Dates,
    /// Something else.
    Other,
}

/// Why a contact with a mirror failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host name could not be resolved.
    #[error("cannot resolve the host name '{host}'")]
    Resolve {
        /// The name.
        host: String,
    },
    /// A confined mirror must not reach this host.
    #[error("'{host}' is blocked: {why}; to allow it, add it to [api] allowed_hosts in the server's file")]
    Blocked {
        /// The host.
        host: String,
        /// The rule, in GitLab's words.
        why: &'static str,
    },
    /// No connection could be established.
    #[error("cannot connect to '{host}': {source}")]
    Connect {
        /// The host.
        host: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A limit ran out.
    #[error("{}", match .0 {
        Limit::Connect => "no connection within connect_timeout",
        Limit::Stall => "no data was sent or received within stall_timeout",
        Limit::Whole => "the update took longer than the configured timeout",
    })]
    Timeout(Limit),
    /// The connection broke.
    #[error("the connection to the mirror broke while {doing}: {source}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The server hung up in the middle of a request.
    #[error("the server hung up while the objects were sent: {0}")]
    Upload(io::Error),
    /// The mirror or a proxy refused the credentials, or they lack a right.
    #[error("the mirror refused the credentials{0}")]
    Credentials(String),
    /// There is no such repository, or the server hides it from this user.
    #[error("the mirror's repository was not found: {0}")]
    NotFound(String),
    /// No key of the host is pinned or known.
    #[error("the host key of '{host}' is not known")]
    HostKey {
        /// The host, with its port if that is not 22.
        host: String,
    },
    /// The host offers another key than the known or pinned one.
    #[error("the host key of '{host}' has CHANGED: it offers {}, and {} is trusted", offered.as_deref().unwrap_or("another"), if expected.is_empty() { "another".to_owned() } else { expected.join(", ") })]
    HostKeyChanged {
        /// The host, with its port if that is not 22.
        host: String,
        /// The fingerprint of the offered key, if ssh says it.
        offered: Option<String>,
        /// The fingerprints of the trusted keys, as far as they can be read.
        expected: Vec<String>,
    },
    /// ssh does not use a key that other users can read.
    #[error("ssh does not use the key '{0}', which other users can read; chmod 600 it")]
    LooseKey(String),
    /// The server's certificate is not accepted.
    #[error("the TLS certificate of '{host}' was refused: {message}")]
    Certificate {
        /// The host.
        host: String,
        /// The reason.
        message: String,
        /// Its kind.
        problem: CertificateProblem,
    },
    /// Something else than TLS is spoken at the port of an https URL.
    #[error("'{host}' does not speak TLS at this port; is it an http:// server, or another port?")]
    NoTls {
        /// The host.
        host: String,
    },
    /// The server redirects us to another address.
    #[error("the mirror redirects to {} (HTTP {status}); redirects are not followed: give the exact URL", location.as_deref().unwrap_or("another address"))]
    Redirect {
        /// The status.
        status: u16,
        /// The target without user, password and query, if the mirror names one.
        location: Option<String>,
    },
    /// An HTTP status that no other variant covers.
    #[error("the mirror answered HTTP {status}{message}")]
    Status {
        /// The status.
        status: u16,
        /// What the server said, if it said something in plain text.
        message: String,
        /// `Retry-After`, in seconds (RFC 9110, section 10.2.3).
        retry_after: Option<u64>,
    },
    /// The server speaks HTTP but not git's smart protocol.
    #[error("the server does not speak git's smart HTTP protocol at this URL (it sent '{0}')")]
    NotSmart(String),
    /// A program here or on the mirror's side failed.
    #[error("{}", failed(program, status, message))]
    Program {
        /// Its name.
        program: String,
        /// ` with exit status N`, or empty.
        status: String,
        /// What it said.
        message: String,
    },
    /// A program could not be started.
    #[error("cannot start '{program}': {source}")]
    Start {
        /// Its name.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What came was not git's protocol.
    #[error("what the mirror sent is not git's protocol: {0}")]
    Protocol(String),
    /// The mirror ended the conversation with an error of its own.
    #[error("the mirror says: {0}")]
    Remote(String),
    /// The mirror cannot be used as it is configured, or lacks something that we need.
    #[error("the mirror cannot be used: {0}")]
    Unable(String),
    /// The pack could not be made.
    #[error("git pack-objects failed: {message}")]
    Pack {
        /// What it said.
        message: String,
        /// Whether another try may succeed.
        class: Class,
    },
}

impl From<process::Error> for Error {
    fn from(error: process::Error) -> Self {
        match error {
            process::Error::Start { program, source } => Self::Start { program, source },
            process::Error::Failed { program, status, message } => Self::Program { program, status, message },
            process::Error::TooSlow { .. } => Self::Timeout(Limit::Whole),
        }
    }
}

/// The text of a failed program. If ssh wrote a message, its exit status is left out, because ssh has one for all its failures. The name
/// `ssh` is then written once.
fn failed(program: &str, status: &str, message: &str) -> String {
    match (program, message) {
        ("ssh", message) if !message.is_empty() => format!("ssh: {}", message.strip_prefix("ssh: ").unwrap_or(message)),
        (_, "") => format!("{program} failed{status}"),
        _ => format!("{program} failed{status}: {message}"),
    }
}

/// Maximum number of characters that are shown of what the other side said.
const MAX_SAID: usize = 300;

fn shortened(said: &str) -> String {
    match said.char_indices().nth(MAX_SAID) {
        Some((end, _)) => format!("{}…", &said[..end]),
        // The final full stop goes, because advice may follow after a semicolon.
        None => said.strip_suffix('.').unwrap_or(said).to_owned(),
    }
}

impl Error {
    /// Cleans what the other side said in the error, and then shortens it. In the other order, the
    /// beginning of a secret could remain.
    #[must_use]
    pub(crate) fn cleaned(self, redactor: &Redactor) -> Self {
        let clean = |said: String| shortened(&redactor.clean(&said));
        match self {
            Self::Credentials(said) => Self::Credentials(clean(said)),
            Self::NotFound(said) => Self::NotFound(clean(said)),
            Self::LooseKey(said) => Self::LooseKey(clean(said)),
            Self::Unable(said) => Self::Unable(clean(said)),
            Self::Status { status, message, retry_after } => {
                Self::Status { status, message: clean(message), retry_after }
            }
            Self::NotSmart(said) => Self::NotSmart(clean(said)),
            Self::Program { program, status, message } => Self::Program { program, status, message: clean(message) },
            Self::Protocol(said) => Self::Protocol(clean(said)),
            Self::Remote(said) => Self::Remote(clean(said)),
            ours => ours,
        }
    }

    /// Whether the host asks us to wait: it says too many requests came (RFC 6585, section 4), or when to come again.
    #[must_use]
    pub fn asks_to_wait(&self) -> bool {
        matches!(self, Self::Status { status, retry_after, .. } if *status == 429 || retry_after.is_some())
    }

    /// How long the server asks us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Status { retry_after, .. } => retry_after.map(std::time::Duration::from_secs),
            _ => None,
        }
    }

    /// Whether such a failure concerns the whole host, if it happened before the server said anything about the repository.
    #[must_use]
    pub fn is_host_failure(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Timeout(_) | Self::Broken { .. } => true,
            Self::Status { status, .. } => matches!(status, 429 | 502..=504),
            Self::Program { program, .. } => program == "ssh",
            _ => false,
        }
    }

    /// Whether a smaller push may succeed after this failure, and when to try it. A server that refuses a large body may hang up
    /// while we send it, before we can read its answer.
    #[must_use]
    pub fn retry_smaller(&self) -> Option<RetrySmaller> {
        match self {
            Self::Status { status: 411 | 413 | 500 | 502 | 504, .. } | Self::Upload(_) => Some(RetrySmaller::AtOnce),
            Self::Status { status: 503, .. } | Self::Timeout(Limit::Stall | Limit::Whole) => {
                Some(RetrySmaller::NextTime)
            }
            Self::Broken { .. } => Some(RetrySmaller::NextTime),
            _ => None,
        }
    }

    /// Whether the server refused the request as too large (413) or without a length (411). The same request will never succeed.
    #[must_use]
    pub fn is_size_failure(&self) -> bool {
        matches!(self, Self::Status { status: 411 | 413, .. })
    }

    /// Whether the mirror may have received the commands of a push that failed with this error. Judged by the error alone.
    #[must_use]
    pub(crate) fn may_have_arrived(&self) -> bool {
        match self {
            Self::Timeout(limit) => *limit != Limit::Connect,
            Self::Status { status, .. } => *status >= 500,
            Self::Broken { .. } | Self::Upload(_) | Self::Program { .. } | Self::Protocol(_) | Self::NotSmart(_) => {
                true
            }
            Self::Resolve { .. } | Self::Blocked { .. } | Self::Connect { .. } | Self::Start { .. } => false,
            Self::NoTls { .. } => false,
            Self::Credentials(_)
            | Self::NotFound(_)
            | Self::LooseKey(_)
            | Self::HostKey { .. }
            | Self::HostKeyChanged { .. }
            | Self::Certificate { .. } => false,
            Self::Redirect { .. } | Self::Remote(_) | Self::Unable(_) | Self::Pack { .. } => false,
        }
    }

    /// Whether another try is worth it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Timeout(_) | Self::Broken { .. } => Class::Temporary,
            Self::Upload(_) | Self::Program { .. } | Self::Protocol(_) => Class::Temporary,
            Self::Pack { class, .. } => *class,
            Self::Status { status, .. } if *status >= 500 || matches!(status, 408 | 425 | 429) => Class::Temporary,
            Self::Credentials(_)
            | Self::NotFound(_)
            | Self::LooseKey(_)
            | Self::HostKey { .. }
            | Self::HostKeyChanged { .. }
            | Self::Certificate { .. } => Class::Permanent,
            Self::Redirect { .. } | Self::Status { .. } | Self::NotSmart(_) | Self::Start { .. } => Class::Permanent,
            Self::Blocked { .. } | Self::NoTls { .. } => Class::Permanent,
            Self::Remote(_) | Self::Unable(_) => Class::Permanent,
        }
    }
}
