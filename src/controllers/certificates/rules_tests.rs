use super::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};

/// A signed request with this subject and these names.
fn request(organization: &str, common_name: &str, names: &[&str]) -> Request {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common_name);
    let name = |text: &&str| match text.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) if text.contains('@') => SanType::Rfc822Name((*text).try_into().unwrap()),
        Err(_) => SanType::DnsName((*text).try_into().unwrap()),
    };
    params.subject_alt_names = names.iter().map(name).collect();
    let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    Request::parse(csr.pem().unwrap().as_bytes()).unwrap()
}

fn spec(signer: &str, user: &str, usages: &[&str]) -> CertificateSigningRequestSpec {
    serde_json::from_value(json!({"request": "", "signerName": signer, "username": user, "groups": ["system:nodes"],
        "usages": usages}))
    .unwrap()
}

const SIGN: &str = "digital signature";
const ENCIPHER: &str = "key encipherment";

#[test]
fn what_each_signer_signs() {
    let node = || request("system:nodes", "system:node:n", &[]);
    let serving = || request("system:nodes", "system:node:n", &["n"]);
    // Signer, request, usages; does it fit.
    let cases: Vec<(&str, Request, &[&str], bool)> = vec![
        (NODE_CLIENT, node(), &[SIGN, "client auth"], true),
        (NODE_CLIENT, node(), &[SIGN, ENCIPHER, "client auth"], true),
        (NODE_CLIENT, node(), &["client auth"], false),
        (NODE_CLIENT, node(), &[SIGN, "client auth", "server auth"], false),
        (NODE_CLIENT, serving(), &[SIGN, "client auth"], false),
        (NODE_CLIENT, request("system:masters", "system:node:n", &[]), &[SIGN, "client auth"], false),
        (NODE_CLIENT, request("system:nodes", "n", &[]), &[SIGN, "client auth"], false),
        (NODE_CLIENT, request("system:nodes", "system:node:", &[]), &[SIGN, "client auth"], false),
        (NODE_SERVING, serving(), &[SIGN, "server auth"], true),
        (NODE_SERVING, node(), &[SIGN, "server auth"], false),
        (NODE_SERVING, serving(), &[SIGN, "client auth"], false),
        (NODE_SERVING, request("system:nodes", "system:node:n", &["n", "a@b.c"]), &[SIGN, "server auth"], false),
        (CLIENT, request("dev", "jane", &[]), &["client auth"], true),
        (CLIENT, request("dev", "jane", &[]), &[SIGN], false),
        (CLIENT, request("dev", "jane", &[]), &["client auth", "server auth"], false),
        (LEGACY, request("dev", "jane", &[]), &["any"], true),
    ];
    for (signer, request, usages, fits) in cases {
        let found = fits_signer(&spec(signer, "u", usages), &request).expect("a signer of ours");
        assert_eq!(found.is_ok(), fits, "{signer} {} {usages:?}: {found:?}", request.common_name);
    }
    assert!(fits_signer(&spec("example.org/x", "u", &[SIGN]), &node()).is_none());
}

#[test]
fn serving_certificates_are_for_what_the_node_reports() {
    let node = |name: &str, addresses: &[&str]| -> Node {
        let addresses: Vec<Value> = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}})).unwrap()
    };
    let known = node("n", &["192.0.2.5", "n.example.org"]);
    let other = node("m", &["192.0.2.6", "m"]);
    let api = ["192.0.2.1".to_owned(), "api.example.org".to_owned(), "localhost".to_owned()];
    let (approve, wait, deny) = ("approve", "wait", "deny");
    // Names asked for, whether the Node is there, what is decided.
    for (names, registered, want) in [
        (&["n", "192.0.2.5"][..], true, approve),
        (&["N.example.org"], true, approve),
        (&["n", "192.0.2.7"], true, wait),
        (&["n", "192.0.2.7"], false, approve),
        (&["n.example.org"], false, wait),
        (&["n", "192.0.2.6"], true, wait),
        (&["m"], false, wait),
        (&["192.0.2.1"], false, wait),
        (&["127.0.0.1"], false, wait),
        (&["224.0.0.1"], false, wait),
        (&["api.example.org"], false, deny),
        (&["localhost"], true, deny),
        (&["kubernetes.default.svc.example.org"], false, deny),
        (&["*.example.org"], false, deny),
    ] {
        let asked = request("system:nodes", "system:node:n", names);
        let spec = spec(NODE_SERVING, "system:node:n", &[SIGN, "server auth"]);
        let verdict = serving(&spec, &asked, registered.then_some(&known), [&other].into_iter(), &api);
        let found = match &verdict {
            Verdict::Approve => approve,
            Verdict::Wait(_) => wait,
            Verdict::Deny(_) => deny,
        };
        assert_eq!(found, want, "{names:?} registered {registered}: {verdict:?}");
    }
    let asked = request("system:nodes", "system:node:n", &["n"]);
    for foreign in ["system:node:m", "system:bootstrap:abcdef"] {
        let spec = spec(NODE_SERVING, foreign, &[SIGN, "server auth"]);
        let verdict = serving(&spec, &asked, Some(&known), [&other].into_iter(), &api);
        assert!(matches!(verdict, Verdict::Deny(_)), "{foreign} {verdict:?}");
    }
}
