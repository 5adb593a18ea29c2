//! The `proxy` subresource of nodes, pods and Services: any HTTP request goes on to the backend, and what comes back
//! is made to work behind the longer path (upstream's `apimachinery/pkg/util/proxy`).

mod html;
mod path;
mod target;

use crate::server::api::Incoming;
use crate::server::kubelet::{self, Kubelets};
use crate::server::registry::Call;
use crate::status::{Reason, Result, Status, Success};
use crate::wire::forward;
use crate::wire::listener::Peer;
use crate::wire::stream::BoxStream;
use crate::wire::upgrade::{self, Answer};
use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use futures::StreamExt;
use html::Rewriter;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use std::io::{self, Write};
use std::sync::Arc;
use target::Target;

/// What a backend says about itself; clients must hear the API server's own.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// Where we stand between client and backend.
#[derive(Clone)]
struct Place {
    /// The path up to and with `proxy`.
    prefix: String,
    /// What is asked of the backend.
    path: String,
    /// The backend's host and port.
    backend: String,
    /// The host that the client asked.
    asked: String,
}

/// Send the request on.
pub async fn serve(call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let Incoming { info, request, .. } = incoming;
    let kubelets = call.api.kubelets().cloned().ok_or_else(|| Status::unavailable("this server cannot reach nodes"))?;
    let resource = call.kind().plural;
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if !known.contains(request.method()) {
        return Err(Status::method_not_allowed("", resource, request.method().as_str()));
    }
    let target = target::find(&**call.api.registry(), resource, call.namespace(), &info.name).await?;
    let segments = if call.kind().is_namespaced() { 7 } else { 5 };
    let (prefix, path) = path::split(request.uri().path(), segments);
    let place = Place { prefix: prefix.to_owned(), path, backend: target.authority(), asked: host(&request) };
    if forward::upgrade(request.headers()).is_some() {
        return switch(&kubelets, &target, &place, request).await;
    }
    if place.path.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return redirect(&request);
    }
    let (parts, body) = request.into_parts();
    let mut onward = onward(&place, &parts, body)?;
    let uri = HeaderValue::from_str(&format!("{}{}", place.prefix, place.path)).map_err(Status::internal)?;
    onward.headers_mut().insert("x-forwarded-uri", uri);
    let unreachable = |error: String| Status::unavailable(format!("error trying to reach service: {error}"));
    let stream = connect(&kubelets, &target).await.map_err(|e| unreachable(e.to_string()))?;
    let answer = upgrade::request(stream, onward, kubelets.group()).await;
    match answer.map_err(|e| unreachable(describe(&e)))? {
        Answer::Plain(response) => Ok(returned(response.map(Body::new), &place)),
        Answer::Switched(..) => Err(unreachable("the backend switched protocols without being asked".to_owned())),
    }
}

/// A request that asks for another protocol.
async fn switch(
    kubelets: &Arc<Kubelets>,
    target: &Target,
    place: &Place,
    request: Request<Body>,
) -> Result<Response<Body>> {
    let failed = |step: &str, error: String| Status::new(Reason::InternalError, format!("error {step}: {error}"));
    let (parts, body) = request.into_parts();
    let onward = onward(place, &parts, Body::empty())?;
    let stream = connect(kubelets, target).await.map_err(|e| failed("dialing backend", e.to_string()))?;
    let answer = upgrade::request(stream, onward, kubelets.group()).await;
    match answer.map_err(|e| failed("sending request", describe(&e)))? {
        Answer::Switched(headers, io) => {
            Ok(upgrade::relay(Request::from_parts(parts, body), headers, *io, kubelets.group()))
        }
        Answer::Plain(response) if response.status().as_u16() >= 400 => Ok(returned(response.map(Body::new), place)),
        Answer::Plain(response) => {
            let text = format!("invalid upgrade response: status code {}", response.status().as_u16());
            Err(Status::new(Reason::InternalError, text))
        }
    }
}

async fn connect(kubelets: &Kubelets, target: &Target) -> io::Result<BoxStream> {
    match target {
        Target::Kubelet(node) => kubelets.connect(node).await,
        Target::Address { node, tls, host, port } => {
            let port = port.unwrap_or(if *tls { 443 } else { 80 });
            let stream = kubelets.dialer().dial(node, host, port).await?;
            if *tls { kubelet::unverified_tls(stream, host).await } else { Ok(stream) }
        }
    }
}

/// The request as the backend gets it.
fn onward(place: &Place, parts: &Parts, body: Body) -> Result<Request<Body>> {
    let query = parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let path = if place.path.is_empty() { "/" } else { &place.path };
    let uri = format!("{path}{query}").parse().map_err(|e| Status::bad_request(format!("invalid path: {e}")))?;
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method.clone();
    *onward.uri_mut() = uri;
    *onward.headers_mut() = kubelet::without_credentials(&forward::request_headers(&parts.headers));
    let host = if place.asked.is_empty() { &place.backend } else { &place.asked };
    onward.headers_mut().insert(header::HOST, HeaderValue::from_str(host).map_err(Status::internal)?);
    if let Some(peer) = parts.extensions.get::<Peer>() {
        forward::add_forwarded_for(onward.headers_mut(), peer.0.ip());
    }
    Ok(onward)
}

/// The host that the client asked: HTTP/2 has it in the URI.
fn host(request: &Request<Body>) -> String {
    let header = || request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    request.uri().authority().map(|a| a.to_string()).or_else(header).unwrap_or_default()
}

/// Pages refer to their neighbours by relative paths: the root of a backend needs its slash.
fn redirect(request: &Request<Body>) -> Result<Response<Body>> {
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", request.uri().path())).map_err(Status::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(Success::MovedPermanently.code()).map_err(Status::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The backend's answer as the client gets it.
fn returned(response: Response<Body>, place: &Place) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers = forward::end_to_end(&parts.headers);
    CORS.iter().for_each(|name| drop(parts.headers.remove(*name)));
    if let Some(location) = parts.headers.get(header::LOCATION).and_then(|l| l.to_str().ok()) {
        let new = path::rewrite(location, &place.prefix, &place.backend, &place.asked);
        if let Some(new) = new.and_then(|l| HeaderValue::from_str(&l).ok()) {
            parts.headers.insert(header::LOCATION, new);
        }
        return Response::from_parts(parts, body);
    }
    let Some(encoding) = Encoding::of_html(&parts.headers) else { return Response::from_parts(parts, body) };
    parts.headers.remove(header::CONTENT_LENGTH);
    let place = place.clone();
    let rewrite = move |url: &str| path::rewrite(url, &place.prefix, &place.backend, &place.asked);
    Response::from_parts(parts, page(body, Page::new(encoding, Rewriter::new(Box::new(rewrite)))))
}

/// A body with its links rewritten as it flows.
fn page(body: Body, page: Page) -> Body {
    let stream = futures::stream::unfold(Some((body.into_data_stream(), page)), |state| async move {
        let (mut body, mut page) = state?;
        let step = match body.next().await {
            Some(Ok(data)) => page.push(&data),
            Some(Err(error)) => Err(io::Error::other(error)),
            None => return Some((page.finish(), None)),
        };
        let failed = step.is_err();
        Some((step, (!failed).then_some((body, page))))
    });
    Body::from_stream(stream)
}

/// How an HTML page is encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    Plain,
    Gzip,
    Deflate,
}

impl Encoding {
    /// None for what is not HTML, or compressed in a way we cannot read.
    fn of_html(headers: &HeaderMap) -> Option<Self> {
        let value = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = value(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        if kind != "text/html" {
            return None;
        }
        match value(header::CONTENT_ENCODING) {
            "" => Some(Encoding::Plain),
            "gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Deflate),
            _ => None,
        }
    }
}

/// Unpacks, rewrites, packs.
struct Page {
    rewriter: Rewriter,
    codec: Codec,
}

enum Codec {
    Plain,
    Gzip(GzDecoder<Vec<u8>>, GzEncoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>, DeflateEncoder<Vec<u8>>),
}

impl Page {
    fn new(encoding: Encoding, rewriter: Rewriter) -> Self {
        let level = Compression::fast();
        let codec = match encoding {
            Encoding::Plain => Codec::Plain,
            Encoding::Gzip => Codec::Gzip(GzDecoder::new(Vec::new()), GzEncoder::new(Vec::new(), level)),
            Encoding::Deflate => {
                Codec::Deflate(DeflateDecoder::new(Vec::new()), DeflateEncoder::new(Vec::new(), level))
            }
        };
        Page { rewriter, codec }
    }

    fn push(&mut self, data: &[u8]) -> io::Result<Bytes> {
        let mut out = Vec::new();
        match &mut self.codec {
            Codec::Plain => self.rewriter.push(data, &mut out),
            Codec::Gzip(decoder, encoder) => {
                decoder.write_all(data)?;
                decoder.flush()?;
                self.rewriter.push(&std::mem::take(decoder.get_mut()), &mut out);
                encoder.write_all(&out)?;
                out = std::mem::take(encoder.get_mut());
            }
            Codec::Deflate(decoder, encoder) => {
                decoder.write_all(data)?;
                decoder.flush()?;
                self.rewriter.push(&std::mem::take(decoder.get_mut()), &mut out);
                encoder.write_all(&out)?;
                out = std::mem::take(encoder.get_mut());
            }
        }
        Ok(out.into())
    }

    fn finish(mut self) -> io::Result<Bytes> {
        let mut out = Vec::new();
        self.rewriter.finish(&mut out);
        Ok(match self.codec {
            Codec::Plain => out,
            Codec::Gzip(_, mut encoder) => {
                encoder.write_all(&out)?;
                encoder.finish()?
            }
            Codec::Deflate(_, mut encoder) => {
                encoder.write_all(&out)?;
                encoder.finish()?
            }
        }
        .into())
    }
}

/// hyper's errors name their cause only in the source.
fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn place() -> Place {
        Place { prefix: "/p/proxy".into(), path: "/x".into(), backend: "10.0.0.1:80".into(), asked: "me:6443".into() }
    }

    fn response(headers: &[(&'static str, &'static str)], body: Vec<u8>) -> Response<Body> {
        let pieces: Vec<io::Result<Vec<u8>>> = body.chunks(7).map(|piece| Ok(piece.to_vec())).collect();
        let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
        for (name, value) in headers {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        response
    }

    #[tokio::test]
    async fn pages_are_rewritten_in_every_encoding() {
        let page = "<a href='/y'>".repeat(100);
        let expected = "<a href='/p/proxy/y'>".repeat(100);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(page.as_bytes()).unwrap();
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(page.as_bytes()).unwrap();
        let html = ("content-type", "text/html; charset=utf-8");
        let plain = response(&[html, ("content-length", "1300")], page.clone().into_bytes());
        let zipped = response(&[html, ("content-encoding", "gzip")], gzip.finish().unwrap());
        let deflated = response(&[html, ("content-encoding", "deflate")], deflate.finish().unwrap());
        let read = |response: Response<Body>| async {
            let response = returned(response, &place());
            assert!(!response.headers().contains_key("content-length"));
            response.into_body().collect().await.unwrap().to_bytes()
        };
        assert_eq!(read(plain).await, expected);
        let mut decoder = GzDecoder::new(Vec::new());
        decoder.write_all(&read(zipped).await).unwrap();
        assert_eq!(decoder.finish().unwrap(), expected.as_bytes());
        let mut decoder = DeflateDecoder::new(Vec::new());
        decoder.write_all(&read(deflated).await).unwrap();
        assert_eq!(decoder.finish().unwrap(), expected.as_bytes());
        let unknown = response(&[html, ("content-encoding", "br")], page.clone().into_bytes());
        assert_eq!(returned(unknown, &place()).into_body().collect().await.unwrap().to_bytes(), page);
        let broken = response(&[html, ("content-encoding", "gzip")], b"no gzip at all".to_vec());
        assert!(returned(broken, &place()).into_body().collect().await.is_err());
    }

    #[test]
    fn headers_of_answers() {
        let given = [("location", "http://10.0.0.1:80/y"), ("access-control-allow-origin", "*"), ("keep-alive", "1")];
        let response = returned(response(&given, vec![]), &place());
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["location"], "/p/proxy/y");
    }
}
