//! One client for all that is measured: etcd's gRPC, or calls in the store's own process.

use crate::server::Server;
use bytes::Bytes;
use http::uri::PathAndQuery;
use kedge::store::proto::{self, RequestUnion, WatchCreateRequest, WatchRequest, WatchResponse};
use kedge::store::{KeyRange, Op, RangeRequest, Store, Txn, Watch, WatchMessage};
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longest answer that is taken.
const ANSWER_BYTES: usize = 1 << 30;

/// What a server may send before it is read: it must not stand in the way of long answers, and with less the library
/// drops a connection on which a thousand small answers have come at once.
const WINDOW_BYTES: u32 = 64 << 20;

/// How long a server may take to start.
const START_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone)]
pub enum Client {
    Grpc(Channel),
    Direct(Arc<dyn Store>),
}

/// A connection of its own to a server that answers.
pub async fn connect(server: &Server) -> Client {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let endpoint = Endpoint::from_shared(server.endpoint.clone()).expect("an address");
        let endpoint = endpoint.tcp_nodelay(true).initial_stream_window_size(WINDOW_BYTES / 4);
        let endpoint = endpoint.initial_connection_window_size(WINDOW_BYTES);
        if let Ok(channel) = endpoint.connect().await {
            let client = Client::Grpc(channel);
            if client.try_get("/ready").await.is_ok() {
                return client;
            }
        }
        assert!(Instant::now() < deadline, "the server does not answer");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
}

fn end_of(prefix: &str) -> Bytes {
    KeyRange::prefix(prefix.to_owned()).end
}

impl Client {
    pub async fn put(&self, key: String, value: Bytes) {
        match self {
            Client::Grpc(channel) => {
                let asked = proto::PutRequest { key: key.into(), value, ..Default::default() };
                let _: proto::PutResponse = call(channel, "/etcdserverpb.KV/Put", asked).await.expect("writes");
            }
            Client::Direct(store) => {
                let txn = Txn { success: vec![Op::put(key, value)], ..Txn::default() };
                store.txn(txn).await.expect("writes");
            }
        }
    }

    async fn try_get(&self, key: &str) -> Result<usize, String> {
        match self {
            Client::Grpc(channel) => {
                let asked = proto::RangeRequest { key: key.to_owned().into(), ..Default::default() };
                let answer: Result<proto::RangeResponse, _> = call(channel, "/etcdserverpb.KV/Range", asked).await;
                answer.map(|answer| answer.kvs.len()).map_err(|status| status.to_string())
            }
            Client::Direct(store) => {
                let range = KeyRange::key(key.to_owned());
                let answer = store.range(RangeRequest::of(range)).await;
                answer.map(|answer| answer.kvs.len()).map_err(|error| error.to_string())
            }
        }
    }

    pub async fn get(&self, key: &str) -> usize {
        self.try_get(key).await.expect("reads")
    }

    /// Keys and bytes of values below a prefix, in one answer.
    pub async fn list(&self, prefix: &str) -> (usize, usize) {
        let (count, bytes, _) = self.page(prefix.to_owned().into(), end_of(prefix), 0).await;
        (count, bytes)
    }

    /// The same in pages, as an API server asks.
    pub async fn list_in_pages(&self, prefix: &str, limit: usize) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        let mut from = Some(Bytes::from(prefix.to_owned()));
        while let Some(start) = from {
            let page = self.page(start, end_of(prefix), limit).await;
            (count, bytes) = (count + page.0, bytes + page.1);
            from = page.2;
        }
        (count, bytes)
    }

    /// Keys, bytes of values, and where to go on.
    async fn page(&self, start: Bytes, end: Bytes, limit: usize) -> (usize, usize, Option<Bytes>) {
        let after = |key: &Bytes| Bytes::from([key, &[0][..]].concat());
        match self {
            Client::Grpc(channel) => {
                let asked =
                    proto::RangeRequest { key: start, range_end: end, limit: limit as i64, ..Default::default() };
                let answer: proto::RangeResponse = call(channel, "/etcdserverpb.KV/Range", asked).await.expect("reads");
                let bytes = answer.kvs.iter().map(|kv| kv.value.len()).sum();
                let next = answer.kvs.last().filter(|_| answer.more).map(|kv| after(&kv.key));
                (answer.kvs.len(), bytes, next)
            }
            Client::Direct(store) => {
                let mut asked = RangeRequest::of(KeyRange { start, end });
                asked.limit = limit;
                let answer = store.range(asked).await.expect("reads");
                let bytes = answer.kvs.iter().map(|kv| kv.value.len()).sum();
                let next = answer.kvs.last().filter(|_| answer.more).map(|kv| after(&kv.key));
                (answer.kvs.len(), bytes, next)
            }
        }
    }

    /// Watches of these prefixes, on one stream.
    pub async fn watch(&self, prefixes: Vec<String>) -> Watches {
        match self {
            Client::Grpc(channel) => stream(channel, prefixes).await,
            Client::Direct(store) => {
                let mut watches = Vec::with_capacity(prefixes.len());
                for prefix in prefixes {
                    watches.push(store.watch(KeyRange::prefix(prefix), None).await.expect("watches"));
                }
                Watches::Direct(watches)
            }
        }
    }
}

pub enum Watches {
    Grpc { answers: Box<Streaming<WatchResponse>>, _requests: mpsc::Sender<WatchRequest> },
    Direct(Vec<Box<dyn Watch>>),
}

async fn stream(channel: &Channel, prefixes: Vec<String>) -> Watches {
    let (requests, queue) = mpsc::channel(prefixes.len().max(1));
    for prefix in &prefixes {
        let create = WatchCreateRequest { key: prefix.clone().into(), range_end: end_of(prefix), ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::Create(create)) };
        requests.try_send(request).expect("there is room");
    }
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES);
    grpc.ready().await.expect("connected");
    let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let answers = grpc.streaming(Request::new(ReceiverStream::new(queue)), path, codec).await.expect("watches");
    let mut answers = answers.into_inner();
    let mut created = 0;
    while created < prefixes.len() {
        let answer = answers.message().await.expect("answers").expect("answers");
        assert!(!answer.canceled, "{}", answer.cancel_reason);
        created += usize::from(answer.created);
    }
    Watches::Grpc { answers: Box::new(answers), _requests: requests }
}

impl Watches {
    /// Take events until each of the watches has had `each`; on one stream, until all together have had as many.
    pub async fn take(self, each: usize, watches: usize) {
        match self {
            Watches::Grpc { mut answers, _requests } => {
                let mut left = each * watches;
                while left > 0 {
                    let answer = answers.message().await.expect("events").expect("events");
                    left = left.saturating_sub(answer.events.len());
                }
            }
            Watches::Direct(watches) => {
                let mut tasks = tokio::task::JoinSet::new();
                watches.into_iter().for_each(|watch| drop(tasks.spawn(take(watch, each))));
                tasks.join_all().await;
            }
        }
    }
}

async fn take(mut watch: Box<dyn Watch>, count: usize) {
    let mut left = count;
    while left > 0 {
        if let WatchMessage::Events(events) = watch.next().await.expect("events") {
            left = left.saturating_sub(events.len());
        }
    }
}
