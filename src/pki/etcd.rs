//! Certificates of the etcd API: a CA of its own, so that neither a node nor a user of the API server is let in.
//!
//! `tls/etcd/ca.crt`, `client.crt` and `client.key` are what `etcdctl` takes; only root can read the key.

use super::authority::Authority;
use super::leaf::LeafSpec;
use super::serving::{LiveCertificate, strict_server_config};
use super::{Which, refresh_leaf};
use crate::durable;
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CA: &str = "ca";
const SERVING: &str = "server";
const CLIENT: &str = "client";

/// User of the client certificate, as etcd's superuser is called.
const USER: &str = "root";

pub struct EtcdPki {
    dir: PathBuf,
    ca: Authority,
    serving: Arc<LiveCertificate>,
    names: Vec<String>,
}

impl EtcdPki {
    pub(super) fn load_or_create(dir: &Path, node_name: &str, node_ips: &[IpAddr]) -> Result<Self> {
        durable::create_dir(dir, 0o700).with_context(|| format!("making {}", dir.display()))?;
        let mut names: Vec<String> = ["127.0.0.1", "::1", "localhost", node_name].map(str::to_owned).into();
        names.extend(node_ips.iter().map(IpAddr::to_string));
        let ca = Authority::load_or_create(dir, CA, "kedge-etcd-ca")?;
        Ok(EtcdPki { dir: dir.to_owned(), ca, serving: Arc::default(), names })
    }

    pub(super) fn refresh(&self, which: Which, life: i64) -> Result<bool> {
        let serving = LeafSpec::server("etcd", "", self.names.iter().cloned());
        let (leaf, new) = refresh_leaf(&self.dir, SERVING, &self.ca, &serving, life, which)?;
        if new || self.serving.is_empty() {
            self.serving.set(&leaf)?;
        }
        let (_, new_client) = refresh_leaf(&self.dir, CLIENT, &self.ca, &LeafSpec::client(USER, ""), life, which)?;
        Ok(new || new_client)
    }

    /// TLS of the etcd API: nobody without a certificate of this CA.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>> {
        strict_server_config(self.serving.clone(), &self.ca)
    }
}
