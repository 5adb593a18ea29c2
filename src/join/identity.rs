//! What makes this host the node it is: `<data-dir>/agent/pki`, written durably, keys 0600.
//!
//! | file | what |
//! |---|---|
//! | `server-ca.crt` | whom the node believes to be the server |
//! | `node.key`, `client.crt` | the node's key and its latest certificate; a host with both has joined |
//! | `serving.key`, `serving.crt` | what the kubelet's API shows |
//! | `settings.json` | the cluster as last seen |
//! | `kubelet.kubeconfig` | the node for a kubelet or proxy that runs alone; names the files above |
//! | `server`, `node-name` | where the server is, and what the node is called: for `kedge status` |

use super::{Settings, user};
use crate::config::ServerUrl;
use crate::durable;
use crate::pki::{self, Leaf, LiveCertificate, clock};
use anyhow::{Context, Result};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SERVER_CA: &str = "server-ca.crt";
const SETTINGS: &str = "settings.json";
const SERVER: &str = "server";
const NODE_NAME: &str = "node-name";
const KUBECONFIG: &str = "kubelet.kubeconfig";

/// One of the node's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Towards the API server.
    Client,
    /// Of the kubelet's API.
    Serving,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Client, Kind::Serving];

    fn key_file(self) -> &'static str {
        match self {
            Kind::Client => "node.key",
            Kind::Serving => "serving.key",
        }
    }

    fn certificate_file(self) -> &'static str {
        match self {
            Kind::Client => "client.crt",
            Kind::Serving => "serving.crt",
        }
    }

    /// For logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Client => "client",
            Kind::Serving => "serving",
        }
    }
}

/// A certificate's life, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub start: i64,
    pub end: i64,
}

impl Life {
    /// Of the first certificate of a PEM text.
    pub fn of(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = parsed.validity();
        Some(Life { start: validity.not_before.timestamp(), end: validity.not_after.timestamp() })
    }

    /// When it is to be renewed: at two thirds.
    pub fn due(self) -> i64 {
        self.start + (self.end - self.start) / 3 * 2
    }
}

/// The node's keys, certificates and what it knows of its server.
pub struct Identity {
    dir: PathBuf,
    pub server: ServerUrl,
    pub node_name: String,
    pub addresses: Vec<IpAddr>,
    /// PEM.
    pub server_ca: String,
    client: Arc<LiveCertificate>,
    serving: Arc<LiveCertificate>,
}

/// `<data-dir>/agent/pki`.
pub fn dir(agent_dir: &Path) -> PathBuf {
    agent_dir.join("pki")
}

/// The pieces of an identity that the host's configuration decides.
pub struct Host {
    pub dir: PathBuf,
    pub server: ServerUrl,
    pub node_name: String,
    /// Addresses of the kubelet's API.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    pub fn of(config: &crate::config::Agent) -> Self {
        let node = &config.node;
        Host {
            dir: dir(&node.agent_dir()),
            server: config.server.clone(),
            node_name: node.name.clone(),
            addresses: std::iter::once(node.ip).chain(node.external_ip).collect(),
        }
    }

    /// Of the agent that runs with this data directory; None where none has joined.
    pub fn kept_in(data_dir: &Path) -> Result<Option<Host>> {
        let dir = dir(&data_dir.join("agent"));
        let (Some(server), Some(node_name)) = (read(&dir.join(SERVER))?, read(&dir.join(NODE_NAME))?) else {
            return Ok(None);
        };
        Ok(Some(Host { dir, server: ServerUrl::parse(&server)?, node_name, addresses: Vec::new() }))
    }

    /// The identity kept from an earlier join; None where there is none.
    pub fn kept(&self) -> Result<Option<Identity>> {
        clock::raise_floor(&self.dir);
        let Some(server_ca) = read(&self.dir.join(SERVER_CA))? else { return Ok(None) };
        let identity = self.identity(server_ca);
        if !identity.show(Kind::Client)? {
            return Ok(None);
        }
        identity.show(Kind::Serving)?;
        Ok(Some(identity))
    }

    /// The certificate of the kubelet's API alone, kept from earlier or still to be asked for: who has another way to be
    /// the node needs no more.
    pub fn serving(&self) -> Result<Identity> {
        clock::raise_floor(&self.dir);
        let identity = self.identity(String::new());
        identity.show(Kind::Serving)?;
        Ok(identity)
    }

    fn identity(&self, server_ca: String) -> Identity {
        Identity {
            dir: self.dir.clone(),
            server: self.server.clone(),
            node_name: self.node_name.clone(),
            addresses: self.addresses.clone(),
            server_ca,
            client: Arc::default(),
            serving: Arc::default(),
        }
    }

    /// Begin a join with a server whose CA was checked. Nothing is written yet.
    pub fn begin(&self, server_ca: &str) -> Identity {
        self.identity(server_ca.to_owned())
    }
}

impl Identity {
    /// Show the certificate that is kept, if it is there and belongs to its key.
    fn show(&self, kind: Kind) -> Result<bool> {
        let (certificate, key) =
            (read(&self.dir.join(kind.certificate_file()))?, read(&self.dir.join(kind.key_file()))?);
        let (Some(cert_pem), Some(key_pem)) = (certificate, key) else { return Ok(false) };
        let leaf = Leaf { cert_pem, key_pem };
        if !leaf.is_whole() {
            return Ok(false);
        }
        self.live(kind).set(&leaf)?;
        Ok(true)
    }

    pub fn live(&self, kind: Kind) -> Arc<LiveCertificate> {
        match kind {
            Kind::Client => self.client.clone(),
            Kind::Serving => self.serving.clone(),
        }
    }

    /// The certificate that is kept, PEM.
    pub fn certificate(&self, kind: Kind) -> Option<String> {
        read(&self.dir.join(kind.certificate_file())).ok().flatten()
    }

    /// The key, made on first use. It is on the disk before anybody hears of it: a host that forgets the key it joined
    /// with could not come back under its name. Says whether it is new.
    pub fn key(&self, kind: Kind) -> Result<(KeyPair, bool)> {
        let path = self.dir.join(kind.key_file());
        if let Some(pem) = read(&path)? {
            return Ok((KeyPair::from_pem(&pem).with_context(|| format!("parsing {}", path.display()))?, false));
        }
        let key = KeyPair::generate().context("generating a key")?;
        self.write(kind.key_file(), key.serialize_pem().as_bytes(), durable::SECRET)?;
        Ok((key, true))
    }

    /// Take back a key that nobody accepted.
    pub fn forget_key(&self, kind: Kind) {
        let _ = std::fs::remove_file(self.dir.join(kind.key_file()));
    }

    /// A signing request for the key, PEM.
    pub fn signing_request(&self, kind: Kind, key: &KeyPair) -> Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, super::GROUP);
        params.distinguished_name.push(DnType::CommonName, user(&self.node_name));
        if kind == Kind::Serving {
            let name = self.node_name.as_str().try_into().context("the node's name")?;
            params.subject_alt_names.push(SanType::DnsName(name));
            params.subject_alt_names.extend(self.addresses.iter().map(|a| SanType::IpAddress(*a)));
        }
        params.serialize_request(key).and_then(|r| r.pem()).context("making a signing request")
    }

    /// The node's private key: what only this node may read is sealed with it.
    pub fn secret(&self) -> Result<Vec<u8>> {
        Ok(self.key(Kind::Client)?.0.serialize_der())
    }

    /// Keep a new certificate and show it from the next handshake on. The first client certificate ends the join.
    pub fn install(&self, kind: Kind, cert_pem: String) -> Result<()> {
        let (key, _) = self.key(kind)?;
        let leaf = Leaf { cert_pem, key_pem: key.serialize_pem() };
        anyhow::ensure!(leaf.is_whole(), "the server signed another key than this node's");
        self.write(kind.certificate_file(), leaf.cert_pem.as_bytes(), durable::PUBLIC)?;
        clock::persist_floor(&self.dir);
        self.live(kind).set(&leaf)
    }

    /// Keep the server's CA.
    pub fn keep_server_ca(&self) -> Result<()> {
        self.write(SERVER_CA, self.server_ca.as_bytes(), durable::PUBLIC)
    }

    /// Keep where the server is and what the node is called, for other commands on this host; and how a part that runs
    /// alone is the node (`kedge component kubelet`, or a stock kubelet).
    pub fn keep_names(&self) -> Result<()> {
        let (ca, certificate, key) = (SERVER_CA, Kind::Client.certificate_file(), Kind::Client.key_file());
        let url = self.server.to_string();
        let kubeconfig =
            pki::kubeconfig_of_files(&url, super::SERVER_NAME, [ca, certificate, key], &user(&self.node_name));
        self.write(KUBECONFIG, kubeconfig.as_bytes(), durable::PUBLIC)?;
        self.write(SERVER, self.server.to_string().as_bytes(), durable::PUBLIC)?;
        self.write(NODE_NAME, self.node_name.as_bytes(), durable::PUBLIC)
    }

    pub fn keep_settings(&self, settings: &Settings) -> Result<()> {
        self.write(SETTINGS, &serde_json::to_vec_pretty(settings)?, durable::PUBLIC)
    }

    pub fn kept_settings(&self) -> Option<Settings> {
        serde_json::from_str(&read(&self.dir.join(SETTINGS)).ok()??).ok()
    }

    /// Remember the time for a start with a wrong clock (DESIGN D11).
    pub fn keep_time(&self) {
        clock::persist_floor(&self.dir);
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        durable::create_dir(&self.dir, 0o700).with_context(|| format!("making {}", self.dir.display()))?;
        let path = self.dir.join(name);
        durable::write(&path, bytes, mode).with_context(|| format!("writing {}", path.display()))
    }
}

/// The content of a file, None where it does not exist.
fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_two_thirds() {
        assert_eq!(Life { start: 100, end: 400 }.due(), 300);
    }

    /// A node's key outlives everything but its certificate decides whether the host has joined.
    #[test]
    fn keys_stay_and_certificates_must_fit() {
        let scratch = tempfile::tempdir().unwrap();
        let host = Host {
            dir: scratch.path().join("pki"),
            server: ServerUrl::parse("https://a").unwrap(),
            node_name: "n".into(),
            addresses: vec!["192.0.2.7".parse().unwrap()],
        };
        assert!(host.kept().unwrap().is_none());
        let identity = host.begin("CA");
        let (key, is_new) = identity.key(Kind::Client).unwrap();
        assert!(is_new);
        let (again, is_new) = identity.key(Kind::Client).unwrap();
        assert_eq!((again.serialize_pem(), is_new), (key.serialize_pem(), false));
        assert!(identity.signing_request(Kind::Serving, &key).unwrap().contains("CERTIFICATE REQUEST"));

        let certify = |key: &KeyPair| CertificateParams::default().self_signed(key).unwrap().pem();
        identity.install(Kind::Client, certify(&KeyPair::generate().unwrap())).unwrap_err();
        identity.keep_server_ca().unwrap();
        assert!(host.kept().unwrap().is_none());
        identity.install(Kind::Client, certify(&key)).unwrap();
        let kept = host.kept().unwrap().expect("has joined");
        assert!(!kept.live(Kind::Client).is_empty() && kept.live(Kind::Serving).is_empty());
    }
}
