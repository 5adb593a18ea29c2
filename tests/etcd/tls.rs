//! The store of a whole server, served as etcd the way a user finds it: TLS, with the files that docs/etcd.md names.

use super::kedge::Kedge;
use super::server::{Real, etcdctl, etcdctl_with, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_gets_in_by_certificate_only() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let endpoint = format!("127.0.0.1:{}", free_port());
    let mut server = Kedge::start(scratch.path(), 1, &["--etcd-listen", &endpoint]);
    server.ready().await;
    let tls = server.data.join("server/tls");
    let file = |name: &str| tls.join(name).to_str().expect("text").to_owned();
    let with = |certificate: &str, key: &str| {
        [("CACERT", file("etcd/ca.crt")), ("CERT", file(certificate)), ("KEY", file(key))]
    };
    let root = with("etcd/client.crt", "etcd/client.key");
    let ctl = async |line: &str| etcdctl_with(&root, &endpoint, line).await;
    if ctl("version").await.is_empty() {
        eprintln!("NOT RUN: install etcd-client");
        return;
    }
    let path = |name: &str| scratch.path().join(name).to_str().expect("text").to_owned();
    let (snapshot, data) = (path("snapshot"), path("data"));
    let save = format!("snapshot save {snapshot}");
    let status = format!("snapshot status {snapshot} -w fields");
    // What to ask, and a part of the answer.
    let cases = [
        ("endpoint health", "is healthy"),
        ("endpoint status -w fields", "\"Version\" : \"3."),
        ("member list", "started, server-1,"),
        ("get /registry/namespaces/default --keys-only", "/registry/namespaces/default"),
        ("put /mine/a 1", "OK"),
        ("get /mine/a --print-value-only", "1"),
        ("lease grant 60 -w fields", "\"TTL\" : 60"),
        ("txn <value(\"/mine/a\") = \"1\"\n\nput /mine/b 2\n\n\n", "SUCCESS"),
        ("compaction 2", "compacted revision 2"),
        ("defrag", "Finished defragmenting"),
        ("alarm list", ""),
        ("endpoint hashkv", &endpoint),
        (&save, "Snapshot saved"),
        (&status, "\"Revision\" : "),
    ];
    for (line, part) in cases {
        let answer = ctl(line).await;
        assert!(answer.contains(part) && !answer.contains("Error: "), "{line}: {answer}");
    }

    let restore = format!("snapshot restore {snapshot} --data-dir {data}");
    assert!(etcdctl(&endpoint, &restore).await.contains("restored snapshot"));
    if let Some(real) = Real::start(&[data.as_ref()]).await {
        assert!(etcdctl(&real.endpoint, "get /mine --prefix --print-value-only").await.ends_with("1\n2\n"));
        let keys = "get /registry --prefix --keys-only";
        assert!(etcdctl(&real.endpoint, keys).await.contains("/registry/services/specs/default/kubernetes"));
    }

    // Another one of this server's certificates, none at all, another CA, no TLS.
    let admin = with("client-admin.crt", "client-admin.key");
    let nobody = [("CACERT", file("etcd/ca.crt"))];
    let wary = [("CACERT", file("server-ca.crt")), root[1].clone(), root[2].clone()];
    for environment in [&admin[..], &nobody, &wary, &[]] {
        let answer = etcdctl_with(environment, &endpoint, "get / --prefix --command-timeout=2s").await;
        assert!(answer.contains("context deadline exceeded") && !answer.contains("/registry"), "{answer}");
    }
    // etcdctl says no more; the server tells why (RFC 8446 §6.2).
    let curl = async |files: &str| {
        let line = format!("-sS --cacert {} {files} https://{endpoint}/health", file("etcd/ca.crt"));
        let done =
            tokio::process::Command::new("curl").args(line.split_whitespace()).output().await.expect("curl runs");
        String::from_utf8([done.stdout, done.stderr].concat()).expect("text")
    };
    let certificate =
        |name: &str| format!("--cert {} --key {}", file(&format!("{name}.crt")), file(&format!("{name}.key")));
    let cases = [
        (certificate("etcd/client"), "true"),
        (String::new(), "certificate required"),
        (certificate("client-admin"), "unknown ca"),
    ];
    for (files, part) in cases {
        let answer = curl(&files).await;
        assert!(answer.contains(part), "{files}: {answer}");
    }
    server.stop().await;
}
