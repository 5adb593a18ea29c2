//! The store on an etcd cluster of three: the loss of a member is not noticed.

use super::server::free_port;
use kedge::store::etcd::Etcd;
use kedge::store::{KeyRange, Op, RangeRequest, Revision, Txn, WatchMessage};
use std::process::{Child, Command, Stdio};

struct Member {
    child: Child,
    endpoint: String,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` where etcd is not installed.
fn start(directory: &std::path::Path) -> Option<Vec<Member>> {
    let url = || format!("http://127.0.0.1:{}", free_port());
    let urls: Vec<(String, String)> = (0..3).map(|_| (url(), url())).collect();
    let names = urls.iter().enumerate().map(|(number, (_, peer))| format!("m{number}={peer}"));
    let cluster = names.collect::<Vec<_>>().join(",");
    let member = |(number, (client, peer)): (usize, &(String, String))| {
        let name = format!("m{number}");
        let child = Command::new("etcd")
            .args(["--name", &name, "--data-dir", directory.join(&name).to_str().expect("text")])
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &cluster])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Member { child, endpoint: client.clone() })
    };
    urls.iter().enumerate().map(member).collect()
}

/// A member that is there and says nothing, neither to who is connected nor to who connects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_passed_over() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let Some(members) = start(scratch.path()) else {
        eprintln!("NOT RUN: install etcd-server");
        return;
    };
    let endpoints: Vec<String> = members.iter().map(|member| member.endpoint.clone()).collect();
    let store = Etcd::open(&endpoints, None).await.expect("a member answers");
    let put = |key: &'static str| Txn { success: vec![Op::put(key, "x")], ..Txn::default() };
    store.txn(put("/k/before")).await.expect("writes");
    let mut watch = store.watch(KeyRange::prefix("/k/"), None).await.expect("watches");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(members[0].child.id()).expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("is ours");
    let read = store.range(RangeRequest::of(KeyRange::prefix("/k/"))).await.expect("reads by another");
    assert_eq!(read.count, 1);
    store.txn(put("/k/after")).await.expect("writes by another");
    let message = tokio::time::timeout(std::time::Duration::from_secs(30), watch.next()).await.expect("goes on");
    let Ok(WatchMessage::Events(events)) = message else { panic!("events") };
    assert_eq!(events[0].kv.key, "/k/after");
    // Who opens the store now gets by it, too.
    let again = Etcd::open(&endpoints, None).await.expect("another member answers");
    assert_eq!(again.range(RangeRequest::of(KeyRange::prefix("/k/"))).await.expect("reads").count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_member_is_not_noticed() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let Some(mut members) = start(scratch.path()) else {
        eprintln!("NOT RUN: install etcd-server");
        return;
    };
    let endpoints: Vec<String> = members.iter().map(|member| member.endpoint.clone()).collect();
    let store = Etcd::open(&endpoints, None).await.expect("a member answers");
    let mut watch = store.watch(KeyRange::prefix("/k/"), None).await.expect("watches");
    const WRITES: u64 = 60;
    let mut first = Revision(0);
    for step in 0..WRITES {
        if step == WRITES / 2 {
            // The one in use.
            drop(members.remove(0));
        }
        // What was under way at the lost member may have been done or not; asked again it is done once.
        let put = || Txn { success: vec![Op::put(format!("/k/{step}"), "x")], ..Txn::default() };
        let done = match store.txn(put()).await {
            Ok(done) => done,
            Err(_) => store.txn(put()).await.expect("another member takes over"),
        };
        if step == 0 {
            first = done.revision;
        }
    }
    let read = store.range(RangeRequest::of(KeyRange::prefix("/k/"))).await.expect("reads");
    assert_eq!(read.count as u64, WRITES);
    // The watch has gone on elsewhere, without a gap.
    let mut next = first.0;
    while next <= read.revision.0 {
        let Ok(WatchMessage::Events(events)) = watch.next().await else { panic!("events") };
        for event in events {
            assert_eq!(event.kv.mod_revision.0, next);
            next += 1;
        }
    }
}
