//! The calls of the crate `etcd-client`, another client than etcd's own: each is put to our store and to a real etcd, plain
//! and over TLS with client certificates, and must have the same answer.

use super::etcd_certificates::Certificates;
use super::server::{Real, Server};
use etcd_client::*;
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::time::Duration;

type Answer<T> = Result<T, Error>;

/// Longest wait for a message of a watch.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest time for a group of calls.
const ALL_CALLS: Duration = Duration::from_secs(60);

/// Lease that the calls use.
const LEASE: i64 = 0x1234;

/// What was called and what came back, without what has to differ.
#[derive(Default)]
pub struct Log(Vec<String>);

impl Log {
    pub fn add<T: Debug>(&mut self, call: &str, answer: Answer<T>) -> Option<T> {
        let (text, answer) = match answer {
            Ok(answer) => (comparable(&format!("{answer:?}")), Some(answer)),
            Err(error) => (refusal(&error), None),
        };
        self.0.push(format!("{call}: {text}"));
        answer
    }

    /// Of an answer that has to differ as a whole, what must be the same.
    pub fn note(&mut self, call: &str, what: impl Debug) {
        self.0.push(format!("{call}: {what:?}"));
    }

    pub fn assert_same(&self, other: &Log) {
        let pairs = self.0.iter().zip(&other.0).filter(|(ours, real)| ours != real);
        let differ: Vec<String> = pairs.map(|(ours, real)| format!("ours: {ours}\netcd: {real}\n")).collect();
        assert!(differ.is_empty(), "{}", differ.join("\n"));
        assert_eq!(self.0.len(), other.0.len());
    }
}

pub fn refusal(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => format!("{:?} {}", status.code(), status.message()),
        other => format!("{other:?}"),
    }
}

/// Numbers that a server chooses (as far as it does), or that newer etcd alone tells.
fn comparable(answer: &str) -> String {
    let chosen = ["cluster_id: ", "member_id: ", "raft_term: ", "hash_revision: "];
    chosen.iter().fold(answer.to_owned(), |text, name| {
        let mut parts = text.split(name);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            let none = part.starts_with("0,") && *name != "hash_revision: ";
            text + name + if none { "0" } else { "N" } + rest
        })
    })
}

/// A client of ours and one of a real etcd.
pub struct Both {
    pub ours: Client,
    pub real: Client,
    endpoints: [String; 2],
    _servers: (Server, Real),
    /// etcd reads its certificates again for each connection.
    _scratch: Option<tempfile::TempDir>,
}

impl Both {
    pub async fn plain() -> Option<Self> {
        let real = Real::start(&[]).await?;
        Some(Self::of(Server::start().await, real, "http", ConnectOptions::new()).await)
    }

    async fn tls() -> Option<Self> {
        let scratch = tempfile::tempdir().expect("scratch directory");
        let files = Certificates::make(scratch.path(), &["127.0.0.1"]);
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(files.read("ca.crt")))
            .identity(Identity::from_pem(files.read("client.crt"), files.read("client.key")));
        let real = Real::start_tls(&files).await?;
        let ours = Server::start_tls(&files).await;
        let both = Self::of(ours, real, "https", ConnectOptions::new().with_tls(tls)).await;
        Some(Both { _scratch: Some(scratch), ..both })
    }

    async fn of(ours: Server, real: Real, scheme: &str, options: ConnectOptions) -> Self {
        let endpoints = [&ours.endpoint, &real.endpoint].map(|endpoint| format!("{scheme}://{endpoint}"));
        let connect =
            async |endpoint: &String| Client::connect([endpoint], Some(options.clone())).await.expect("connects");
        let (our_client, real_client) = (connect(&endpoints[0]).await, connect(&endpoints[1]).await);
        Both { ours: our_client, real: real_client, endpoints, _servers: (ours, real), _scratch: None }
    }

    /// The same calls to both.
    pub async fn same(&mut self, calls: impl AsyncFn(&mut Client, &mut Log)) {
        let (mut ours, mut real) = (Log::default(), Log::default());
        tokio::time::timeout(ALL_CALLS, calls(&mut self.ours, &mut ours)).await.expect("ours ends in time");
        tokio::time::timeout(ALL_CALLS, calls(&mut self.real, &mut real)).await.expect("etcd ends in time");
        ours.assert_same(&real);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_sees_no_difference() {
    let Some(mut both) = Both::plain().await else { return };
    all(&mut both).await;
    both.same(auth).await;
    both.same(cluster).await;
    let connect = async |endpoint: &String| {
        let options = ConnectOptions::new().with_user("root", "word");
        refusal(&Client::connect([endpoint], Some(options)).await.err().expect("is refused"))
    };
    assert_eq!(connect(&both.endpoints[0]).await, connect(&both.endpoints[1]).await);
    only_here(&mut both.ours).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_sees_no_difference_over_tls() {
    let Some(mut both) = Both::tls().await else { return };
    all(&mut both).await;
    // Nobody else is let in.
    let nobody = TlsOptions::new().ca_certificate(Certificate::from_pem("")).assume_http2(true);
    for endpoint in &both.endpoints {
        let options = ConnectOptions::new().with_tls(nobody.clone()).with_timeout(Duration::from_secs(3));
        let mut client = Client::connect([endpoint], Some(options)).await.expect("connects with the first call");
        assert!(client.get("/kv/a", None).await.is_err());
    }
}

async fn all(both: &mut Both) {
    both.same(kv).await;
    both.same(transactions).await;
    both.same(leases).await;
    both.same(watches).await;
    both.same(compactions).await;
    both.same(maintenance).await;
    both.same(snapshots).await;
}

async fn kv(client: &mut Client, log: &mut Log) {
    for (key, value) in [("/kv/a", "1"), ("/kv/b", "2"), ("/kv/c", "3"), ("/kv/b", "20")] {
        log.add("put", client.put(key, value, None).await);
    }
    let options = PutOptions::new;
    log.add("put prev_kv", client.put("/kv/a", "10", Some(options().with_prev_key())).await);
    log.add("put ignore_value", client.put("/kv/a", "", Some(options().with_ignore_value())).await);
    log.add("put ignore_lease", client.put("/kv/a", "11", Some(options().with_ignore_lease())).await);
    log.add("put both", client.put("/kv/a", "11", Some(options().with_ignore_value())).await);
    log.add("put no value", client.put("/kv/none", "", Some(options().with_ignore_value())).await);
    log.add("put no lease", client.put("/kv/a", "12", Some(options().with_lease(7))).await);
    log.add("put no key", client.put("", "12", None).await);
    let get = GetOptions::new;
    let reads = [
        ("one", get()),
        ("prefix", get().with_prefix()),
        ("range", get().with_range("/kv/c")),
        ("from key", get().with_from_key()),
        ("limit", get().with_prefix().with_limit(1)),
        ("revision", get().with_prefix().with_revision(3)),
        ("future", get().with_revision(1000)),
        ("keys", get().with_prefix().with_keys_only()),
        ("count", get().with_prefix().with_count_only()),
        ("serializable", get().with_prefix().with_serializable()),
        ("by value", get().with_prefix().with_sort(SortTarget::Value, SortOrder::Descend)),
        ("by version", get().with_prefix().with_sort(SortTarget::Version, SortOrder::Descend).with_limit(2)),
        ("by mod", get().with_prefix().with_sort(SortTarget::Mod, SortOrder::Ascend)),
        ("by create", get().with_prefix().with_sort(SortTarget::Create, SortOrder::Descend)),
        ("min mod", get().with_prefix().with_min_mod_revision(5)),
        ("max mod", get().with_prefix().with_max_mod_revision(5)),
        ("min create", get().with_prefix().with_min_create_revision(3)),
        ("max create", get().with_prefix().with_max_create_revision(3).with_limit(1)),
    ];
    for (name, options) in reads {
        let key = if name == "one" { "/kv/a" } else { "/kv/" };
        log.add(name, client.get(key, Some(options)).await);
    }
    log.add("all", client.get("", Some(get().with_all_keys())).await);
    log.add("get no key", client.get("", None).await);
    log.add("delete", client.delete("/kv/a", Some(DeleteOptions::new().with_prev_key())).await);
    log.add("delete nothing", client.delete("/kv/a", None).await);
    log.add("delete prefix", client.delete("/kv/", Some(DeleteOptions::new().with_prefix())).await);
    log.add("delete no key", client.delete("", None).await);
}

async fn transactions(client: &mut Client, log: &mut Log) {
    log.add("lease", client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(LEASE))).await);
    log.add("put", client.put("/t/a", "m", Some(PutOptions::new().with_lease(LEASE))).await);
    log.add("put", client.put("/t/b", "m", None).await);
    let created = client.get("/t/a", None).await.expect("reads").kvs()[0].create_revision();
    for relation in [CompareOp::Equal, CompareOp::NotEqual, CompareOp::Greater, CompareOp::Less] {
        for off in [-1, 0, 1] {
            let value = ["l", "m", "n"][(off + 1) as usize];
            let compares = [
                Compare::version("/t/a", relation, 1 + off),
                Compare::create_revision("/t/a", relation, created + off),
                Compare::mod_revision("/t/a", relation, created + off),
                Compare::value("/t/a", relation, value),
                Compare::lease("/t/a", relation, LEASE + off),
                Compare::version("/t/", relation, 1 + off).with_prefix(),
                Compare::value("/t/", relation, value).with_range("/t/c"),
                Compare::mod_revision("/t/none", relation, off),
                Compare::value("/t/none", relation, ""),
            ];
            for compare in compares {
                let name = format!("txn {compare:?}");
                log.add(&name, client.txn(Txn::new().when([compare])).await);
            }
        }
    }
    let (get, put) = (|key: &str| TxnOp::get(key, None), |key: &str, value: &str| TxnOp::put(key, value, None));
    let delete = |key: &str| TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key()));
    let holds = || Compare::version("/t/a", CompareOp::Greater, 0);
    let inner = Txn::new().when([Compare::value("/t/b", CompareOp::Equal, "x")]);
    let inner = inner.and_then([put("/t/c", "then")]).or_else([put("/t/c", "else"), get("/t/c")]);
    let steps = [get("/t/a"), put("/t/a", "2"), get("/t/a"), delete("/t/b"), TxnOp::txn(inner)];
    let txns = [
        ("steps", Txn::new().when([holds()]).and_then(steps)),
        ("else", Txn::new().when([Compare::version("/t/a", CompareOp::Equal, 9)]).or_else([get("/t/c")])),
        ("nothing", Txn::new()),
        ("twice", Txn::new().and_then([put("/t/a", "1"), put("/t/a", "2")])),
        ("no key", Txn::new().and_then([put("", "1")])),
        ("no key to compare", Txn::new().when([Compare::version("", CompareOp::Equal, 1)])),
        ("future", Txn::new().and_then([TxnOp::get("/t/a", Some(GetOptions::new().with_revision(10_000)))])),
    ];
    for (name, txn) in txns {
        log.add(name, client.txn(txn).await);
    }
    log.add("revoke", client.lease_revoke(LEASE).await);
    log.add("what is left", client.get("/t/", Some(GetOptions::new().with_prefix())).await);
}

async fn leases(client: &mut Client, log: &mut Log) {
    let grant = |id| Some(LeaseGrantOptions::new().with_id(id));
    log.add("grant", client.lease_grant(600, grant(LEASE)).await);
    log.add("grant again", client.lease_grant(600, grant(LEASE)).await);
    log.add("grant short", client.lease_grant(0, grant(LEASE + 1)).await);
    log.add("grant long", client.lease_grant(i64::MAX, grant(LEASE + 2)).await);
    let chosen = client.lease_grant(5, None).await.expect("grants");
    log.note("grant any", (chosen.id() > 0, chosen.ttl(), chosen.error()));
    log.add("revoke", client.lease_revoke(chosen.id()).await);
    log.add("revoke again", client.lease_revoke(chosen.id()).await);
    for key in ["/l/b", "/l/a"] {
        log.add("put", client.put(key, "x", Some(PutOptions::new().with_lease(LEASE))).await);
    }
    let (mut keeper, mut kept) = client.lease_keep_alive(LEASE).await.expect("keeps alive");
    for _ in 0..2 {
        log.note("asks", keeper.keep_alive().await.is_ok());
        log.add("kept alive", kept.message().await);
    }
    log.add("keep alive nothing", client.lease_keep_alive(99).await.map(|(keeper, _)| keeper.id()));
    let keys = LeaseTimeToLiveOptions::new().with_keys();
    let lives = client.lease_time_to_live(LEASE, Some(keys.clone())).await.expect("lives");
    let mut attached: Vec<_> = lives.keys().to_vec();
    attached.sort();
    log.note("lives", (lives.id(), (598..=600).contains(&lives.ttl()), lives.granted_ttl(), attached));
    log.add("lives not", client.lease_time_to_live(99, Some(keys)).await);
    let mut all: Vec<i64> = client.leases().await.expect("lists").leases().iter().map(LeaseStatus::id).collect();
    all.sort_unstable();
    log.note("leases", all);
    log.add("revoke", client.lease_revoke(LEASE).await);
    // The short one ends by itself.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !client.leases().await.expect("lists").leases().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "a lease of 2 s is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    log.add("what is left", client.get("/l/", Some(GetOptions::new().with_prefix())).await);
}

/// The next message of a watch.
async fn next(stream: &mut WatchStream) -> Answer<Option<WatchResponse>> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("a message")
}

/// Take so many events, in however many messages they come. etcd tells the revision of the last event in the header of a
/// message, or a later one.
async fn events(stream: &mut WatchStream, count: usize, log: &mut Log) {
    let mut seen = Vec::new();
    while seen.len() < count {
        let message = next(stream).await.expect("goes on").expect("is open");
        assert!(message.header().is_some_and(|header| header.revision() > 0));
        seen.extend(message.events().iter().map(|event| format!("{} {event:?}", message.watch_id())));
    }
    log.note("events", seen);
}

async fn watches(client: &mut Client, log: &mut Log) {
    let first = client.put("/w/a", "1", None).await.expect("puts").header().expect("a header").revision();
    let from = || WatchOptions::new().with_start_revision(first);
    let mut stream = client.watch("/w/", Some(from().with_prefix().with_prev_key())).await.expect("watches");
    log.add("created", next(&mut stream).await);
    client.put("/w/a", "2", None).await.expect("puts");
    client.put("/w/b", "1", None).await.expect("puts");
    client.delete("/w/", Some(DeleteOptions::new().with_prefix())).await.expect("deletes");
    events(&mut stream, 5, log).await;
    for (key, options, count) in [
        ("/w/", from().with_prefix().with_filters([WatchFilterType::NoPut]), 2),
        ("/w/", from().with_prefix().with_filters([WatchFilterType::NoDelete]), 3),
        ("/w/a", from().with_range("/w/b"), 3),
        ("/w/b", from().with_from_key(), 2),
        ("/w/a", from().with_progress_notify().with_watch_id(70), 3),
    ] {
        log.add("watch", stream.watch(key, Some(options)).await);
        log.add("created", next(&mut stream).await);
        events(&mut stream, count, log).await;
    }
    log.add("progress", stream.request_progress().await);
    log.add("all are so far", next(&mut stream).await);
    for (key, options) in
        [("/w/a", WatchOptions::new().with_watch_id(70)), ("/w/b", WatchOptions::new().with_range("/w/a"))]
    {
        log.add("watch", stream.watch(key, Some(options)).await);
        log.add("refused", next(&mut stream).await);
    }
    for id in [0, 70, 4711, 1] {
        // Of one that is not there nothing is said.
        log.add("cancel", stream.cancel(id).await);
        if id != 4711 {
            log.add("cancelled", next(&mut stream).await);
        }
    }
    // From a revision that is still to come, and in parts.
    let now = client.get("/w/a", None).await.expect("reads").header().expect("a header").revision();
    let later = WatchOptions::new().with_start_revision(now + 2).with_prefix().with_fragment().with_watch_id(80);
    log.add("watch", stream.watch("/w/", Some(later)).await);
    log.add("created", next(&mut stream).await);
    client.put("/w/unseen", "x", None).await.expect("puts");
    let large = (0..20).map(|number| TxnOp::put(format!("/w/{number}"), vec![b'x'; 60_000], None));
    client.txn(Txn::new().and_then(large.collect::<Vec<_>>())).await.expect("puts");
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let message = next(&mut stream).await.expect("goes on").expect("is open");
        seen.extend(message.events().iter().map(|event| event.kv().expect("a key").key().to_vec()));
    }
    log.note("in parts", seen);
}

async fn compactions(client: &mut Client, log: &mut Log) {
    let first = client.put("/c/a", "1", None).await.expect("puts").header().expect("a header").revision();
    for value in ["2", "3"] {
        log.add("put", client.put("/c/a", value, None).await);
    }
    log.add("compact", client.compact(first + 1, None).await);
    log.add("compact again", client.compact(first + 1, None).await);
    log.add("compact before", client.compact(first, None).await);
    log.add("compact nothing yet", client.compact(first + 1000, None).await);
    for revision in [first, first + 1] {
        log.add("get", client.get("/c/a", Some(GetOptions::new().with_revision(revision))).await);
    }
    let old = TxnOp::get("/c/a", Some(GetOptions::new().with_revision(first)));
    log.add("txn", client.txn(Txn::new().and_then([old])).await);
    let from = WatchOptions::new().with_start_revision(first);
    let mut stream = client.watch("/c/a", Some(from)).await.expect("watches");
    log.add("created", next(&mut stream).await);
    log.add("ended", next(&mut stream).await);
    log.add("compact", client.compact(first + 2, Some(CompactionOptions::new().with_physical())).await);
}

async fn maintenance(client: &mut Client, log: &mut Log) {
    // Old etcd tells no hash at the very revision of the compaction.
    log.add("put", client.put("/m/a", "1", None).await);
    let status = client.status().await.expect("a status");
    let header = status.header().expect("a header").clone();
    let leads = status.leader() == header.member_id() && status.raft_applied_index() > 0 && status.raft_term() > 0;
    log.note("status", (header.revision(), leads, status.errors(), status.is_learner()));
    let sizes = (status.version().starts_with("3."), status.db_size() > 0, status.raft_used_db_size() > 0);
    log.note("sizes", sizes);
    for revision in [0, header.revision(), header.revision() + 1, 1] {
        log.add("hash of keys", client.hash_kv(revision).await);
    }
    let hash = client.hash().await.expect("a hash");
    log.note("hash", hash.header().map(ResponseHeader::revision));
    log.add("defragment", client.defragment().await);
    for (action, alarm) in [
        (AlarmAction::Get, AlarmType::None),
        (AlarmAction::Deactivate, AlarmType::Nospace),
        (AlarmAction::Deactivate, AlarmType::None),
    ] {
        // Old etcd answers without a header.
        log.note("alarms", client.alarm(action, alarm, None).await.expect("tells").alarms().len());
    }
    log.add("move leader", client.move_leader(header.member_id()).await);
    log.add("move leader nowhere", client.move_leader(4711).await);
}

/// The stream is a database file with the hash of it behind.
async fn snapshots(client: &mut Client, log: &mut Log) {
    let mut stream = client.snapshot().await.expect("a snapshot");
    let (mut file, mut left) = (Vec::new(), None);
    while let Some(part) = stream.message().await.expect("goes on") {
        // The hash does not count.
        if let Some(left @ 1..) = left {
            assert_eq!(left, part.blob().len() as u64 + part.remaining_bytes());
        }
        left = Some(part.remaining_bytes());
        file.extend_from_slice(part.blob());
    }
    let (content, hash) = file.split_at(file.len() - 32);
    log.note("snapshot", (left, hash == Sha256::digest(content).as_slice(), file.len() % 512));
}

async fn cluster(client: &mut Client, log: &mut Log) {
    let listed = client.member_list().await.expect("lists");
    let [member] = listed.members() else { panic!("one member") };
    let own = member.id() == listed.header().expect("a header").member_id();
    log.note("members", (own, member.is_learner(), member.client_urls().len()));
    log.add("promote", client.member_promote(member.id()).await);
    log.add("promote nobody", client.member_promote(4711).await);
    log.add("remove nobody", client.member_remove(4711).await);
    log.add("update nobody", client.member_update(4711, ["http://127.0.0.1:1".to_owned()]).await);
}

/// What can be said without any user.
async fn auth(client: &mut Client, log: &mut Log) {
    log.add("enable", client.auth_enable().await);
    log.add("disable", client.auth_disable().await);
    log.add("users", client.user_list().await);
    log.add("roles", client.role_list().await);
    log.add("user", client.user_get("nobody").await);
    log.add("user delete", client.user_delete("nobody").await);
    log.add("user password", client.user_change_password("nobody", "word").await);
    log.add("user grant", client.user_grant_role("nobody", "nothing").await);
    log.add("user revoke", client.user_revoke_role("nobody", "nothing").await);
    log.add("role", client.role_get("nothing").await);
    log.add("role delete", client.role_delete("nothing").await);
    log.add("role grant", client.role_grant_permission("nothing", Permission::read("/")).await);
    log.add("role revoke", client.role_revoke_permission("nothing", "/", None).await);
}

/// Where this store is not what etcd 3.4 is: see docs/etcd.md.
async fn only_here(client: &mut Client) {
    for key in ["/s/a", "/s/b", "/s/c"] {
        client.put(key, "x", None).await.expect("puts");
    }
    let all = || Some(GetOptions::new().with_prefix());
    let mut stream = client.kv_client().get_stream("/s/", all()).await.expect("streams");
    let mut keys = Vec::new();
    while let Some(part) = stream.message().await.expect("goes on") {
        keys.extend(part.kvs().iter().map(|kv| kv.key().to_vec()));
    }
    assert_eq!(keys, ["/s/a", "/s/b", "/s/c"].map(|key| key.as_bytes().to_vec()));
    let own = client.member_list().await.expect("lists").members()[0].id();
    let refused = [
        client.member_add(["http://127.0.0.1:1"], None).await.map(drop),
        client.member_remove(own).await.map(drop),
        client.member_update(own, ["http://127.0.0.1:1".to_owned()]).await.map(drop),
    ];
    for answer in refused {
        assert!(refusal(&answer.expect_err("is refused")).contains("this store has one member"));
    }
    for answer in [client.user_add("a", "b", None).await.map(drop), client.role_add("a").await.map(drop)] {
        assert!(refusal(&answer.expect_err("is refused")).contains("authentication is not enabled"));
    }
    let raised = client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.expect_err("is refused");
    assert!(refusal(&raised).contains("raised by the store itself"));
    let mut maintenance = client.maintenance_client();
    for options in [DowngradeOptions::Validate("3.4.0".into()), DowngradeOptions::Enable("3.4.0".into())] {
        let error = maintenance.downgrade(options).await.expect_err("is refused");
        assert!(refusal(&error).contains("invalid downgrade target version"));
    }
    let error = maintenance.downgrade(DowngradeOptions::Cancel).await.expect_err("is refused");
    assert!(refusal(&error).contains("no inflight downgrade job"));
}
