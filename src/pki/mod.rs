//! Certificates: CAs, leaf issue and renewal, kubeconfigs (DESIGN D10, D11).
//!
//! Everything lives in `<data-dir>/server/tls`, written durably, keys 0600, and is reused at the next start. A leaf is
//! issued anew when its names changed, two thirds of its life are over, or it does not fit its key or CA; the server's
//! own serving certificate is swapped in the running listener ([`Pki::renew`]).

mod authority;
pub mod clock;
mod etcd;
mod kubeconfig;
mod leaf;
mod request;
mod serving;
mod signers;
mod signing;

pub use authority::{Authority, pem};
pub use etcd::EtcdPki;
pub use kubeconfig::{Kubeconfig, kubeconfig_of_files};
pub use leaf::{Leaf, LeafSpec, Usage};
pub use request::Request;
pub use serving::{LiveCertificate, server_config_of};
pub use signers::Signing;
pub use signing::{PublicKey, SigningKey};

use crate::durable;
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// User of the API server towards kubelets; bound to `system:kubelet-api-admin` by the bootstrap policy.
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";
/// User of the API server towards aggregated API servers (`--requestheader-allowed-names`).
pub const FRONT_PROXY_USER: &str = "front-proxy-client";
/// User of the admin kubeconfig; its certificate carries the group `system:masters`.
pub const ADMIN_USER: &str = "kubernetes-admin";

/// What the certificates must say.
#[derive(Clone, Debug)]
pub struct PkiConfig {
    pub node_name: String,
    /// Addresses of this node, the advertised one included.
    pub node_ips: Vec<IpAddr>,
    /// First address of each service range: the ClusterIP of Service `default/kubernetes`.
    pub service_ips: Vec<IpAddr>,
    pub cluster_domain: String,
    /// `--tls-san`: further names and addresses under which clients reach this server.
    pub tls_sans: Vec<String>,
    /// Life of a leaf.
    pub life: Duration,
}

/// Life of a leaf where nothing else is said.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Which leaves are issued anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Those that need it.
    Due,
    All,
}

/// All keys and certificates of one server.
pub struct Pki {
    dir: PathBuf,
    config: PkiConfig,
    server_ca: Authority,
    client_ca: Authority,
    request_header_ca: Authority,
    service_account: Arc<SigningKey>,
    serving: Arc<LiveCertificate>,
    kubelet_serving: Arc<LiveCertificate>,
    etcd: EtcdPki,
}

/// File names below the directory, without extension (`.crt`, `.key`).
mod files {
    pub const SERVER_CA: &str = "server-ca";
    pub const CLIENT_CA: &str = "client-ca";
    pub const REQUEST_HEADER_CA: &str = "request-header-ca";
    pub const SERVICE_ACCOUNT: &str = "service-account";
    pub const SERVING: &str = "serving-apiserver";
    pub const KUBELET_SERVING: &str = "serving-kubelet";
    pub const KUBELET_CLIENT: &str = "client-kubelet";
    pub const APISERVER_TO_KUBELET: &str = "client-apiserver-kubelet";
    pub const FRONT_PROXY: &str = "client-front-proxy";
    pub const ADMIN: &str = "client-admin";
    pub const SCHEDULER: &str = "client-scheduler";
    pub const CONTROLLERS: &str = "client-controllers";
    pub const PROXY: &str = "client-proxy";
}

/// Leaves of the parts that may run alone, and the parts.
const PARTS: [(&str, &str); 4] = [
    (files::SCHEDULER, "scheduler"),
    (files::CONTROLLERS, "controllers"),
    (files::KUBELET_CLIENT, "kubelet"),
    (files::PROXY, "proxy"),
];

impl Pki {
    /// Load what is in `dir`, and make what is missing or out of date.
    pub fn load_or_create(dir: &Path, config: PkiConfig) -> Result<Pki> {
        durable::create_dir(dir, 0o700).with_context(|| format!("making {}", dir.display()))?;
        clock::raise_floor(dir);
        let pki = Pki {
            server_ca: Authority::load_or_create(dir, files::SERVER_CA, "kedge-server-ca")?,
            client_ca: Authority::load_or_create(dir, files::CLIENT_CA, "kedge-client-ca")?,
            request_header_ca: Authority::load_or_create(dir, files::REQUEST_HEADER_CA, "kedge-request-header-ca")?,
            service_account: Arc::new(SigningKey::load_or_create(dir, files::SERVICE_ACCOUNT)?),
            etcd: EtcdPki::load_or_create(&dir.join("etcd"), &config.node_name, &config.node_ips)?,
            dir: dir.to_owned(),
            config,
            serving: Arc::default(),
            kubelet_serving: Arc::default(),
        };
        pki.renew()?;
        Ok(pki)
    }

    /// Issue anew every leaf that needs it; listeners serve the new certificate from the next handshake on. Call it
    /// often enough for the life of a leaf. Returns whether anything changed.
    pub fn renew(&self) -> Result<bool> {
        self.refresh(Which::Due)
    }

    /// Issue anew every leaf.
    pub fn rotate(&self) -> Result<()> {
        self.refresh(Which::All).map(drop)
    }

    fn refresh(&self, which: Which) -> Result<bool> {
        clock::persist_floor(&self.dir);
        let life = self.config.life.as_secs() as i64;
        let mut changed = self.etcd.refresh(which, life)?;
        for (name, authority, spec) in self.leaves() {
            let (leaf, is_new) = refresh_leaf(&self.dir, name, authority, &spec, life, which)?;
            changed |= is_new;
            let live = match name {
                files::SERVING => &self.serving,
                files::KUBELET_SERVING => &self.kubelet_serving,
                _ => continue,
            };
            if is_new || live.is_empty() {
                live.set(&leaf)?;
            }
        }
        Ok(changed)
    }

    /// Every leaf: file name, who signs it, what it says.
    fn leaves(&self) -> [(&'static str, &Authority, LeafSpec); 9] {
        let node_user = format!("system:node:{}", self.config.node_name);
        let kubelet_names = self.kubelet_names();
        [
            (files::SERVING, &self.server_ca, LeafSpec::server("kube-apiserver", "", self.server_names())),
            (files::KUBELET_SERVING, &self.server_ca, LeafSpec::server(&node_user, "system:nodes", kubelet_names)),
            (files::KUBELET_CLIENT, &self.client_ca, LeafSpec::client(&node_user, "system:nodes")),
            (files::APISERVER_TO_KUBELET, &self.client_ca, LeafSpec::client(KUBELET_CLIENT_USER, "")),
            (files::FRONT_PROXY, &self.request_header_ca, LeafSpec::client(FRONT_PROXY_USER, "")),
            (files::ADMIN, &self.client_ca, LeafSpec::client(ADMIN_USER, "system:masters")),
            (files::SCHEDULER, &self.client_ca, LeafSpec::client("system:kube-scheduler", "")),
            (files::CONTROLLERS, &self.client_ca, LeafSpec::client("system:kube-controller-manager", "")),
            (files::PROXY, &self.client_ca, LeafSpec::client("system:kube-proxy", "")),
        ]
    }

    /// Every name under which clients may reach the API server.
    pub fn server_names(&self) -> Vec<String> {
        let config = &self.config;
        let fixed = ["127.0.0.1", "::1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut names: Vec<String> = fixed.iter().map(|s| (*s).to_owned()).collect();
        names.push(format!("kubernetes.default.svc.{}", config.cluster_domain));
        names.push(config.node_name.clone());
        names.extend(config.node_ips.iter().chain(&config.service_ips).map(IpAddr::to_string));
        names.extend(config.tls_sans.iter().cloned());
        names
    }

    fn kubelet_names(&self) -> Vec<String> {
        let mut names = vec![self.config.node_name.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        names.extend(self.config.node_ips.iter().map(IpAddr::to_string));
        names
    }

    /// TLS of the API server: HTTP/2 and 1.1, client certificates asked for but optional, the serving certificate
    /// swapped live.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>> {
        serving::server_config(self.serving.clone(), &self.client_ca)
    }

    /// The etcd API's own.
    pub fn etcd(&self) -> &EtcdPki {
        &self.etcd
    }

    /// Signs serving certificates: what clients must trust (`certificate-authority-data`, `kube-root-ca.crt`).
    pub fn server_ca(&self) -> &Authority {
        &self.server_ca
    }

    /// Signs client certificates of users and nodes.
    pub fn client_ca(&self) -> &Authority {
        &self.client_ca
    }

    /// Signs the front proxy's client certificate (`requestheader-client-ca-file`).
    pub fn request_header_ca(&self) -> &Authority {
        &self.request_header_ca
    }

    /// Signs and verifies service-account tokens.
    pub fn service_account_key(&self) -> Arc<SigningKey> {
        self.service_account.clone()
    }

    /// What the kubelet's HTTPS API of this server's own node shows.
    pub fn kubelet_serving(&self) -> Arc<LiveCertificate> {
        self.kubelet_serving.clone()
    }

    /// PEM files of this node's client certificate, `system:node:<name>`.
    pub fn kubelet_client(&self) -> (PathBuf, PathBuf) {
        self.paths(files::KUBELET_CLIENT)
    }

    /// PEM files with which the API server calls kubelets.
    pub fn apiserver_to_kubelet(&self) -> (PathBuf, PathBuf) {
        self.paths(files::APISERVER_TO_KUBELET)
    }

    /// PEM files with which the API server calls aggregated API servers.
    pub fn front_proxy(&self) -> (PathBuf, PathBuf) {
        self.paths(files::FRONT_PROXY)
    }

    /// PEM file of the CA behind all serving certificates.
    pub fn server_ca_file(&self) -> PathBuf {
        self.dir.join(files::SERVER_CA).with_extension("crt")
    }

    /// The kubeconfig of `system:masters` for a server at `url` (`https://192.0.2.1:6443`): everything embedded, so it
    /// works on any machine that reaches the address.
    pub fn admin_kubeconfig(&self, url: &str) -> Result<String> {
        let leaf = Leaf::load(&self.dir, files::ADMIN)?;
        Ok(Kubeconfig { url, ca_pem: self.server_ca.pem(), user: ADMIN_USER, leaf: &leaf }.to_yaml())
    }

    /// Write a kubeconfig for each part that may run alone (`kedge component`), with the identity it has upstream:
    /// `<dir>/<part>.kubeconfig`.
    pub fn write_part_kubeconfigs(&self, dir: &Path, url: &str) -> Result<()> {
        durable::create_dir(dir, 0o700).with_context(|| format!("making {}", dir.display()))?;
        for (name, _, spec) in self.leaves() {
            let Some((_, part)) = PARTS.iter().find(|(file, _)| *file == name) else { continue };
            let (user, leaf) = (spec.common_name.as_str(), Leaf::load(&self.dir, name)?);
            let text = Kubeconfig { url, ca_pem: self.server_ca.pem(), user, leaf: &leaf }.to_yaml();
            let path = file(dir, part, "kubeconfig");
            if read_if_there(&path)?.as_ref() != Some(&text) {
                durable::write(&path, text.as_bytes(), durable::SECRET)
                    .with_context(|| format!("writing {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn paths(&self, name: &str) -> (PathBuf, PathBuf) {
        let path = self.dir.join(name);
        (path.with_extension("crt"), path.with_extension("key"))
    }
}

/// The leaf on disk, or a new one; whether it is new.
fn refresh_leaf(
    dir: &Path,
    name: &str,
    authority: &Authority,
    spec: &LeafSpec,
    life: i64,
    which: Which,
) -> Result<(Leaf, bool)> {
    let kept = if which == Which::Due { Leaf::kept(dir, name, authority, spec)? } else { None };
    match kept {
        Some(leaf) => Ok((leaf, false)),
        None => Ok((Leaf::issue_to(dir, name, authority, spec, life)?, true)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `<dir>/<name>.<extension>`.
fn file(dir: &Path, name: &str, extension: &str) -> PathBuf {
    dir.join(name).with_extension(extension)
}

/// Content of a file, None where it does not exist.
fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests;
