//! Bytes as messages of etcd's API: every one gets an answer, and the store goes on.
#![no_main]

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use kedge::store::face::Face;
use kedge::store::memory::Memory;
use kedge::store::{KeyRange, Op, RangeRequest, Txn};
use kedge::task::Group;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use std::time::Duration;

/// The first byte of the input chooses one.
const METHODS: [&str; 14] = [
    "KV/Range",
    "KV/RangeStream",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "KV/Compact",
    "Watch/Watch",
    "Lease/LeaseGrant",
    "Lease/LeaseRevoke",
    "Lease/LeaseKeepAlive",
    "Lease/LeaseTimeToLive",
    "Maintenance/Alarm",
    "Maintenance/HashKV",
    "Maintenance/Snapshot",
];

/// Frames of an answer that are read: a watch or a snapshot may have many.
const FRAMES: usize = 64;
/// How long is waited for one.
const FRAME_WAIT: Duration = Duration::from_millis(20);

fuzz_target!(|input: &[u8]| {
    let Some((method, messages)) = input.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(answer(METHODS[usize::from(*method) % METHODS.len()], messages));
});

async fn answer(method: &str, messages: &[u8]) {
    let store = Memory::open();
    for n in 0..4_u8 {
        let put = Op::put(vec![b'a' + n % 3], vec![n; 3]);
        store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes");
    }
    let group = Group::root();
    let face = Arc::new(Face {
        store: store.clone(),
        name: "fuzz".to_owned(),
        url: "http://127.0.0.1:2379".to_owned(),
        progress_interval: Duration::from_secs(600),
        group: group.clone(),
    });
    let request = Request::post(format!("/etcdserverpb.{method}"))
        .header("content-type", "application/grpc")
        .body(Body::from(framed(messages)))
        .expect("a request");
    let mut answer = face.handle(request).await.into_body();
    for _ in 0..FRAMES {
        match tokio::time::timeout(FRAME_WAIT, answer.frame()).await {
            Ok(Some(Ok(_))) => {}
            _ => break,
        }
    }
    drop(answer);
    store.range(RangeRequest::of(KeyRange::prefix(""))).await.expect("reads go on");
    let put = Op::put("after", "1");
    store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes go on");
}

/// gRPC messages: the input cut into pieces by a length before each (one byte), each with gRPC's prefix.
fn framed(mut input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((length, rest)) = input.split_first() {
        let (message, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        out.push(0);
        out.extend((message.len() as u32).to_be_bytes());
        out.extend(message);
        input = rest;
    }
    out
}
