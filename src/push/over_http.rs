//! A push over HTTP: `GET info/refs` for the advertisement, `POST git-receive-pack` for request and report. Another advertisement may
//! follow on the same connection.

use super::advertisement::MaxBytes;
use super::body::body;
use super::{Advertised, Capabilities, PackSource, Report, Request, advertisement, report};
use crate::credentials::Redactor;
use crate::refs::{NameRef, Oid};
use crate::wire::{Error, Http, HttpLines, Service, drain, next_line};

/// A push over HTTP.
pub(super) struct OverHttp {
    http: Http,
    capabilities: Capabilities,
    most: MaxBytes,
    /// The answer that [`OverHttp::begin`] requested. Its body is still unread.
    begun: Option<HttpLines>,
}

impl OverHttp {
    /// Prepares a push to the server of `http`. Nothing is sent yet.
    pub(super) fn new(http: Http, most: MaxBytes) -> Self {
        Self { http, capabilities: Capabilities::default(), most, begun: None }
    }

    /// Asks for the advertisement, without reading what comes.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        self.begun = Some(self.http.info_refs(Service::ReceivePack)?);
        Ok(())
    }

    /// Asks for the advertisement, unless that was done, and reads it.
    pub(super) fn advertisement(&mut self, each: &mut dyn FnMut(NameRef<'_>, Oid)) -> Result<Advertised, Error> {
        let mut lines = match self.begun.take() {
            Some(lines) => lines,
            None => self.http.info_refs(Service::ReceivePack)?,
        };
        let service = next_line(&mut lines).map_err(|error| Error::Protocol(error.to_string()))?;
        if service.map(<[u8]>::trim_ascii_end) != Some(b"# service=git-receive-pack") {
            return Err(Error::Protocol("an advertisement of another service".into()));
        }
        next_line(&mut lines).map_err(|error| Error::Protocol(error.to_string()))?;
        lines.reset();
        let advertised = advertisement::read(&mut lines, self.most, each).map_err(|error| self.http.clean(error))?;
        drain(lines);
        self.capabilities = advertised.capabilities.clone();
        Ok(advertised)
    }

    /// Sends the request without an advertisement before it. `expected` has the mirror's capabilities at the last contact.
    pub(super) fn push_optimistic(
        &mut self,
        request: &Request<'_>,
        pack: Option<PackSource>,
        redactor: &Redactor,
        expected: &Capabilities,
    ) -> Result<Report, Error> {
        self.capabilities = expected.clone();
        self.push(request, pack, redactor)
    }

    /// Sends the request and reads the report.
    pub(super) fn push(
        &mut self,
        request: &Request<'_>,
        pack: Option<PackSource>,
        redactor: &Redactor,
    ) -> Result<Report, Error> {
        let (mut body, length) = body(request.encode(&self.capabilities), pack)?;
        let answered = self.http.post(Service::ReceivePack, &mut body, length);
        if let Some(error) = body.pack_failure {
            return Err(error);
        }
        let mut lines = answered.map_err(|error| match error {
            Error::Broken { source, .. } => Error::Upload(source),
            other => other,
        })?;
        let report = report::read(&mut lines, request, &self.capabilities, redactor);
        drain(lines);
        let cut = report.cut.map(|error| self.http.clean(error));
        Ok(Report { cut, ..report })
    }
}
