//! Answers: objects in the format and view that were asked for, Status for errors, gzip for what is large.

use super::body::header;
use crate::object::Object;
use crate::server::codec::{self, Accepted, Format, Offer, View};
use crate::server::kinds::Kind;
use crate::server::raw;
use crate::server::registry::{Answer, Call, Listed, Shape};
use crate::server::request::Query;
use crate::server::table::{self, Include};
use crate::status::{Result, Status, Success};
use crate::time;
use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{Stream, StreamExt};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use std::io::Write;

/// Larger answers are compressed where the client takes gzip (upstream's threshold).
const GZIP_ABOVE_BYTES: usize = 128 << 10;
/// Warnings sent with one answer, in bytes; the rest is dropped (upstream `warning` filter).
const MAX_WARNING_BYTES: usize = 16 << 10;

/// Marks requests that come from this machine: compressing for loopback costs more than it saves.
#[derive(Clone, Copy, Debug)]
pub struct Nearby;

/// What the client wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub accepted: Accepted,
    pub include: Include,
    pub gzip: bool,
}

impl Wanted {
    /// 406 where nothing on offer fits.
    pub fn parse(headers: &HeaderMap, extensions: &http::Extensions, query: &Query, offer: Offer) -> Result<Self> {
        let mut accepted = codec::accept(header(headers, ACCEPT.as_str()), offer)?;
        accepted.pretty |= query.find("pretty").is_some_and(|v| !matches!(v, "" | "0" | "false"));
        let local = extensions.get::<crate::server::authn::LocalIdentity>().is_some();
        let near = local || extensions.get::<Nearby>().is_some();
        let gzip = !near && header(headers, ACCEPT_ENCODING.as_str()).is_some_and(|v| v.contains("gzip"));
        Ok(Wanted { accepted, include: Include::parse(query.get("includeObject"))?, gzip })
    }

    fn is_plain_json(&self) -> bool {
        self.accepted.format == Format::Json && self.accepted.view == View::Object && !self.accepted.pretty
    }
}

/// The answer with one object of a kind.
pub fn answer_response(call: &Call, answer: Answer, wanted: Wanted) -> Result<Response<Body>> {
    let kind = call.kind();
    let bytes = match &answer.stored {
        Some((value, revision)) if wanted.is_plain_json() && kind.conversion.is_none() => {
            let mut out = Vec::with_capacity(raw::spliced_len(value));
            raw::splice(&mut out, value, *revision);
            out.into()
        }
        _ => {
            let object = view(kind, answer.object, wanted);
            codec::encode(&object, wanted.accepted)?
        }
    };
    let mut response = bytes_response(answer.success, bytes, wanted);
    add_warnings(&mut response, &call.warnings);
    Ok(response)
}

fn view(kind: &Kind, object: Object, wanted: Wanted) -> Object {
    // A deletion answers with a Status, which has no other views.
    let is_own = object.get("kind").and_then(|k| k.as_str()) == Some(kind.kind);
    if !is_own {
        return object;
    }
    table::view_one(kind, object, wanted.accepted.view, wanted.include, true, time::now_seconds())
}

/// The answer with any object.
pub fn object_response(object: &Object, success: Success, wanted: Wanted) -> Result<Response<Body>> {
    Ok(bytes_response(success, codec::encode(object, wanted.accepted)?, wanted))
}

/// The answer to a list.
pub async fn list_response(list: Listed, wanted: Wanted) -> Result<Response<Body>> {
    let Accepted { format, view, pretty } = wanted.accepted;
    let shape = Shape { view, include: wanted.include, now: time::now_seconds() };
    match (format, view) {
        (Format::Json, _) if !pretty => json_list(list, shape, wanted).await,
        (Format::Protobuf, View::Object) => Ok(bytes_response(Success::Ok, list.protobuf().await?, wanted)),
        _ => object_response(&list.object(shape).await?, Success::Ok, wanted),
    }
}

async fn json_list(list: Listed, shape: Shape, wanted: Wanted) -> Result<Response<Body>> {
    let mut pieces = Box::pin(list.json(shape));
    let first = pieces.next().await.ok_or_else(|| Status::internal("a list without a beginning"))??;
    // Short lists have one piece: answer with a length, and compress as a whole.
    let Some(second) = pieces.next().await else { return Ok(bytes_response(Success::Ok, first, wanted)) };
    let pieces = futures::stream::iter([Ok(first), second]).chain(pieces);
    let body = if wanted.gzip { Body::from_stream(zipped(pieces)) } else { Body::from_stream(pieces) };
    let mut response = Response::new(body);
    set_type(&mut response, wanted.accepted, false);
    if wanted.gzip {
        mark_zipped(&mut response);
    }
    Ok(response)
}

/// Pieces compressed as they come.
fn zipped(pieces: impl Stream<Item = Result<Bytes>> + Send) -> impl Stream<Item = Result<Bytes>> + Send {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let ended = futures::stream::once(async { None });
    pieces.map(Some).chain(ended).map(move |piece| match (piece, &mut encoder) {
        (Some(piece), Some(encoder)) => {
            encoder.write_all(&piece?).map_err(Status::internal)?;
            Ok(Bytes::from(std::mem::take(encoder.get_mut())))
        }
        (_, encoder) => match encoder.take() {
            Some(encoder) => Ok(Bytes::from(encoder.finish().map_err(Status::internal)?)),
            None => Ok(Bytes::new()),
        },
    })
}

fn mark_zipped(response: &mut Response<Body>) {
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// A stream of watch frames.
pub fn watch_response(frames: impl futures::Stream<Item = Bytes> + Send + 'static, wanted: Wanted) -> Response<Body> {
    let mut response = Response::new(Body::from_stream(frames.map(Ok::<_, std::convert::Infallible>)));
    set_type(&mut response, wanted.accepted, true);
    response
}

fn bytes_response(success: Success, bytes: Bytes, wanted: Wanted) -> Response<Body> {
    let zipped = if wanted.gzip && bytes.len() > GZIP_ABOVE_BYTES { gzip(&bytes) } else { None };
    let is_zipped = zipped.is_some();
    let mut response = Response::new(Body::from(zipped.unwrap_or(bytes)));
    *response.status_mut() = code(success.code());
    set_type(&mut response, wanted.accepted, false);
    if is_zipped {
        mark_zipped(&mut response);
    }
    response
}

/// Compressed bytes, or None where that fails.
pub fn gzip(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn set_type(response: &mut Response<Body>, accepted: Accepted, watch: bool) {
    let value = HeaderValue::from_static(codec::media_type(accepted, watch));
    response.headers_mut().insert(CONTENT_TYPE, value);
}

/// A number as a status code; what is none becomes 500.
pub fn code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The answer with an error, in a format the client takes, else JSON.
pub fn status_response(headers: &HeaderMap, status: &Status) -> Response<Body> {
    let offer = Offer { protobuf: true, views: true };
    let mut accepted = codec::accept(header(headers, ACCEPT.as_str()), offer).unwrap_or_default();
    accepted.view = View::Object;
    let object = status.to_object();
    let bytes = codec::encode(&object, accepted).unwrap_or_else(|_| {
        accepted = Accepted::default();
        Bytes::from(object.to_string())
    });
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = code(status.code());
    set_type(&mut response, accepted, false);
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// `Warning: 299 - "text"` for each different text.
pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut sent: Vec<&str> = Vec::new();
    let mut size = 0;
    for text in warnings {
        size += text.len();
        if sent.contains(&text.as_str()) || size > MAX_WARNING_BYTES {
            continue;
        }
        sent.push(text);
        let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = printable.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
