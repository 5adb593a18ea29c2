//! Certificates by the CertificateSigningRequest API: a node joins, renews, cannot be taken over, and may be replaced
//! once it was deleted; a user's request waits for a person.

use crate::cluster::{Cluster, settles};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";

fn csr_pem(key: &KeyPair, organization: &str, common_name: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serialize_request(key).unwrap().pem().unwrap()
}

struct Asked<'a> {
    signer: &'a str,
    pem: String,
    auth: &'a str,
}

fn node_client(key: &KeyPair, node: &str) -> Asked<'static> {
    let pem = csr_pem(key, "system:nodes", &format!("system:node:{node}"), &[]);
    Asked { signer: NODE_CLIENT, pem, auth: "client auth" }
}

/// Create a request; returns its name.
async fn ask(client: &Client, asked: Asked<'_>) -> String {
    try_ask(client, asked).await.unwrap()
}

async fn try_ask(client: &Client, asked: Asked<'_>) -> kube::Result<String> {
    let request = json!({"metadata": {"generateName": "csr-"}, "spec": {"signerName": asked.signer, "expirationSeconds": 3600,
        "request": ByteString(asked.pem.into_bytes()), "usages": ["digital signature", asked.auth]}});
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let made = api.create(&PostParams::default(), &serde_json::from_value(request).unwrap()).await?;
    Ok(made.metadata.name.unwrap())
}

/// Wait until the request is signed or denied; the second with the message.
async fn outcome(cluster: &Cluster, name: &str) -> Result<Vec<u8>, String> {
    let api = cluster.all::<CertificateSigningRequest>();
    let mut found = None;
    settles("a decision", async || {
        let status = api.get(name).await.unwrap().status.unwrap_or_default();
        let denied = status.conditions.iter().flatten().find(|c| ["Denied", "Failed"].contains(&&*c.type_));
        found = match (status.certificate, denied) {
            (_, Some(denied)) => Some(Err(denied.message.clone().unwrap_or_default())),
            (Some(certificate), None) => Some(Ok(certificate.0)),
            (None, None) => None,
        };
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_name_belongs_to_its_key() {
    let cluster = Cluster::start(1).await;
    let token = cluster.client_of(
        "system:bootstrap:abcdef",
        &["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"],
    );
    let (first, second, third) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let join = async |key: &KeyPair, node: &str| outcome(&cluster, &ask(&token, node_client(key, node)).await).await;

    let pem = join(&first, "edge").await.unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&pem.contents).unwrap();
    assert_eq!(certificate.subject().to_string(), "O=system:nodes, CN=system:node:edge");
    // Before its node is registered and after, nobody else gets the name; the same key may come again.
    let refused = "run `kubectl delete node edge`";
    assert!(join(&second, "edge").await.unwrap_err().contains(refused));
    cluster.add_node("edge", "4").await;
    assert!(join(&second, "edge").await.unwrap_err().contains(refused));
    join(&first, "edge").await.unwrap();
    // Nor the name of a node that never joined by a token.
    assert!(join(&second, "n1").await.unwrap_err().contains("kubectl delete node n1"));

    // The node itself goes on with another key; the one before still counts.
    let itself = cluster.client_of("system:node:edge", &["system:nodes"]);
    outcome(&cluster, &ask(&itself, node_client(&third, "edge")).await).await.unwrap();
    join(&third, "edge").await.unwrap();
    join(&first, "edge").await.unwrap();

    // Its serving certificate, for its own names only.
    let serving = |names: &[&str]| {
        let pem = csr_pem(&third, "system:nodes", "system:node:edge", names);
        Asked { signer: NODE_SERVING, pem, auth: "server auth" }
    };
    outcome(&cluster, &ask(&itself, serving(&["edge"])).await).await.unwrap();
    assert!(outcome(&cluster, &ask(&itself, serving(&["kubernetes.default"])).await).await.is_err());
    let stranger = cluster.client_of("system:node:n1", &["system:nodes"]);
    let refused = try_ask(&stranger, serving(&["edge"])).await.unwrap_err().to_string();
    assert!(refused.contains("can only create a node CSR with CN=system:node:n1"), "{refused}");

    // Once the node was deleted, another machine may have the name.
    settles("the record knows its node", async || {
        let record = cluster.api::<Secret>("kube-system").get("edge.node-key.kedge").await.unwrap();
        record.metadata.annotations.is_some_and(|a| a.contains_key("kedge.io/node-uid"))
    })
    .await;
    cluster.all::<Node>().delete("edge", &DeleteParams::default()).await.unwrap();
    join(&second, "edge").await.unwrap();
    assert!(join(&first, "edge").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_request_waits_for_a_person() {
    let cluster = Cluster::start(0).await;
    let key = KeyPair::generate().unwrap();
    let asked = |usage| Asked {
        signer: "kubernetes.io/kube-apiserver-client",
        pem: csr_pem(&key, "dev", "jane", &[]),
        auth: usage,
    };
    let api = cluster.all::<CertificateSigningRequest>();
    let approve = async |name: &str| {
        let mut csr = api.get(name).await.unwrap();
        let approved = json!({"type": "Approved", "status": "True", "reason": "ok"});
        csr.status.get_or_insert_default().conditions = Some(vec![serde_json::from_value(approved).unwrap()]);
        api.replace_subresource("approval", name, &PostParams::default(), &csr).await.unwrap();
    };
    let name = ask(&cluster.client, asked("client auth")).await;
    approve(&name).await;
    outcome(&cluster, &name).await.unwrap();
    // Approved, but nothing that this signer signs.
    let name = ask(&cluster.client, asked("server auth")).await;
    approve(&name).await;
    assert!(outcome(&cluster, &name).await.unwrap_err().contains("server auth"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_tokens_sign_and_expire() {
    let cluster = Cluster::start(0).await;
    let token = |id: &str, expiration: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}")},
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true"}})
    };
    cluster.create("kube-system", token("aaaaaa", "")).await;
    cluster.create("kube-system", token("bbbbbb", "2026-01-01T00:00:00Z")).await;
    let secrets = cluster.api::<Secret>("kube-system");
    settles("the expired one is gone", async || secrets.get_opt("bootstrap-token-bbbbbb").await.unwrap().is_none())
        .await;
    // Anyone may read the signed kubeconfig.
    let anonymous = cluster.client_of("system:anonymous", &["system:unauthenticated"]);
    let maps: Api<ConfigMap> = Api::namespaced(anonymous, "kube-public");
    let signatures = async || {
        let data = maps.get("cluster-info").await.unwrap().data.unwrap();
        assert!(data["kubeconfig"].contains("server: https://192.0.2.1:6443"));
        data.into_keys().filter(|k| k.starts_with("jws-")).collect::<Vec<_>>()
    };
    settles("one signature", async || signatures().await == ["jws-kubeconfig-aaaaaa"]).await;
    secrets.delete("bootstrap-token-aaaaaa", &DeleteParams::default()).await.unwrap();
    settles("none", async || signatures().await.is_empty()).await;
    assert!(maps.get("kube-root-ca.crt").await.is_err(), "nothing else is open");
}
