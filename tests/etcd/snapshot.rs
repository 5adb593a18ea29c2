//! A snapshot that `etcdctl` saves from our store is one of etcd's: `snapshot status` checks it, `snapshot restore` makes a
//! data directory of it, and a real etcd serves it.

use super::server::{Real, Server, etcdctl};
use kedge::store::{KeyRange, LeaseId, Op, Put, Revision, Txn};

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_etcds() {
    for (keys, compacted) in [(0, 0), (1, 0), (50, 20), (3000, 1500)] {
        let ours = Server::start().await;
        fill(&ours, keys, compacted).await;
        let scratch = tempfile::tempdir().expect("scratch directory");
        let path = |name: &str| scratch.path().join(name).to_str().expect("text").to_owned();
        let (file, data) = (path("snapshot"), path("data"));
        let saved = etcdctl(&ours.endpoint, &format!("snapshot save {file}")).await;
        if saved.is_empty() {
            eprintln!("NOT RUN: install etcd-client");
            return;
        }
        let status = etcdctl(&ours.endpoint, &format!("snapshot status {file} -w fields")).await;
        assert!(status.contains(&format!("\"Revision\" : {}", last_revision(&ours))), "{keys} keys: {status}");
        let restored = etcdctl(&ours.endpoint, &format!("snapshot restore {file} --data-dir {data}")).await;
        assert!(restored.contains("restored snapshot"), "{restored}");
        let Some(real) = Real::start(&[data.as_ref()]).await else { return };
        for command in ["get / --prefix -w json", "endpoint hashkv", "lease list", "lease timetolive 7b --keys"] {
            let comparable = |answer: String, endpoint: &str| {
                let answer = answer.replace(endpoint, "ENDPOINT");
                match answer.split_once("\"revision\"") {
                    Some((_, rest)) => rest
                        .split_once(",")
                        .map_or(rest, |(_, rest)| rest)
                        .replace("\"raft_term\":2", "\"raft_term\":1"),
                    None => answer.split(" remaining").next().unwrap_or_default().to_owned(),
                }
            };
            let (a, b) = (etcdctl(&ours.endpoint, command).await, etcdctl(&real.endpoint, command).await);
            assert!(
                comparable(a.clone(), &ours.endpoint) == comparable(b.clone(), &real.endpoint),
                "{keys} keys, {command}: {:.500}\n{:.500}",
                a,
                b
            );
        }
        // Both go on from the same revision.
        for endpoint in [&ours.endpoint, &real.endpoint] {
            etcdctl(endpoint, "put /more 1").await;
        }
        let more = async |endpoint: &str| {
            let answer = etcdctl(endpoint, "get /more -w fields").await;
            answer.lines().filter(|line| line.contains("Revision")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(more(&ours.endpoint).await, more(&real.endpoint).await);
    }
}

async fn fill(server: &Server, keys: usize, compacted: u64) {
    let store = &server.store;
    for number in 0..keys {
        let size = [0, 10, 300, 2000, 9000][number % 5];
        let value = if number % 2 == 0 { noise(size) } else { vec![b'x'; size] };
        let mut ops = vec![Op::put(format!("/{}", number % 700), value)];
        if number % 7 == 0 {
            ops.push(Op::Delete(KeyRange::key(format!("/{}", (number + 300) % 700))));
        }
        store.txn(Txn { success: ops, ..Txn::default() }).await.expect("writes");
    }
    if keys == 50 {
        let large = Op::put("/large", noise(1_400_000));
        store.lease_grant(LeaseId(0x7b), 1000).await.expect("grants");
        let leased = Op::Put(Put { key: "/leased".into(), value: Some("x".into()), lease: Some(LeaseId(0x7b)) });
        store.txn(Txn { success: vec![large, leased], ..Txn::default() }).await.expect("writes");
    }
    if compacted > 0 {
        store.compact(Revision(compacted)).await.expect("compacts");
    }
}

/// The newest revision with a write in it; 0 in an empty store.
fn last_revision(server: &Server) -> u64 {
    match server.store.revision() {
        Revision(1) => 0,
        revision => revision.0,
    }
}
