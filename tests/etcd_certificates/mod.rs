//! Certificates for tests of etcd over TLS: a CA, one certificate for members (towards clients and each other), one for
//! clients.
#![allow(dead_code, reason = "each test binary uses its part")]

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory with `ca.crt`, `member.{crt,key}` and `client.{crt,key}`.
pub struct Certificates(PathBuf);

impl Certificates {
    /// `names`: addresses of members.
    pub fn make(directory: &Path, names: &[&str]) -> Self {
        std::fs::create_dir_all(directory).expect("a directory");
        let (ca_key, mut ca) = (KeyPair::generate().expect("a key"), CertificateParams::default());
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "test etcd CA");
        let made = Certificates(directory.to_owned());
        made.write("ca.crt", &ca.self_signed(&ca_key).expect("signs").pem());
        let issuer = Issuer::new(ca, ca_key);
        let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        for (name, sans, usages) in [("member", names, vec![server, client.clone()]), ("client", &[], vec![client])] {
            let key = KeyPair::generate().expect("a key");
            let sans = sans.iter().map(|san| (*san).to_owned()).collect::<Vec<_>>();
            let mut leaf = CertificateParams::new(sans).expect("names");
            leaf.distinguished_name.push(DnType::CommonName, name);
            leaf.extended_key_usages = usages;
            made.write(&format!("{name}.crt"), &leaf.signed_by(&key, &issuer).expect("signs").pem());
            made.write(&format!("{name}.key"), &key.serialize_pem());
        }
        made
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).expect("writes");
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("reads")
    }

    /// What etcd needs to let in clients with a certificate, and nobody else.
    pub fn etcd_flags(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.path(name));
        vec![
            file("trusted-ca-file", "ca.crt"),
            file("cert-file", "member.crt"),
            file("key-file", "member.key"),
            "--client-cert-auth".to_owned(),
        ]
    }

    /// Likewise for members towards each other.
    pub fn etcd_peer_flags(&self) -> Vec<String> {
        self.etcd_flags().iter().map(|flag| flag.replacen("--", "--peer-", 1)).collect()
    }

    /// The same for a listener of ours.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let read = |name: &str| CertificateDer::from_pem_file(self.path(name)).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(read("ca.crt")).expect("a CA");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let key = PrivateKeyDer::from_pem_file(self.path("member.key")).expect("a key");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![read("member.crt")], key)
            .expect("fits");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}
