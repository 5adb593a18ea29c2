//! Kubernetes `Status`: the one error type of the API, and the only place that knows HTTP status codes.
//!
//! Source of the rules: `k8s.io/apimachinery` `metav1.Status` and the texts that `kubectl` users know
//! from upstream's `api/errors` package.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Machine-readable cause, upstream's `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The reason's wire name and HTTP status code.
    pub const fn parts(self) -> (&'static str, u16) {
        match self {
            Reason::Unauthorized => ("Unauthorized", 401),
            Reason::Forbidden => ("Forbidden", 403),
            Reason::NotFound => ("NotFound", 404),
            Reason::AlreadyExists => ("AlreadyExists", 409),
            Reason::Conflict => ("Conflict", 409),
            Reason::Gone => ("Gone", 410),
            Reason::Invalid => ("Invalid", 422),
            Reason::ServerTimeout => ("ServerTimeout", 500),
            Reason::Timeout => ("Timeout", 504),
            Reason::TooManyRequests => ("TooManyRequests", 429),
            Reason::BadRequest => ("BadRequest", 400),
            Reason::MethodNotAllowed => ("MethodNotAllowed", 405),
            Reason::NotAcceptable => ("NotAcceptable", 406),
            Reason::RequestEntityTooLarge => ("RequestEntityTooLarge", 413),
            Reason::UnsupportedMediaType => ("UnsupportedMediaType", 415),
            Reason::InternalError => ("InternalError", 500),
            Reason::Expired => ("Expired", 410),
            Reason::ServiceUnavailable => ("ServiceUnavailable", 503),
        }
    }
}

/// How a request succeeded, with its HTTP status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    Ok,
    Created,
    /// A deletion that waits for finalizers.
    Accepted,
    NotModified,
    MovedPermanently,
}

impl Success {
    pub fn code(self) -> u16 {
        match self {
            Success::Ok => 200,
            Success::Created => 201,
            Success::Accepted => 202,
            Success::MovedPermanently => 301,
            Success::NotModified => 304,
        }
    }
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `status.details`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, rename = "retryAfterSeconds", skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A failed request, as the client sees it. `Display` is the message alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// `metadata.continue` of an expired list: how to go on without consistency.
    pub list_continue: Option<Box<str>>,
}

/// What every API operation answers.
pub type Result<T, E = Status> = std::result::Result<T, E>;

/// A resource for messages: `pods`, `deployments.apps`.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Status { reason, message: message.into(), details: None, list_continue: None }
    }

    fn about(reason: Reason, group: &str, resource: &str, name: &str, message: String) -> Self {
        let details = Details { name: name.into(), group: group.into(), kind: resource.into(), ..Default::default() };
        Status { reason, message, details: Some(Box::new(details)), list_continue: None }
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(resource, group));
        Self::about(Reason::NotFound, group, resource, name, message)
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(resource, group));
        Self::about(Reason::AlreadyExists, group, resource, name, message)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(resource, group));
        Self::about(Reason::Conflict, group, resource, name, message)
    }

    /// The conflict of a write with a stale `resourceVersion`.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(resource, group))
        } else {
            format!("{} \"{name}\" is forbidden: {why}", qualified(resource, group))
        };
        Self::about(Reason::Forbidden, group, resource, name, message)
    }

    /// Validation failed: one cause a field. `kind` is the kind's name (`Pod`), not the resource.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: crate::field::Errors) -> Self {
        let message = format!("{} \"{name}\" is invalid: {errors}", qualified(kind, group));
        let mut status = Self::about(Reason::Invalid, group, kind, name, message);
        status.details.get_or_insert_default().causes = errors.into_causes();
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub fn internal(error: impl fmt::Display) -> Self {
        let mut status = Self::new(Reason::InternalError, format!("Internal error occurred: {error}"));
        status = status.with_cause("", error.to_string(), "");
        status
    }

    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    pub fn method_not_allowed(group: &str, resource: &str, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind \"{}\"", qualified(resource, group));
        Self::about(Reason::MethodNotAllowed, group, resource, "", message)
    }

    /// No such path or resource: the text kubectl turns into "the server doesn't have a resource type".
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource").with_details(Details::default())
    }

    /// A list or watch from a revision that compaction has removed.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let message = format!("Timeout: {}", message.into());
        Self::new(Reason::Timeout, message).with_details(Details { retry_after_seconds, ..Default::default() })
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }

    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason
    }

    /// HTTP status code of the answer.
    pub fn code(&self) -> u16 {
        self.reason.parts().1
    }

    /// The `v1.Status` object that goes over the wire.
    pub fn to_object(&self) -> serde_json::Value {
        let (reason, code) = self.reason.parts();
        let mut object = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": reason, "code": code,
        });
        if let Some(details) = &self.details {
            object["details"] = serde_json::to_value(details).unwrap_or_default();
        }
        if let Some(token) = &self.list_continue {
            object["metadata"]["continue"] = token.as_ref().into();
        }
        object
    }
}

/// The `Success` Status that a deletion answers with.
pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> serde_json::Value {
    let details = Details {
        name: name.into(),
        group: group.into(),
        kind: resource.into(),
        uid: uid.into(),
        ..Default::default()
    };
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
