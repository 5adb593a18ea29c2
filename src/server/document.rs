//! Documents that clients cache: discovery and OpenAPI. What to answer, without HTTP.

use bytes::Bytes;

/// An answer; `api` turns it into HTTP.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// 200.
    Body(Body),
    /// 304: `If-None-Match` named the current ETag.
    NotModified { etag: String },
    /// 301 to the current address of a document (OpenAPI v3 with a stale hash).
    Moved { location: String },
}

/// A document and its headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    pub bytes: Bytes,
    pub content_type: String,
    /// Quoted, as the header wants it.
    pub etag: Option<String>,
    /// `Vary: Accept` is to be sent.
    pub vary_accept: bool,
    /// `Cache-Control`, where the document may be cached for good.
    pub cache_control: Option<&'static str>,
}

/// What of a request these documents depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub path: &'a str,
    pub query: &'a str,
    pub accept: Option<&'a str>,
    pub if_none_match: Option<&'a str>,
}
