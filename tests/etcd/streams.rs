//! What only a client of its own can ask of the watch stream: many watches on one, and answers in fragments. The messages
//! are those of etcd's `rpc.proto`, as far as they are needed.

use super::server::{Server, etcdctl};
use http::uri::PathAndQuery;
use kedge::store::{Op, Txn};
use prost::{Message, Oneof};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(oneof = "Asked", tags = "1, 2, 3")]
    asked: Option<Asked>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Asked {
    #[prost(message, tag = "1")]
    Create(Create),
    #[prost(message, tag = "2")]
    Cancel(Cancel),
    #[prost(message, tag = "3")]
    Progress(Progress),
}

#[derive(Clone, PartialEq, Message)]
struct Create {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
    #[prost(bool, tag = "8")]
    fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Cancel {
    #[prost(int64, tag = "1")]
    watch_id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Progress {}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(int64, tag = "2")]
    watch_id: i64,
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(bool, tag = "7")]
    fragment: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(message, optional, tag = "2")]
    kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Stream {
    async fn open(server: &Server) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.endpoint)).expect("an address");
        let channel = endpoint.connect().await.expect("connects");
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
        grpc.ready().await.expect("is ready");
        let (requests, queue) = mpsc::unbounded_channel();
        let codec = tonic_prost::ProstCodec::<WatchRequest, WatchResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let request = tonic::Request::new(UnboundedReceiverStream::new(queue));
        let answers = grpc.streaming(request, path, codec).await.expect("opens").into_inner();
        Stream { requests, answers }
    }

    fn ask(&self, asked: Asked) {
        self.requests.send(WatchRequest { asked: Some(asked) }).expect("is open");
    }

    async fn answer(&mut self) -> WatchResponse {
        self.answers.message().await.expect("goes on").expect("is not at its end")
    }
}

fn prefix(key: &str, fragment: bool) -> Create {
    let mut range_end = key.as_bytes().to_vec();
    *range_end.last_mut().expect("a key") += 1;
    Create { key: key.into(), range_end, start_revision: 1, fragment }
}

async fn write(server: &Server, ops: Vec<Op>) -> i64 {
    server.store.txn(Txn { success: ops, ..Txn::default() }).await.expect("writes").revision.0 as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_too_large_for_an_answer_comes_in_fragments() {
    const VALUE: usize = 700_000;
    const VALUES: usize = 9;
    let server = Server::start().await;
    let put = |number: usize| Op::put(format!("/large/{number}"), vec![number as u8; VALUE]);
    let large = write(&server, (0..VALUES).map(put).collect()).await;
    let small = write(&server, vec![Op::put("/large/small", "x")]).await;
    for fragment in [true, false] {
        let mut stream = Stream::open(&server).await;
        stream.ask(Asked::Create(prefix("/large/", fragment)));
        assert!(stream.answer().await.created);
        let (mut revisions, mut fragments) = (Vec::new(), 0);
        while revisions.last() != Some(&small) {
            let answer = stream.answer().await;
            fragments += usize::from(answer.fragment);
            if fragment {
                assert!(answer.encoded_len() < 2 * VALUE + 1_000_000, "{} bytes", answer.encoded_len());
                let last = answer.events.last().and_then(|event| event.kv.as_ref()).expect("has events");
                assert!(!answer.fragment || last.mod_revision == large, "only within a revision");
            }
            revisions.extend(answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision));
        }
        assert_eq!(revisions, [vec![large; VALUES], vec![small]].concat());
        assert_eq!(fragments > 0, fragment, "{fragments} fragments");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_watches_share_a_stream() {
    const WATCHES: usize = 5000;
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    for number in 0..WATCHES {
        let key = format!("/k/{number:05}").into_bytes();
        stream.ask(Asked::Create(Create { key, ..Create::default() }));
    }
    // One sees everything.
    stream.ask(Asked::Create(Create { start_revision: 0, ..prefix("/k/", false) }));
    let mut ids = Vec::new();
    while ids.len() < WATCHES + 1 {
        let answer = stream.answer().await;
        assert!(answer.created && !answer.canceled);
        ids.push(answer.watch_id);
    }
    assert_eq!(ids, (0..WATCHES as i64 + 1).collect::<Vec<_>>());
    for number in 0..WATCHES {
        write(&server, vec![Op::put(format!("/k/{number:05}"), number.to_string())]).await;
    }
    let mut seen: HashMap<i64, Vec<String>> = HashMap::new();
    let mut events = 0;
    while events < 2 * WATCHES {
        let answer = stream.answer().await;
        for kv in answer.events.into_iter().filter_map(|event| event.kv) {
            events += 1;
            seen.entry(answer.watch_id).or_default().push(String::from_utf8(kv.value).expect("text"));
        }
    }
    let all = seen.remove(&(WATCHES as i64)).expect("has seen them");
    assert_eq!(all, (0..WATCHES).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!((0..WATCHES as i64).all(|id| seen[&id] == [id.to_string()]));

    // All of them are asked how far they are, and one that has ended hears nothing more.
    stream.ask(Asked::Progress(Progress {}));
    let progress = stream.answer().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.map(|header| header.revision), Some(server.store.revision().0 as i64));
    stream.ask(Asked::Cancel(Cancel { watch_id: 7 }));
    let ended = stream.answer().await;
    assert!(ended.canceled && ended.watch_id == 7);
    write(&server, vec![Op::put("/k/00007", "more"), Op::put("/k/00008", "more")]).await;
    let mut told = [stream.answer().await.watch_id, stream.answer().await.watch_id];
    told.sort_unstable();
    assert_eq!(told, [8, WATCHES as i64]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_says_so_and_comes_back() {
    const QUOTA: u64 = 32 << 20;
    let server = Server::start_with_quota(QUOTA).await;
    let ask = async |line: &str| etcdctl(&server.endpoint, line).await;
    if ask("version").await.is_empty() {
        eprintln!("NOT RUN: install etcd-client");
        return;
    }
    assert_eq!(ask("put /small 1").await.trim(), "OK");
    assert_eq!(ask("alarm list").await, "");
    fill(&server).await;
    let full = ask("put /small 2").await;
    assert!(full.contains("etcdserver: mvcc: database space exceeded"), "{full}");
    assert_eq!(ask("alarm list").await.trim(), "memberID:1 alarm:NOSPACE");
    assert!(ask("endpoint status -w fields").await.contains("alarm:NOSPACE"));
    assert!(ask("endpoint health").await.contains("is healthy"), "reads go on");
    assert!(ask("get /small --print-value-only").await.starts_with('1'));
    // etcd's own way out.
    let deleted = ask("del /large/ --prefix").await;
    assert!(deleted.trim().parse::<u32>().is_ok_and(|count| count > 10), "{deleted}");
    let revision = server.store.revision();
    assert!(ask(&format!("compaction {revision}")).await.contains("compacted revision"));
    assert!(ask("defrag").await.contains("Finished defragmenting"));
    assert!(ask("alarm disarm").await.contains("alarm:NOSPACE"));
    assert_eq!(ask("put /small 2").await.trim(), "OK");
    assert_eq!(ask("alarm list").await, "");
    // Its room is used again.
    assert!(fill(&server).await > 10);
}

/// Write what does not compress until it is full. Gives how many MiB that were.
async fn fill(server: &Server) -> usize {
    for number in 0.. {
        let put = Op::put(format!("/large/{number:03}"), super::snapshot::noise(1 << 20));
        if server.store.txn(Txn { success: vec![put], ..Txn::default() }).await.is_err() {
            return number;
        }
        assert!(number < 1000, "it is never full");
    }
    0
}
