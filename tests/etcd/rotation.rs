//! Servers that share an etcd get another key for Secrets, whatever is killed meanwhile.

use super::kedge::{Kedge, eventually, kedge};
use super::server::{Real, etcdctl};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::path::Path;

/// So many that rewriting them takes a while.
const SECRETS: usize = 400;

/// Names of the keys, that which encrypts first.
async fn keys(here: &Path, number: u8) -> Vec<String> {
    let status = kedge(here, number, "secrets-encrypt status").await.unwrap_or_default();
    let names = status.lines().filter_map(|line| line.strip_prefix("key "));
    names.map(|rest| rest.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

async fn write(server: &Kedge, name: &str) {
    server.kubectl(&format!("create secret generic {name} --from-literal=word={name}")).await.expect("creates");
}

/// Every one of these servers reads every one of these Secrets.
async fn all_read(servers: &[&Kedge], names: &[&str]) {
    for (server, name) in servers.iter().flat_map(|server| names.iter().map(move |name| (server, name))) {
        let word = server.kubectl(&format!("get secret {name} -o jsonpath={{.data.word}}")).await.expect("reads");
        assert_eq!(word, BASE64_STANDARD.encode(name));
    }
}

/// Wait until every Secret in etcd is encrypted with a key.
async fn until_all_are_encrypted_with(etcd: &Real, key: &str) {
    eventually("all Secrets are encrypted with the new key", async || {
        let stored = etcdctl(&etcd.endpoint, "get /registry/secrets/ --prefix -w json").await;
        let stored: serde_json::Value = serde_json::from_str(&stored).expect("JSON");
        let values = stored["kvs"].as_array().expect("values");
        let value =
            |kv: &serde_json::Value| BASE64_STANDARD.decode(kv["value"].as_str().expect("text")).expect("base64");
        let begin = format!("k8s:enc:aesgcm:v1:{key}:");
        values.len() >= SECRETS && values.iter().all(|kv| value(kv).starts_with(begin.as_bytes()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_get_a_new_key_for_secrets_and_none_is_lost() {
    let Some(etcd) = Real::start(&[]).await else { return };
    let scratch = tempfile::tempdir().expect("scratch directory");
    let here = scratch.path();
    let endpoint = format!("http://{}", etcd.endpoint);
    let on_etcd = ["--datastore-endpoint", endpoint.as_str()];
    let mut first = Kedge::start(here, 1, &on_etcd);
    first.ready().await;
    let token_file = first.data.join("server/node-token");
    let token = [&on_etcd[..], &["--token-file", token_file.to_str().expect("text")]].concat();
    let mut second = Kedge::start(here, 2, &token);
    second.ready().await;
    let many = (0..SECRETS).map(|n| format!("{{apiVersion: v1, kind: Secret, metadata: {{name: m-{n}}}}}\n---\n"));
    let file = here.join("many.yaml");
    std::fs::write(&file, many.collect::<String>()).expect("writes");
    first.kubectl(&format!("create -f {}", file.display())).await.expect("creates");
    write(&first, "before").await;
    let old = keys(here, 1).await;
    assert_eq!((old.len(), keys(here, 2).await == old), (1, true));

    // One server does not answer: refused, by name, and nothing is encrypted with what it does not know.
    second.pause();
    let refused = kedge(here, 1, "secrets-encrypt rotate").await.expect_err("is refused");
    assert!(refused.contains("no answer from 192.0.2.2"), "{refused}");
    let offered = keys(here, 1).await;
    assert_eq!((offered.len(), &offered[0]), (2, &old[0]));
    write(&first, "waiting").await;
    // The one that asked is killed in the middle of it, and the other goes on.
    first.kill().await;
    second.resume();
    eventually("the other hears of the key", async || keys(here, 2).await == offered).await;
    write(&second, "alone").await;
    all_read(&[&second], &["before", "waiting", "alone"]).await;
    first = Kedge::start(here, 1, &on_etcd);
    first.ready().await;
    all_read(&[&first], &["before", "waiting", "alone"]).await;

    // It goes on with the same key, and is killed as soon as that is used.
    let rotating = async { kedge(here, 1, "secrets-encrypt rotate").await };
    let killing = async {
        while keys(here, 2).await.first() == old.first() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        first.kill().await;
    };
    let (_, ()) = tokio::join!(rotating, killing);
    write(&second, "after").await;
    let new = keys(here, 2).await;
    assert_eq!(new, [offered[1].clone(), old[0].clone()]);
    until_all_are_encrypted_with(&etcd, &new[0]).await;
    first = Kedge::start(here, 1, &on_etcd);
    first.ready().await;
    assert_eq!(keys(here, 1).await, new);
    write(&first, "later").await;
    let names = ["before", "waiting", "alone", "after", "later"];
    all_read(&[&first, &second], &names).await;

    // Once more with nothing in the way, from the other one; and one that was off meanwhile, and one that is new.
    first.stop().await;
    kedge(here, 2, "secrets-encrypt rotate").await.expect("rotates");
    write(&second, "off").await;
    let newest = keys(here, 2).await;
    assert_eq!(newest[1..], new);
    until_all_are_encrypted_with(&etcd, &newest[0]).await;
    first = Kedge::start(here, 1, &on_etcd);
    first.ready().await;
    let mut third = Kedge::start(here, 3, &token);
    third.ready().await;
    assert_eq!((keys(here, 1).await, keys(here, 3).await), (newest.clone(), newest));
    all_read(&[&first, &second, &third], &[&names[..], &["off"]].concat()).await;
}
