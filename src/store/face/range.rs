//! KV's Range: one message, however long, of which only parts are in memory. Its length has to be known before its first
//! byte is sent, so a long one is read twice.

use super::kv::{self, range_request};
use super::range_stream::Parts;
use super::refine::Refine;
use super::{HttpResponse, REQUEST_BYTES};
use crate::store::Store;
use crate::store::proto;
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;
use std::sync::Arc;
use tonic::codec::Codec;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

/// Bytes of an answer that are kept while its length is found out. A longer one is read again.
const KEPT_BYTES: usize = 4 << 20;

/// Keys in the first part: a usual page at once.
const FIRST_KEYS: usize = 512;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

pub async fn answer(store: Arc<dyn Store>, request: Request<Body>) -> HttpResponse {
    let answered = async {
        let decoder = ProstCodec::<proto::RangeResponse, proto::RangeRequest>::default().decoder();
        let mut messages = Streaming::new_request(decoder, request.into_body(), None, Some(REQUEST_BYTES));
        let asked = messages.message().await?.ok_or_else(|| Status::internal("a request without a message"))?;
        range(store, asked).await
    };
    match answered.await {
        Ok(body) => {
            let mut response = Response::new(body);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http(),
    }
}

async fn range(store: Arc<dyn Store>, request: proto::RangeRequest) -> Result<Body, Status> {
    if Refine::of(&request)?.is_some() {
        return Ok(whole(vec![kv::range(&*store, request).await?]));
    }
    let asked = range_request(&request, None)?;
    let mut parts = Parts::new(store, asked.clone(), FIRST_KEYS);
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(part) = parts.next().await? {
        length += part.encoded_len();
        match length <= KEPT_BYTES {
            true => kept.push(part),
            false => kept.clear(),
        }
    }
    match length <= KEPT_BYTES {
        true => Ok(whole(kept)),
        false => long(parts.again(asked, FIRST_KEYS), length),
    }
}

/// A message that is in memory.
fn whole(parts: Vec<proto::RangeResponse>) -> Body {
    let length = parts.iter().map(Message::encoded_len).sum::<usize>();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    put_prefix(&mut bytes, length as u32);
    for part in parts {
        // Fails for want of room only, and there is enough.
        let _ = part.encode(&mut bytes);
    }
    let frames = [Frame::data(bytes.freeze()), Frame::trailers(trailers(&Status::new(Code::Ok, "")))];
    Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Status>))))
}

/// A message of this length that is read while it is sent.
fn long(parts: Parts, length: usize) -> Result<Body, Status> {
    let length = u32::try_from(length).map_err(|_| {
        Status::out_of_range("etcdserver: the answer is longer than 4 GiB: use a limit, or RangeStream")
    })?;
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
    put_prefix(&mut prefix, length);
    let first = stream::iter([Ok::<_, Status>(Frame::data(prefix.freeze()))]);
    let rest = stream::unfold(Some(parts), |parts| async {
        let mut parts = parts?;
        match parts.next().await {
            Ok(Some(part)) => Some((Ok(Frame::data(Bytes::from(part.encode_to_vec()))), Some(parts))),
            Ok(None) => Some((Ok(Frame::trailers(trailers(&Status::new(Code::Ok, "")))), None)),
            // Compacted in between, say: the client sees this instead of the rest.
            Err(status) => Some((Ok(Frame::trailers(trailers(&status))), None)),
        }
    });
    Ok(Body::new(StreamBody::new(first.chain(rest))))
}

fn put_prefix(bytes: &mut BytesMut, length: u32) {
    bytes.put_u8(0);
    bytes.put_u32(length);
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Only texts that fit no header are refused; the code is always there then.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::{Op, Revision, Txn};
    use http_body_util::{BodyExt, Full};

    async fn put(store: &Arc<dyn Store>, key: String, bytes: usize) {
        let put = Op::put(key, vec![b'x'; bytes]);
        store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes");
    }

    async fn ask(store: &Arc<dyn Store>, request: &proto::RangeRequest) -> HttpResponse {
        let mut bytes = BytesMut::new();
        put_prefix(&mut bytes, request.encoded_len() as u32);
        request.encode(&mut bytes).expect("has room");
        answer(store.clone(), Request::new(Body::new(Full::new(bytes.freeze())))).await
    }

    fn all(limit: i64) -> proto::RangeRequest {
        proto::RangeRequest { key: "/k/".into(), range_end: "/k0".into(), limit, ..Default::default() }
    }

    #[tokio::test]
    async fn an_answer_is_the_same_however_long() {
        let store: Arc<dyn Store> = Memory::open();
        for number in 0..1500 {
            put(&store, format!("/k/{number:04}"), 10_000).await;
        }
        let nothing = proto::RangeRequest { key: "/nothing".into(), ..Default::default() };
        let sorted = proto::RangeRequest { sort_order: proto::SortOrder::Descend as i32, ..all(20) };
        for request in [all(0), all(1), all(512), all(513), all(1499), all(1500), nothing, sorted] {
            let response = ask(&store, &request).await;
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
            let collected = response.into_body().collect().await.expect("a body");
            assert_eq!(collected.trailers().expect("trailers")["grpc-status"], "0");
            let bytes = collected.to_bytes();
            let length = u32::from_be_bytes(bytes[1..PREFIX_BYTES].try_into().expect("four"));
            assert_eq!((bytes[0], length as usize), (0, bytes.len() - PREFIX_BYTES));
            let answer = proto::RangeResponse::decode(&bytes[PREFIX_BYTES..]).expect("decodes");
            assert_eq!(answer, kv::range(&*store, request).await.expect("reads"));
        }
        let refused = ask(&store, &proto::RangeRequest { revision: 9000, ..all(0) }).await;
        assert_eq!(refused.headers()["grpc-status"], (Code::OutOfRange as i32).to_string());
    }

    #[tokio::test]
    async fn what_happens_meanwhile_is_not_in_it_or_ends_it() {
        let store: Arc<dyn Store> = Memory::open();
        for number in 0..1500 {
            put(&store, format!("/k/{number:04}"), 10_000).await;
        }
        let wanted = kv::range(&*store, all(0)).await.expect("reads");
        let (whole, cut) = (ask(&store, &all(0)).await, ask(&store, &all(0)).await);
        put(&store, "/k/0007".into(), 5).await;
        put(&store, "/k/new".into(), 5).await;
        let bytes = whole.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(proto::RangeResponse::decode(&bytes[PREFIX_BYTES..]).expect("decodes"), wanted);
        store.compact(Revision(store.revision().0)).await.expect("compacts");
        let cut = cut.into_body().collect().await.expect("a body");
        assert_eq!(cut.trailers().expect("trailers")["grpc-status"], (Code::OutOfRange as i32).to_string());
    }
}
