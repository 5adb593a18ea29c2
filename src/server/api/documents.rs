//! Paths outside the resource tree: version, health, metrics, discovery, OpenAPI, and what other areas registered.

use super::body::header;
use super::respond::{Wanted, code, gzip, object_response};
use super::{Api, Incoming};
use crate::server::codec::Offer;
use crate::server::document::{Asked, Document};
use crate::server::{discovery, health, openapi};
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderName, HeaderValue, Method, Response};
use std::sync::Arc;

/// Documents larger than this are compressed (OpenAPI documents are, discovery of a small cluster is not).
const GZIP_ABOVE_BYTES: usize = 16 << 10;

impl Api {
    pub(super) async fn documents(self: &Arc<Self>, incoming: Incoming) -> Result<Response<Body>> {
        let Incoming { info, query, mut request, user } = incoming;
        if let Some(endpoint) = self.endpoint(&info.path) {
            request.extensions_mut().insert(user);
            return Ok(endpoint(self.clone(), request).await);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Status::no_such_path());
        }
        let headers = request.headers();
        if let Some(response) = health::serve(self, &info.path, &query) {
            return Ok(response);
        }
        match info.path.trim_end_matches('/') {
            "/version" => {
                let offer = Offer { protobuf: false, views: false };
                let wanted = Wanted::parse(headers, request.extensions(), &query, offer)?;
                return object_response(&health::version(), Success::Ok, wanted);
            }
            "/metrics" => {
                let tunnels = self.kubelets().map(|k| k.dialer().tunnels().metrics()).unwrap_or_default();
                return Ok(text_response(self.metrics().render(self.registry()) + &tunnels));
            }
            "" => return Ok(self.paths()),
            _ => {}
        }
        let asked = Asked {
            path: &info.path,
            query: request.uri().query().unwrap_or(""),
            accept: header(headers, ACCEPT.as_str()),
            if_none_match: header(headers, IF_NONE_MATCH.as_str()),
        };
        let kinds = self.registry().kinds();
        let found = discovery::serve(asked, &kinds).or_else(|| openapi::serve(asked, &kinds));
        let document = found.ok_or_else(Status::no_such_path)??;
        let zips = header(headers, ACCEPT_ENCODING.as_str()).is_some_and(|v| v.contains("gzip"));
        Ok(document_response(document, zips))
    }

    fn endpoint(&self, path: &str) -> Option<super::Endpoint> {
        let under =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let found =
            self.parts.endpoints.iter().filter(|(prefix, _)| under(prefix)).max_by_key(|(prefix, _)| prefix.len());
        found.map(|(_, endpoint)| endpoint.clone())
    }

    /// `/`: the paths there are.
    fn paths(&self) -> Response<Body> {
        let mut paths: Vec<String> =
            ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]
                .map(str::to_owned)
                .into();
        for kind in self.registry().kinds().into_iter().filter(|k| !k.group.is_empty()) {
            paths.push(format!("/apis/{}", kind.group));
            paths.push(format!("/apis/{}/{}", kind.group, kind.version));
        }
        paths.extend(self.parts.endpoints.iter().map(|(prefix, _)| (*prefix).to_owned()));
        paths.sort();
        paths.dedup();
        let mut response = Response::new(Body::from(serde_json::json!({"paths": paths}).to_string()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn document_response(document: Document, zips: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let set = |name: HeaderName, value: &str, response: &mut Response<Body>| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    match document {
        Document::NotModified { etag } => {
            *response.status_mut() = code(Success::NotModified.code());
            set(ETAG, &etag, &mut response);
        }
        Document::Moved { location } => {
            *response.status_mut() = code(Success::MovedPermanently.code());
            set(LOCATION, &location, &mut response);
        }
        Document::Body(body) => {
            let zipped = if zips && body.bytes.len() > GZIP_ABOVE_BYTES { gzip(&body.bytes) } else { None };
            if zipped.is_some() {
                set(CONTENT_ENCODING, "gzip", &mut response);
            }
            set(CONTENT_TYPE, &body.content_type, &mut response);
            if let Some(etag) = &body.etag {
                set(ETAG, etag, &mut response);
            }
            if body.vary_accept {
                set(VARY, "Accept", &mut response);
            }
            if let Some(cache) = body.cache_control {
                set(CACHE_CONTROL, cache, &mut response);
            }
            *response.body_mut() = Body::from(zipped.unwrap_or(body.bytes));
        }
    }
    response
}

fn text_response(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
