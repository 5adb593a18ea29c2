//! Paths outside the resource tree from functions that may fail.

use super::{Api, Endpoint, status_response};
use crate::status::{Result, Status};
use axum::body::Body;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use std::sync::Arc;

/// A function that may fail, as an endpoint.
pub fn endpoint<F>(answer: F) -> Endpoint
where
    F: Fn(Arc<Api>, Request<Body>) -> BoxFuture<'static, Result<Response<Body>>> + Send + Sync + 'static,
{
    Arc::new(move |api, request| {
        let headers = request.headers().clone();
        let answer = answer(api, request);
        Box::pin(async move { answer.await.unwrap_or_else(|status| status_response(&headers, &status)) })
    })
}

pub fn json_response(value: &impl serde::Serialize) -> Result<Response<Body>> {
    let text = serde_json::to_string(value).map_err(|e| Status::internal(e.to_string()))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
