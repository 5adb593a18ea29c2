//! etcd's services Lock and Election, on our store and on a real etcd.

use super::client::{Both, Log, refusal};
use super::server::Server;
use etcd_client::*;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Wait until a key is there, or is not.
async fn until(client: &mut Client, key: &str, there: bool) {
    let look = async {
        while client.get(key, None).await.expect("reads").kvs().is_empty() == there {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(key, look).await;
}

async fn grant(client: &mut Client, leases: std::ops::RangeInclusive<i64>) {
    for id in leases {
        let options = LeaseGrantOptions::new().with_id(id);
        client.lease_grant(600, Some(options)).await.expect("grants");
    }
}

/// A call that goes on while others are made, and may be broken off.
#[expect(clippy::disallowed_methods, reason = "its handle is awaited or aborted")]
fn start<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(call)
}

/// Nothing has come of it yet.
fn assert_waits<T>(task: &JoinHandle<T>) {
    assert!(!task.is_finished(), "does not wait");
}

fn lock(client: &Client, lease: i64) -> JoinHandle<Result<LockResponse, Error>> {
    let mut client = client.clone();
    start(async move { client.lock("/locks/a", Some(LockOptions::new().with_lease(lease))).await })
}

async fn add<T: Debug>(log: &mut Log, call: &str, task: JoinHandle<Result<T, Error>>) {
    log.add(call, soon(call, task).await.expect("no panic"));
}

async fn locks(client: &mut Client, log: &mut Log) {
    grant(client, 0xa1..=0xa3).await;
    add(log, "lock", lock(client, 0xa1)).await;
    add(log, "lock again", lock(client, 0xa1)).await;
    let second = lock(client, 0xa2);
    until(client, "/locks/a/a2", true).await;
    // One that goes away while it waits does not stand in the way.
    let third = lock(client, 0xa3);
    until(client, "/locks/a/a3", true).await;
    third.abort();
    until(client, "/locks/a/a3", false).await;
    assert_waits(&second);
    log.add("unlock", client.unlock("/locks/a/a1").await);
    add(log, "second", second).await;
    log.add("unlock", client.unlock("/locks/a/a2").await);
    // The lease of who holds it ends.
    add(log, "first", lock(client, 0xa1)).await;
    let second = lock(client, 0xa2);
    until(client, "/locks/a/a2", true).await;
    log.add("revoke", client.lease_revoke(0xa1).await);
    add(log, "second", second).await;
    log.add("left", client.get("/locks/", Some(GetOptions::new().with_prefix())).await);
    for key in ["/locks/a/a2", "/locks/a/a2", ""] {
        log.add("unlock", client.unlock(key).await);
    }
    add(log, "no such lease", lock(client, 0xff)).await;
    // Without a lease it is one of a minute.
    let held = client.lock("/locks/b", None).await.expect("locks");
    let lease = held.key().strip_prefix(b"/locks/b/").and_then(|hex| std::str::from_utf8(hex).ok());
    let lease = lease.and_then(|hex| i64::from_str_radix(hex, 16).ok()).expect("a lease");
    log.note("own lease", client.lease_time_to_live(lease, None).await.expect("lives").granted_ttl());
    log.add("revoke", client.lease_revoke(lease).await);
}

fn campaign(client: &Client, value: &'static str, lease: i64) -> JoinHandle<Result<CampaignResponse, Error>> {
    let mut client = client.clone();
    start(async move { client.campaign("/votes", value, lease).await })
}

/// What an observer is told. etcd does not answer before there is a leader.
fn observe(client: &Client) -> mpsc::UnboundedReceiver<LeaderResponse> {
    let (told, seen) = mpsc::unbounded_channel();
    let mut election = client.election_client();
    start(async move {
        let mut stream = election.observe("/votes").await.expect("observes");
        while let Ok(Some(message)) = stream.message().await {
            if told.send(message).is_err() {
                return;
            }
        }
    });
    seen
}

/// The values of leaders, as far as they are seen.
async fn seen(told: &mut mpsc::UnboundedReceiver<LeaderResponse>, until: &str, log: &mut Log) {
    loop {
        let message = soon(until, told.recv()).await.expect("goes on");
        let kv = message.kv().expect("a key");
        assert!(message.header().is_some_and(|header| header.revision() >= kv.mod_revision()));
        log.note("observed", kv);
        if kv.value() == until.as_bytes() {
            return;
        }
    }
}

async fn elections(client: &mut Client, log: &mut Log) {
    grant(client, 0xb1..=0xb3).await;
    log.add("leader", client.leader("/votes").await);
    let mut observer = observe(client);
    let won = soon("first", campaign(client, "one", 0xb1)).await.expect("no panic").expect("is elected");
    let first = won.leader().expect("a leader").clone();
    log.add("first", Ok(won));
    seen(&mut observer, "one", log).await;
    log.add("leader", client.leader("/votes").await);
    add(log, "again", campaign(client, "uno", 0xb1)).await;
    seen(&mut observer, "uno", log).await;
    let options = || Some(ProclaimOptions::new().with_leader(first.clone()));
    log.add("proclaim", client.proclaim("eins", options()).await);
    seen(&mut observer, "eins", log).await;
    let second = campaign(client, "two", 0xb2);
    until(client, "/votes/b2", true).await;
    let third = campaign(client, "three", 0xb3);
    until(client, "/votes/b3", true).await;
    third.abort();
    until(client, "/votes/b3", false).await;
    let third = campaign(client, "three", 0xb3);
    until(client, "/votes/b3", true).await;
    assert_waits(&second);
    for _ in 0..2 {
        let options = Some(ResignOptions::new().with_leader(first.clone()));
        log.add("resign", client.resign(options).await);
    }
    add(log, "second", second).await;
    seen(&mut observer, "two", log).await;
    log.add("proclaim", client.proclaim("eins", options()).await);
    assert_waits(&third);
    log.add("revoke", client.lease_revoke(0xb2).await);
    add(log, "third", third).await;
    seen(&mut observer, "three", log).await;
    log.add("leader", client.leader("/votes").await);
    // Who looks later sees who leads then.
    let mut late = observe(client);
    seen(&mut late, "three", log).await;
    log.add("nobody proclaims", client.proclaim("x", None).await);
    log.add("nobody resigns", client.resign(None).await);
    let empty = ProclaimOptions::new().with_leader(LeaderKey::new());
    log.add("an empty key proclaims", client.proclaim("x", Some(empty)).await);
    add(log, "no such lease", campaign(client, "x", 0xff)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elections_see_no_difference() {
    let Some(mut both) = Both::plain().await else { return };
    both.same(locks).await;
    both.same(elections).await;
}

/// etcd 3.4.23 gives the lock to nobody there; later ones refuse it, as here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_until_its_lease_has_ended_does_not_get_the_lock() {
    let server = Server::start().await;
    let mut client = Client::connect([&server.endpoint], None).await.expect("connects");
    grant(&mut client, 0xa1..=0xa2).await;
    soon("first", lock(&client, 0xa1)).await.expect("no panic").expect("locks");
    let second = lock(&client, 0xa2);
    until(&mut client, "/locks/a/a2", true).await;
    client.lease_revoke(0xa2).await.expect("revokes");
    client.unlock("/locks/a/a1").await.expect("unlocks");
    let refused = soon("second", second).await.expect("no panic").expect_err("is refused");
    assert_eq!(refusal(&refused), "Unknown mutex: session is expired");
}
