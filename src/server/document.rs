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

impl Asked<'_> {
    /// Whether the client already holds the document with this (quoted) ETag.
    pub fn holds(&self, etag: &str) -> bool {
        let listed =
            |header: &str| header.split(',').map(|e| e.trim().trim_start_matches("W/")).any(|e| e == etag || e == "*");
        self.if_none_match.is_some_and(listed)
    }

    /// A query parameter's value, undecoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}
