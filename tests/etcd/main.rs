//! The etcd face before the world's judge: Debian's `etcdctl`, on our store and on a real etcd, must see the same.
//!
//! Needs `etcdctl` and `etcd` (Debian: etcd-client, etcd-server); without them each test says so and does nothing.

mod client;
mod cluster;
mod election;
#[path = "../etcd_certificates/mod.rs"]
mod etcd_certificates;
mod kedge;
mod rotation;
mod serve;
mod server;
mod shared;
mod snapshot;
mod streams;
mod tls;

use server::{Real, Server};

/// Every line is run on both; `$LEASE` is the lease that was granted last.
const COMMANDS: &[&str] = &[
    "put /a 1",
    "put /a 2 --prev-kv",
    "get /a -w fields",
    "put /a --ignore-lease 3",
    "put /nowhere --ignore-value",
    "put /a --ignore-value --prev-kv",
    "get /a",
    "put /k/1 one",
    "put /k/2 two",
    "put /k/3 three",
    "put /k/2 zwei",
    "get /k/ --prefix -w fields",
    "get /k/ --prefix --keys-only",
    "get /k/ --prefix --limit 2 -w fields",
    "get /k/ --prefix --sort-by=MODIFY --order=DESCEND",
    "get /k/ --prefix --sort-by=VALUE",
    "get /k/ --prefix --sort-by=VERSION --order=DESCEND --limit 1 -w fields",
    "get /k/ --prefix --sort-by=CREATE --order=ASCEND --keys-only",
    "get /k/1 /k/3 -w fields",
    "get /k/2 --from-key --limit 1",
    "get --from-key  --prefix=false /k/2",
    "get / --prefix --rev=3",
    "get /a --rev=1 -w fields",
    "get /a --rev=100",
    "get /a --consistency=s",
    "del /k/1 --prev-kv",
    "del /k/1",
    "del /k/2 /k/3 --prev-kv",
    "put /k/4 four",
    "txn <mod(\"/a\") > \"0\"\nvalue(\"/a\") = \"3\"\n\nput /t yes\nget /a\ndel /k/ --prefix\n\nput /t no\n\n",
    "txn <create(\"/a\") = \"0\"\n\nput /t yes\n\nput /t no\nget / --prefix\n\n",
    "txn <version(\"/a\") < \"9\"\n\nput /t 1\nput /t 2\n\n\n",
    "txn <value(\"/nowhere\") < \"z\"\n\nput /t yes\n\nget /t\n\n",
    "txn <mod(\"/nowhere\") = \"0\"\n\nput /u 1\ndel /u\n\n\n",
    "txn <mod(\"/nowhere\") > \"-1\"\n\nput /v 1\n\n\n",
    "get / --prefix -w fields",
    "compaction 4",
    "compaction 4",
    "compaction 3",
    "compaction 400",
    "get /a --rev=3",
    "get /a --rev=4 -w fields",
    "hash",
    "put /after 1",
    "hash",
    "compaction 16 --physical",
    "hash",
    "del / --prefix",
    "hash",
    // After the hashes, which the chosen numbers of leases are part of.
    "lease grant 3600 -w fields",
    "lease grant 99999999999",
    "lease timetolive 123",
    "lease revoke 123",
    "lease keep-alive 123 --once",
    "put /leased x --lease=123",
    "put /leased x --lease=$LEASE",
    "put /leased2 x --lease=$LEASE",
    "put /leased2 y --lease=0",
    "get /leased -w fields",
    "lease timetolive $LEASE --keys -w fields",
    "lease list -w fields",
    "lease keep-alive $LEASE --once",
    "lease revoke $LEASE",
    "get /lease --prefix -w fields",
    "alarm list",
    "alarm disarm",
    "role list",
    "user list",
    "user get nobody",
    "role get nobody",
    "auth enable",
    "member remove 1234",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_sees_no_difference() {
    let Some(real) = Real::start(&[]).await else { return };
    let ours = Server::start().await;
    let mut leases = [String::new(), String::new()];
    for command in COMMANDS {
        let mut answers = [String::new(), String::new()];
        for (at, endpoint) in [&ours.endpoint, &real.endpoint].into_iter().enumerate() {
            let command = command.replace("$LEASE", &leases[at]);
            let command = if command == "hash" { "endpoint hashkv".to_owned() } else { command };
            let answer = server::etcdctl(endpoint, &command).await;
            if let Some(granted) = server::granted(&answer) {
                leases[at] = granted;
            }
            answers[at] = server::comparable(&answer, endpoint, &leases[at]);
        }
        assert_eq!(answers[0], answers[1], "ours, then etcd's, to: {command}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_see_no_difference() {
    let Some(real) = Real::start(&[]).await else { return };
    let ours = Server::start().await;
    let watches = [
        "watch / --prefix --rev=1",
        "watch /w/1 --prev-kv --rev=1",
        "watch /w/1 /w/3 --rev=2",
        "watch /w/ --prefix --rev=4 -w fields",
    ];
    let mut seen = Vec::new();
    for endpoint in [&ours.endpoint, &real.endpoint] {
        let running: Vec<_> = watches.iter().map(|watch| server::watch(endpoint, watch)).collect();
        for command in [
            "put /w/1 a",
            "put /w/2 b",
            "put /w/1 c",
            "del /w/1",
            "del /w/1",
            "put /w/3 d",
            "del / --prefix",
            "put /end 1",
        ] {
            server::etcdctl(endpoint, command).await;
        }
        let mut outputs = Vec::new();
        for watch in running {
            outputs.push(watch.output().await);
        }
        // From what was compacted, and from the future.
        server::etcdctl(endpoint, "compaction 5").await;
        let lost = server::watch(endpoint, "watch / --prefix --rev=3").output().await;
        outputs.push(server::comparable(&lost, endpoint, ""));
        seen.push(outputs.iter().map(|output| server::comparable(output, endpoint, "")).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_version_are_told_by_plain_http_and_the_v2_api_is_refused() {
    let ours = Server::start().await;
    let get = async |path: &str| {
        let done =
            tokio::process::Command::new("curl").args(["-s", &format!("http://{}{path}", ours.endpoint)]).output();
        String::from_utf8(done.await.expect("curl runs").stdout).expect("text")
    };
    assert_eq!(get("/health").await.trim(), r#"{"health":"true","reason":""}"#);
    assert!(get("/version").await.contains(r#""etcdserver":"3."#));
    assert!(get("/metrics").await.contains("\netcd_server_has_leader 1\n"));
    for path in ["/v2/keys", "/v2/members"] {
        assert!(get(path).await.contains("v2 API is not served"), "{path}");
    }
}
