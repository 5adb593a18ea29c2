//! Certificates and tokens as people use them: `kubectl certificate approve`, bootstrap tokens, the signed cluster-info,
//! a node's name that cannot be taken over.

use crate::host::Host;
use crate::run::{eventually, has, run, sh};

/// A key and a base64 request for it, made by openssl.
fn request(host: &Host, name: &str, subject: &str) -> String {
    sh(&format!(
        "cd {} && openssl ecparam -name prime256v1 -genkey -noout -out {name}.key &&
         openssl req -new -key {name}.key -subj {subject} | base64 -w0",
        host.dir.display()
    ))
    .ok()
}

fn csr(name: &str, signer: &str, request: &str) -> String {
    format!(
        "apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {name}}}
spec:
  signerName: kubernetes.io/{signer}
  expirationSeconds: 3600
  request: {request}
  usages: [digital signature, client auth]
"
    )
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_person_gets_a_certificate() {
    let host = Host::api_only();
    let asked = request(&host, "jane", "/O=dev/O=ops/CN=jane");
    has(&host.apply(&csr("jane", "kube-apiserver-client", &asked)).ok(), "created");
    has(&host.k("get csr jane").ok(), "Pending");
    host.k("certificate approve jane").ok();
    let certificate = eventually("a certificate", 30, || {
        let found = host.k("get csr jane -o jsonpath={.status.certificate}").result()?;
        if found.is_empty() { Err("not yet".to_owned()) } else { Ok(found) }
    });
    has(&host.k("get csr jane").ok(), "Approved,Issued");
    let dir = host.dir.display();
    sh(&format!("echo {certificate} | base64 -d > {dir}/jane.crt")).ok();
    let text = sh(&format!("openssl x509 -in {dir}/jane.crt -noout -subject -ext extendedKeyUsage")).ok();
    has(&text, "O = dev, O = ops, CN = jane");
    has(&text, "TLS Web Client Authentication");
    let mut whoami = host.inside("kubectl");
    whoami.args(["--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify"]);
    whoami.args([format!("--client-certificate={dir}/jane.crt"), format!("--client-key={dir}/jane.key")]);
    let who = run(whoami.args(["auth", "whoami"]).env("HOME", &host.dir)).ok();
    has(&who, "jane");
    has(&who, "[dev ops system:authenticated]");

    // Denied stays denied; the group of administrators cannot be asked for.
    host.apply(&csr("nobody", "kube-apiserver-client", &asked)).ok();
    host.k("certificate deny nobody").ok();
    has(&host.k("get csr nobody").ok(), "Denied");
    let masters = request(&host, "root", "/O=system:masters/CN=root");
    has(&host.apply(&csr("root", "kube-apiserver-client", &masters)).fails(), "system:masters group is not allowed");
}

const TOKEN: &str = "abcdef.0123456789abcdef";

fn token(expiration: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
type: bootstrap.kubernetes.io/token
metadata: {{name: bootstrap-token-abcdef, namespace: kube-system}}
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  expiration: \"{expiration}\"
  usage-bootstrap-authentication: \"true\"
  usage-bootstrap-signing: \"true\"
  auth-extra-groups: system:bootstrappers:kubeadm:default-node-token
"
    )
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_token_lets_a_machine_in_once_per_name() {
    let host = Host::api_only();
    has(&host.with_token(TOKEN, "auth whoami").fails(), "Unauthorized");
    host.apply(&token("")).ok();
    let who = host.with_token(TOKEN, "auth whoami").ok();
    has(&who, "system:bootstrap:abcdef");
    has(&who, "system:bootstrappers:kubeadm:default-node-token");
    has(&host.with_token("abcdef.0123456789abcdee", "auth whoami").fails(), "Unauthorized");
    has(&host.with_token(TOKEN, "get secrets -A").fails(), "forbidden");

    // Whoever has the token can check what everybody can read.
    let info = run(host
        .inside("curl")
        .args(["-skS", "https://127.0.0.1:6443/api/v1/namespaces/kube-public/configmaps/cluster-info"]));
    has(&info.ok(), "kubeconfig");
    let read =
        |key: &str| host.k(&format!("-n kube-public get configmap cluster-info -o jsonpath={{.data.{key}}}")).ok();
    let signature = eventually("a signature", 30, || match read("jws-kubeconfig-abcdef") {
        none if none.is_empty() => Err("not yet".to_owned()),
        signature => Ok(signature),
    });
    let (header, tag) = signature.split_once("..").expect("a detached JWS");
    let file = host.dir.join("kubeconfig.public");
    std::fs::write(&file, read("kubeconfig")).expect("writes");
    let url = "basenc --base64url -w0 | tr -d =";
    let tag_again = sh(&format!(
        "{{ printf %s. {header}; cat {} | {url}; }} | openssl dgst -sha256 -hmac 0123456789abcdef -binary | {url}",
        file.display()
    ));
    assert_eq!(tag_again.ok(), tag);

    // A machine joins as edge; another one cannot be edge as well, until edge is deleted.
    let mut count = 0;
    let mut ask = || {
        count += 1;
        let name = format!("edge-{count}");
        let asked = request(&host, &name, "/O=system:nodes/CN=system:node:edge");
        let file = host.dir.join("csr.yaml");
        std::fs::write(&file, csr(&name, "kube-apiserver-client-kubelet", &asked)).expect("writes");
        host.with_token(TOKEN, &format!("create -f {}", file.display())).ok();
        eventually("a decision", 30, || {
            let text = host.k(&format!("get csr {name}")).result()?;
            if text.contains("Issued") || text.contains("Denied") { Ok(text) } else { Err(text) }
        });
        host.k(&format!("get csr {name} -o jsonpath={{.status.conditions[0].type}}{{.status.conditions[0].message}}"))
            .ok()
    };
    has(&ask(), "Approved");
    host.apply("apiVersion: v1\nkind: Node\nmetadata: {name: edge}\n").ok();
    let denied = ask();
    has(&denied, "Denied");
    has(&denied, "kubectl delete node edge");
    eventually("the record knows the node", 20, || {
        let known =
            host.k("-n kube-system get secret edge.node-key.kedge -o jsonpath={.metadata.annotations}").result()?;
        if known.contains("node-uid") { Ok(()) } else { Err(known) }
    });
    host.k("delete node edge").ok();
    has(&ask(), "Approved");

    // The end of the token is the end of its rights and signatures.
    host.apply(&token("2026-01-01T00:00:00Z")).ok();
    has(&host.with_token(TOKEN, "auth whoami").fails(), "Unauthorized");
    eventually("the token is removed", 30, || {
        match host.k("-n kube-system get secret bootstrap-token-abcdef -o name --ignore-not-found").result()? {
            gone if gone.is_empty() => Ok(()),
            there => Err(there),
        }
    });
    eventually("no signature", 30, || match read("jws-kubeconfig-abcdef") {
        none if none.is_empty() => Ok(()),
        there => Err(there),
    });
}
