use super::*;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;

fn config(sans: &[&str]) -> PkiConfig {
    PkiConfig {
        node_name: "node-1".into(),
        node_ips: vec!["192.0.2.7".parse().unwrap()],
        service_ips: vec!["10.43.0.1".parse().unwrap()],
        cluster_domain: "cluster.local".into(),
        tls_sans: sans.iter().map(|s| (*s).to_owned()).collect(),
        life: LEAF_LIFE,
    }
}

/// What the files hold, by their paths below `dir`.
fn contents(dir: &Path) -> HashMap<String, String> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            all.extend(contents(&entry.path()).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)));
        } else {
            all.insert(name, std::fs::read_to_string(entry.path()).unwrap());
        }
    }
    all.remove("last-time");
    all
}

#[test]
fn a_second_start_changes_nothing_and_keys_are_secret() {
    let dir = tempfile::tempdir().unwrap();
    Pki::load_or_create(dir.path(), config(&[])).unwrap();
    let first = contents(dir.path());
    let again = Pki::load_or_create(dir.path(), config(&[])).unwrap();
    assert_eq!(first, contents(dir.path()));
    assert!(!again.renew().unwrap());
    for name in first.keys().filter(|n| n.ends_with(".key")) {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Four CAs, the leaves and the two of the etcd API, the key of service accounts.
    assert_eq!(first.len(), 4 * 2 + (again.leaves().len() + 2) * 2 + 1);
}

#[test]
fn each_part_has_a_kubeconfig_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(&dir.path().join("tls"), config(&[])).unwrap();
    let cred = dir.path().join("cred");
    let node = format!("system:node:{}", pki.config.node_name);
    pki.write_part_kubeconfigs(&cred, "https://192.0.2.1:6443").unwrap();
    for (part, user) in [
        ("scheduler", "system:kube-scheduler"),
        ("controllers", "system:kube-controller-manager"),
        ("kubelet", node.as_str()),
        ("proxy", "system:kube-proxy"),
    ] {
        let path = cred.join(part).with_extension("kubeconfig");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("user: {user}\n")), "{part}: {text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{part}");
    }
    assert_eq!(std::fs::read_dir(&cred).unwrap().count(), 4);
}

#[test]
fn a_new_name_reissues_only_the_serving_certificate() {
    let dir = tempfile::tempdir().unwrap();
    Pki::load_or_create(dir.path(), config(&[])).unwrap();
    let before = contents(dir.path());
    Pki::load_or_create(dir.path(), config(&["api.example.org", "::0:1"])).unwrap();
    let after = contents(dir.path());
    let changed: Vec<&String> = after.iter().filter(|(k, v)| before.get(*k) != Some(v)).map(|(k, _)| k).collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed.iter().all(|n| n.starts_with("serving-apiserver")), "{changed:?}");
}

#[test]
fn torn_pairs_are_mended_or_refused() {
    let cases = [
        ("serving-apiserver.key", true),
        ("client-admin.crt", true),
        ("server-ca.key", false), // clients trust this CA: never replaced silently
    ];
    for (name, mended) in cases {
        let dir = tempfile::tempdir().unwrap();
        Pki::load_or_create(dir.path(), config(&[])).unwrap();
        std::fs::remove_file(dir.path().join(name)).unwrap();
        assert_eq!(Pki::load_or_create(dir.path(), config(&[])).is_ok(), mended, "{name}");
    }
}

#[test]
fn signatures_verify_only_what_was_signed() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), config(&[])).unwrap();
    let key = pki.service_account_key();
    let signature = key.sign(b"hello").unwrap();
    assert!(key.public().verifies(b"hello", &signature));
    assert!(!key.public().verifies(b"hellO", &signature));
    let jwk = key.public().to_jwk();
    assert_eq!(jwk["x"].as_str().unwrap().len(), 43);
}

#[test]
fn kubeconfig_is_yaml_with_the_ca() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), config(&[])).unwrap();
    let text = pki.admin_kubeconfig("https://192.0.2.7:6443").unwrap();
    let yaml: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(yaml["clusters"][0]["cluster"]["server"].as_str(), Some("https://192.0.2.7:6443"));
    assert!(yaml["users"][0]["user"]["client-key-data"].is_string());
}

/// A TLS handshake over memory with the admin's certificate, for each name the certificate must carry.
#[test]
fn handshakes_by_every_name_and_with_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), config(&["api.example.org"])).unwrap();
    let names = [
        "127.0.0.1",
        "::1",
        "localhost",
        "node-1",
        "192.0.2.7",
        "10.43.0.1",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "api.example.org",
    ];
    let server = pki.server_config().unwrap();
    for name in names {
        assert_eq!(handshake(&pki, server.clone(), name).unwrap(), 1, "{name}");
    }
    assert!(handshake(&pki, server, "other.example.org").is_err());
}

/// Number of client certificates the server saw.
fn handshake(pki: &Pki, server: Arc<rustls::ServerConfig>, name: &str) -> Result<usize, rustls::Error> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.server_ca().der().clone())?;
    let leaf = Leaf::load(&pki.dir, files::ADMIN).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(serving::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let mut client =
        rustls::ClientConnection::new(Arc::new(client), name.to_owned().try_into().expect("test names are valid"))?;
    let mut server = rustls::ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(server.peer_certificates().map_or(0, <[_]>::len))
}

#[test]
fn requests_are_signed_as_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), config(&[])).unwrap();
    // Two organizations and all kinds of names, as openssl writes them.
    let text = "-----BEGIN CERTIFICATE REQUEST-----
MIIBSTCB7wIBADArMQwwCgYDVQQKDANkZXYxDDAKBgNVBAoMA29wczENMAsGA1UE
AwwEamFuZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMZ5eeiS0aKWYPXZTJFx
FYQqyl6QxJh9ZfTlcKoJF92zKvfi9PfnlOgM8a7VcaP53rt4sdS9GTT5cu2ZhA+c
8FWgYjBgBgkqhkiG9w0BCQ4xUzBRMEQGA1UdEQQ9MDuCEGphbmUuZXhhbXBsZS5v
cmeHBMAAAgmBEGphbmVAZXhhbXBsZS5vcmeGD3NwaWZmZTovL3gvamFuZTAJBgNV
HRMEAjAAMAoGCCqGSM49BAMCA0kAMEYCIQDcDlbyrPAcSXe0nyVaQChZf/VdniFt
gcBiOrlb9B9HgwIhAMKFrZc35ckW+mYU10y0pr7gFNamLD4S6cFXAx1Wc5z9
-----END CERTIFICATE REQUEST-----
";
    let request = Request::parse(text.as_bytes()).unwrap();
    assert_eq!((request.common_name.as_str(), request.organizations.len()), ("jane", 2));
    let usages = ["client auth".to_owned(), "digital signature".to_owned()];
    let pem = pki.client_ca().sign_as_asked(&request, &usages, 3600).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&pem.contents).unwrap();
    let (_, ca) = x509_parser::parse_x509_certificate(pki.client_ca().der()).unwrap();
    cert.verify_signature(Some(ca.public_key())).unwrap();
    let groups: Vec<_> = cert.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
    assert_eq!(groups, ["dev", "ops"]);
    assert_eq!(hex(ring::digest::digest(&ring::digest::SHA256, cert.public_key().raw).as_ref()), request.key_hash);
    let names = cert.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 4);
    let validity = cert.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3600 + 360);
    assert!(cert.extended_key_usage().unwrap().unwrap().value.client_auth);
    assert!(!cert.is_ca());

    assert!(pki.client_ca().sign_as_asked(&request, &["cert sign".to_owned()], 3600).is_err());
    let forged = text.replacen("DANkZXYx", "DANkZXcx", 1);
    assert!(Request::parse(forged.as_bytes()).is_err(), "a request changed after it was signed");
}
