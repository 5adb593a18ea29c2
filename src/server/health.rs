//! `/healthz`, `/livez`, `/readyz` with `?verbose` and `?exclude=`, single checks by path; `/version`.

use crate::object::Object;
use crate::server::api::Api;
use crate::server::request::Query;
use crate::status::Reason;
use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use serde_json::json;

/// What clients take this server for: the API level, and whose build it is.
pub const GIT_VERSION: &str = crate::KUBERNETES_VERSION;

/// One check: fine, or why not.
type Check = fn(&Api) -> Result<(), &'static str>;

/// Checks by name, in the order they are shown.
const CHECKS: &[(&str, Check)] =
    &[("ping", |_| Ok(())), ("etcd", store), ("poststarthook/bootstrap", ready), ("shutdown", shutdown)];

/// `/livez` must not fail because the server is starting or stopping in order.
const NOT_FOR_LIVENESS: &[&str] = &["poststarthook/bootstrap", "shutdown"];

fn store(api: &Api) -> Result<(), &'static str> {
    if api.registry().store().revision().0 > 0 { Ok(()) } else { Err("the store has no revision") }
}

fn ready(api: &Api) -> Result<(), &'static str> {
    if api.is_ready() { Ok(()) } else { Err("not finished") }
}

fn shutdown(api: &Api) -> Result<(), &'static str> {
    if api.stop_token().is_cancelled() { Err("process is shutting down") } else { Ok(()) }
}

/// Answer a health path; None for any other.
pub fn serve(api: &Api, path: &str, query: &Query) -> Option<Response<Body>> {
    let (endpoint, single) = match path.trim_matches('/').split_once('/') {
        Some((endpoint, single)) => (endpoint, Some(single)),
        None => (path.trim_matches('/'), None),
    };
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    let live = endpoint == "livez";
    let checks = CHECKS.iter().filter(|(name, _)| !(live && NOT_FOR_LIVENESS.contains(name)));
    if let Some(single) = single {
        let (_, check) = checks.clone().find(|(name, _)| *name == single)?;
        return Some(match check(api) {
            Ok(()) => text(StatusCode::OK, "ok".to_owned()),
            Err(why) => text(failed(), format!("internal server error: {why}\n")),
        });
    }
    let mut report = String::new();
    let mut fine = true;
    for (name, check) in checks {
        if query.all("exclude").any(|e| e == *name) {
            report += &format!("[+]{name} excluded: ok\n");
            continue;
        }
        match check(api) {
            Ok(()) => report += &format!("[+]{name} ok\n"),
            Err(why) => {
                tracing::debug!(check = name, why, "health check fails");
                report += &format!("[-]{name} failed: reason withheld\n");
                fine = false;
            }
        }
    }
    Some(match (fine, query.find("verbose").is_some()) {
        (true, false) => text(StatusCode::OK, "ok".to_owned()),
        (true, true) => text(StatusCode::OK, format!("{report}{endpoint} check passed\n")),
        (false, _) => text(failed(), format!("{report}{endpoint} check failed\n")),
    })
}

fn failed() -> StatusCode {
    StatusCode::from_u16(Reason::InternalError.parts().1).unwrap_or_default()
}

fn text(code: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The body of `/version`.
pub fn version() -> Object {
    json!({
        "major": "1", "minor": "37", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", arch()),
        "emulationMajor": "1", "emulationMinor": "37", "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
    })
}

/// The architecture as Go and container images name it.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
