//! A second host joins with one command, and only when it may.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, sh};

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_second_node_joins() {
    let host = Host::ready();
    let mut second = host.beside(2);
    second.import();
    second.join(&host, &["--node-label=site=attic", "--node-external-ip=203.0.113.7"]);
    host.wait_node("node-2");
    let wide = host.k("get nodes -o wide").ok();
    has(&wide, "10.99.0.12");
    has(&wide, "203.0.113.7");
    has(&host.k("get nodes -l site=attic").ok(), "node-2");

    // It runs pods.
    let spec = r#"{"spec":{"nodeName":"node-2"}}"#;
    host.kubectl(&["run", "far", &format!("--image={BUSYBOX}"), "--overrides", spec]).ok();
    host.k("wait --for=condition=Ready pod/far --timeout=60s").ok();

    // Started again, also without a token, it is the same node.
    let uid = host.k("get node node-2 -o jsonpath={.metadata.uid}").ok();
    let pod = host.k("get pod far -o jsonpath={.status.containerStatuses[0].containerID}").ok();
    second.kill();
    second.start(&[&format!("--server={}", crate::agent::server_url())]);
    eventually("the agent is back", 30, || match second.log().matches("the node's parts run").count() {
        2 => Ok(()),
        n => Err(format!("{n}")),
    });
    host.wait_node("node-2");
    assert_eq!(host.k("get node node-2 -o jsonpath={.metadata.uid}").ok(), uid);
    assert_eq!(host.k("get pod far -o jsonpath={.status.containerStatuses[0].containerID}").ok(), pod);
}

/// Each refusal is a sentence that says what to do, and leaves nothing half-joined behind.
#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn who_may_not_join_is_told_why() {
    let mut host = Host::new();
    host.start(&[]);
    host.wait_ready();
    let mut second = host.beside(2);
    let good = host.token();
    let secret = good.rsplit(':').next().expect("secret").to_owned();
    let wrong_ca = format!("--token=K10{}::node:{secret}", "0".repeat(64));
    let wrong_hash = format!("--discovery-token-ca-cert-hash=sha256:{}", "0".repeat(64));
    let right = format!("--token={good}");
    // A token that ends at once.
    let expired = host.kedge_with_config(&["token", "create", "--ttl=1s"]).ok();
    eventually("the token ends", 10, || match host.with_token(expired.trim(), "get csr") {
        call if call.stderr.contains("Unauthorized") || call.stderr.contains("logged in") => Ok(()),
        call => Err(call.stderr),
    });
    let expired = format!("--token={}", expired.trim());
    let cases: [(&[&str], &str); 5] = [
        (&["--token=wrong"], "refuses this token; the right one is in"),
        (&[&wrong_ca], "the CA of https://10.99.0.1:6443 is not the one in the token"),
        (&[&right, &wrong_hash], "which is not in --discovery-token-ca-cert-hash"),
        (&[&expired], "does not know this token, or it has expired; make a new one"),
        (&[], "give the token with --token or --token-file"),
    ];
    for (flags, sentence) in cases {
        has(&second.try_join(flags).fails(), sentence);
        has_not_joined(&second);
    }
    // The server's own node.
    second.name = "node-1".to_owned();
    has(&second.try_join(&[&right]).fails(), "the server refuses a certificate for node node-1");
    has_not_joined(&second);
    assert!(!host.k("get nodes").ok().contains("node-2"), "nobody has joined");

    // Versions that do not fit are refused by the server, whoever asks.
    let skew = |version: &str| host.with_token(&secret, &format!("get --raw /v1-kedge/cluster?version={version}"));
    has(&skew("v1.38.0").fails(), "upgrade the server first");
    has(&skew("v1.33.0").fails(), "too old");
    has(&skew("v1.34.0").ok(), "clusterCidr");
    // The token is good for nothing else.
    has(&host.with_token(&secret, "get nodes").fails(), "forbidden");
    has(&host.with_token(&secret, "get secrets -n kube-system").fails(), "forbidden");

    // The name of a node that is there belongs to its key.
    let mut third = host.beside(3);
    let ca = format!("openssl x509 -in {}/server/tls/server-ca.crt -noout", host.data_dir().display());
    let fingerprint = sh(&format!("{ca} -fingerprint -sha256 | cut -d= -f2 | tr -d : | tr A-F a-f")).ok();
    assert!(good.starts_with(&format!("K10{}::", fingerprint.trim())), "{fingerprint}");
    let hash = sh(&format!("{ca} -pubkey | openssl pkey -pubin -outform der | sha256sum | cut -d' ' -f1")).ok();
    third.join(&host, &[&format!("--discovery-token-ca-cert-hash=sha256:{}", hash.trim())]);
    host.wait_node("node-3");
    second.name = "node-3".to_owned();
    has(&second.try_join(&[&right]).fails(), "the server refuses a certificate for node node-3");
    has_not_joined(&second);

    // A node that has joined does not follow another server, and does not give up either.
    third.stop();
    host.stop();
    std::fs::remove_dir_all(host.data_dir().join("server")).expect("another cluster");
    host.start_again();
    host.wait_api();
    third.start_again();
    eventually("the agent says so", 60, || {
        let log = third.log();
        if log.contains("shows a certificate of another CA") { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert!(third.is_running(), "it goes on trying");
}

pub fn has_not_joined(agent: &crate::agent::Agent) {
    let pki = agent.data_dir().join("agent/pki");
    let left: Vec<_> = std::fs::read_dir(&pki).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?} is left in {}", pki.display());
}

/// Every form of token, and joining without knowing the server's address.
#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn tokens_of_every_form_let_nodes_in() {
    let mut host = Host::new();
    host.start(&[]);
    host.wait_ready();

    // The printed command: a bootstrap token that pins the CA.
    let command = host.kedge_with_config(&["token", "create", "--print-join-command", "--description=attic"]).ok();
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(words[..2], ["kedge", "agent"]);
    let mut second = host.beside(2);
    second.start(&words[2..]);
    host.wait_node("node-2");
    let token = words.last().expect("token").rsplit(':').next().expect("id.secret");
    let listed = host.kedge_with_config(&["token", "list"]).ok();
    has(&listed, token);
    has(&listed, "attic");
    has(&listed, "system:bootstrappers:kubeadm:default-node-token");
    host.kedge_with_config(&["token", "delete", &token[..6]]).ok();
    assert!(!host.kedge_with_config(&["token", "list"]).ok().contains(token));

    // The bare secret, after a rotation, by a name that is in no certificate.
    let rotated = host.kedge(&["token", "rotate", &host.instance_flags()[0], "--config=/dev/null"]).ok();
    let secret = rotated.trim().rsplit(':').next().expect("secret").to_owned();
    let mut third = host.beside(3);
    let old = format!("--token={secret}x");
    has(&third.try_join(&[&old]).fails(), "refuses this token");
    third.start(&["--server=https://10.99.0.1.nip.invalid:6443", &format!("--token={secret}")]);
    eventually("a name that nobody knows is waited for", 30, || {
        let log = third.log();
        if log.contains("cannot reach https://10.99.0.1.nip.invalid:6443") { Ok(()) } else { Err(log) }
    });
    third.stop();
    third.start(&[&format!("--server={}", crate::agent::server_url()), &format!("--token={secret}")]);
    host.wait_node("node-3");
    has(&third.log(), "the token does not say which CA is the right one");
    has(&third.kedge(&["status", &third.instance_flags()[0], "--kubeconfig=/nowhere"]).ok(), "node-3 Ready");
}

/// Certificates of a minute: renewed while everything runs; and an agent that was away until its certificate had ended
/// comes back by its key alone.
#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn certificates_are_renewed_and_ends_are_survived() {
    let mut host = Host::new();
    host.start(&["--certificate-ttl=60"]);
    host.wait_ready();
    let mut second = host.beside(2);
    second.join(&host, &[]);
    host.wait_node("node-2");
    let pki = second.data_dir().join("agent/pki");
    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap_or_default();
    let (client, serving, key) = (read("client.crt"), read("serving.crt"), read("node.key"));
    eventually("both certificates are new", 90, || {
        let new = read("client.crt") != client && read("serving.crt") != serving;
        if new { Ok(()) } else { Err("still the old".to_owned()) }
    });
    assert_eq!(read("node.key"), key, "the key is the identity");

    // On demand, on both sides.
    let place = |host: &crate::machine::Machine| host.instance_flags()[..2].to_vec();
    for machine in [&*host as &crate::machine::Machine, &second] {
        let flags = place(machine);
        has(&machine.kedge(&["certificate", "rotate", &flags[0], &flags[1]]).ok(), "certificates are new");
        has(&machine.kedge(&["certificate", "check", &flags[0], &flags[1]]).ok(), "ends");
    }

    // Off until the certificate has ended; back without a token.
    second.stop();
    eventually("the certificate ends", 90, || {
        let flags = place(&second);
        let checked = second.kedge(&["certificate", "check", &flags[0], &flags[1]]);
        let ended = |line: &str| line.contains("agent/pki/client") && line.contains("ENDED");
        if checked.stdout.lines().any(ended) { Ok(()) } else { Err(checked.stdout) }
    });
    let stale = read("client.crt");
    second.start(&[&format!("--server={}", crate::agent::server_url())]);
    eventually("a new certificate", 60, || if read("client.crt") != stale { Ok(()) } else { Err(second.log()) });
    has(&host.log(), "a node is back after its certificate had ended");
    host.wait_node("node-2");
}
