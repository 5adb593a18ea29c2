//! Small HTTP pieces both sides use.

use crate::status::Status;
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

/// A `Status` as an answer.
pub fn status_response(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::from(status.to_object().to_string()));
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer of a health check: 200, or 503 for what should get no requests now.
pub fn probe_response(healthy: bool, json: String) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
