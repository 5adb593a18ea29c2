//! What went wrong, as a sentence that says what to do: either it may pass by itself, or a person must act.

use crate::config::ServerUrl;
use rustls::{AlertDescription, CertificateError};
use std::error::Error as StdError;
use std::fmt;

/// Why a node is not (yet) let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Trying again cannot help.
    Refused(String),
    /// It may pass: the server is away, a clock is wrong, somebody has to approve.
    Later(String),
    /// The server does not take the node's own certificate any more.
    Ended,
}

impl Failure {
    pub fn refused(text: impl Into<String>) -> Self {
        Failure::Refused(text.into())
    }

    pub fn later(text: impl Into<String>) -> Self {
        Failure::Later(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(text) | Failure::Later(text) => f.write_str(text),
            Failure::Ended => f.write_str("the server does not accept this node's certificate any more"),
        }
    }
}

impl StdError for Failure {}

impl From<anyhow::Error> for Failure {
    /// What fails on this host itself: files, keys.
    fn from(error: anyhow::Error) -> Self {
        Failure::Refused(format!("{error:#}"))
    }
}

/// The HTTP code with which the server refuses a version.
const NOT_ACCEPTABLE: u16 = crate::status::Reason::NotAcceptable.parts().1;
const UNAUTHORIZED: u16 = crate::status::Reason::Unauthorized.parts().1;
const FORBIDDEN: u16 = crate::status::Reason::Forbidden.parts().1;
const NOT_FOUND: u16 = crate::status::Reason::NotFound.parts().1;

/// The server refuses this version of kedge.
pub fn is_skew(status: &kube::core::Status) -> bool {
    status.code == NOT_ACCEPTABLE
}

/// What an error of a request to the server means.
pub fn of(error: &kube::Error, server: &ServerUrl) -> Failure {
    if let kube::Error::Api(status) = error {
        return match status.code {
            NOT_ACCEPTABLE => Failure::refused(&status.message),
            UNAUTHORIZED => Failure::refused(format!("{server} refuses the token")),
            FORBIDDEN => Failure::refused(format!("{server}: {}", status.message)),
            NOT_FOUND => Failure::refused(format!("{server} does not look like a kedge server: {}", status.message)),
            _ => Failure::later(format!("{server}: {}", status.message)),
        };
    }
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(error)) => certificate(error, server),
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => Failure::Ended,
        Some(error) => Failure::later(format!("no TLS with {server}: {error}; is it a kedge server?")),
        None => Failure::later(format!(
            "cannot reach {server}: {}; does the server run, is the address right, and does a firewall let port {} \
             through?",
            root(error),
            server.port
        )),
    }
}

fn certificate(error: &CertificateError, server: &ServerUrl) -> Failure {
    use CertificateError::{BadSignature, Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
    match error {
        UnknownIssuer | BadSignature => Failure::refused(format!(
            "{server} shows a certificate of another CA than the one this node trusts: either it is another server \
             (check --server), or its cluster was made anew (then remove this node's agent/pki directory and join \
             with the new token)"
        )),
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => Failure::later(format!(
            "the certificate of {server} is not valid at {}, the time on this host; set the clock (timedatectl \
             set-ntp true), on the server too",
            crate::time::rfc3339(crate::time::now())
        )),
        other => Failure::refused(format!("the certificate of {server} cannot be accepted: {other:?}")),
    }
}

/// The TLS error behind an error, wherever it hides.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The innermost cause.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
