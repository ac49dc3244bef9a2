//! A connection to the database. The only file that names its client.
//!
//! Guaranteed: no call takes longer than its limit, whatever the database or the network does.
//! After an error the caller must drop the connection: nothing here rolls its transaction back, and
//! whether an unfinished call took effect is unknown. Statements have no name, so a pooler such as
//! PgBouncer may be in between.

use std::pin::Pin;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Access, Error, told};
use crate::credentials::{Redactor, Secret, read_source};
use crate::wire::client_tls;

/// What every transaction begins with. The timeouts make the database give up the locks of a
/// machine that is cut off. A commit does not wait for the disk: if the database loses one, the
/// node notices it and sends everything again.
const BEGIN: &str = "begin; set local synchronous_commit = off; set local statement_timeout = '5s'; \
                     set local idle_in_transaction_session_timeout = '5s'; set local search_path = git_mirror_push";

/// An open connection.
pub(super) struct Database {
    client: Client,
    driver: Driver,
    /// The longest wait for one answer.
    limit: Duration,
}

/// Drives the connection while a call waits for its answer. When it is dropped, it does not wait
/// for what still runs in it, for example a name lookup.
struct Driver(Option<Runtime>);

impl Driver {
    fn new() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| Self(Some(runtime))).map_err(|error| Error::Unreachable(told(&error)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("only `drop` takes it")
    }

    /// Waits for an answer, but not for ever.
    fn wait<T>(&self, limit: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let why = format!("it does not answer within {} s", limit.as_secs());
        let late = || Error::Unreachable(Redactor::default().clean(&why));
        let waiting = async { tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late())) };
        self.runtime().block_on(waiting)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The task that sends and receives on the connection.
type Carrier = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

impl Access {
    fn password(&self) -> Result<Option<Secret>, Error> {
        let file = self.keys.password_file.as_deref();
        let found = read_source(file, self.keys.password_command.as_deref(), self.systemd.as_deref());
        found.transpose().map(|found| found.map(Secret::new)).map_err(|why| Error::Secret(format!("[fleet]: {why}")))
    }
}

impl Database {
    /// Connects. Over the network the database must prove its name with a certificate, unless the configuration says otherwise.
    pub(super) fn connect(access: &Access, limit: Duration) -> Result<Self, Error> {
        let mut config: Config = access.url.parse().map_err(|error| Error::Url(told(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(Error::Url("it names no host".into()));
        }
        if config.get_password().is_some() {
            return Err(Error::Url(
                "it holds a password; put it into a file, and name the file with password_file".into(),
            ));
        }
        if let Some(secret) = access.password()? {
            config.password(secret.expose());
        }
        config.application_name(format!("git-mirror-push {}", access.node()));
        config.connect_timeout(limit).tcp_user_timeout(limit);
        if config.get_hosts().len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let is_loopback = config.get_hostaddrs().iter().all(core::net::IpAddr::is_loopback);
        let may_be_plain =
            is_loopback && config.get_hosts().iter().all(is_here) || access.keys.allow_insecure == Some(true);
        let is_plain = match (config.get_ssl_mode(), may_be_plain) {
            (SslMode::Disable, false) => return Err(Error::Insecure),
            (SslMode::Disable | SslMode::Prefer, true) => true,
            _ => false,
        };
        config.ssl_mode(if is_plain { SslMode::Disable } else { SslMode::Require });
        let driver = Driver::new()?;
        let tls = client_tls(access.keys.ca_file.as_deref()).map_err(|error| Error::Url(told(&error)));
        let connecting = async {
            Ok(if is_plain {
                let (client, carrier) = config.connect(NoTls).await.map_err(|error| failed(&error))?;
                (client, Box::pin(carrier) as Carrier)
            } else {
                let connected = config.connect(MakeRustlsConnect::new(tls?)).await;
                let (client, carrier) = connected.map_err(|error| failed(&error))?;
                (client, Box::pin(carrier) as Carrier)
            })
        };
        let (client, carrier) = driver.wait(limit, connecting)?;
        // An error of this task is also the error of the call that waits.
        drop(driver.runtime().spawn(carrier));
        Ok(Self { client, driver, limit })
    }

    /// Does all of `act`, or nothing of it.
    pub(super) fn transaction<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.run(BEGIN)?;
        let done = act(self)?;
        self.run("commit")?;
        Ok(done)
    }

    /// Runs a statement that returns one column of JSON as text. The values are texts too, so the statement casts them: `$1::bigint`.
    pub(super) fn rows<T: DeserializeOwned>(&mut self, sql: &str, values: &[&str]) -> Result<Vec<T>, Error> {
        let values: Vec<(&(dyn ToSql + Sync), Type)> =
            values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)).collect();
        let asked = async { self.client.query_typed(sql, &values).await.map_err(|error| failed(&error)) };
        let rows = self.driver.wait(self.limit, asked)?;
        let read = |row: &tokio_postgres::Row| {
            let text: &str = row.try_get(0).map_err(|error| Error::Odd(told(&error)))?;
            serde_json::from_str(text).map_err(|error| Error::Odd(told(&error)))
        };
        rows.iter().map(read).collect()
    }

    /// Runs statements without values that return nothing.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.driver.wait(self.limit, async { self.client.batch_execute(sql).await.map_err(|error| failed(&error)) })
    }
}

/// Whether a host is this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.parse::<core::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
    }
}

fn failed(error: &tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else { return Error::Unreachable(told(error)) };
    match said.code() {
        code if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME => Error::NoTables,
        _ => Error::Refused(Redactor::default().clean(said.message())),
    }
}
