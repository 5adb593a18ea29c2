//! The server of this host, for commands about its store and its files: asked through the API while it runs, else its
//! store is opened here.

use crate::config::{CONFIG_FILE, DATA_DIR, KUBECONFIG};
use crate::server::maintenance::PATH;
use crate::store::local::{self, Options};
use crate::store::{Error, Store, snapshots};
use anyhow::{Context, bail};
use http_body_util::BodyExt;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args, Clone)]
pub struct Place {
    #[arg(long, env = "KEDGE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,

    /// The server's configuration file.
    #[arg(long, env = "KEDGE_CONFIG", value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,

    /// The cluster's admin kubeconfig.
    #[arg(long, env = "KEDGE_WRITE_KUBECONFIG", value_name = "FILE", default_value = KUBECONFIG)]
    pub kubeconfig: PathBuf,
}

/// How the store is reached.
pub enum Local {
    /// The server runs.
    Running(kube::Client),
    Stopped(Arc<dyn Store>),
}

impl Place {
    pub fn reach(&self) -> anyhow::Result<Local> {
        let path = self.data_dir.join("server/db");
        if !path.exists() {
            if self.data_dir.join("server/tls").exists() {
                // On an etcd cluster, which the running server knows.
                return Ok(Local::Running(crate::client::https(&self.kubeconfig)?));
            }
            bail!("there is no server's store in {}", self.data_dir.display());
        }
        match local::Local::open(&path, Options::default()) {
            Ok(store) => Ok(Local::Stopped(store)),
            Err(Error::Failed { step: "locking the store's directory", .. }) => {
                Ok(Local::Running(crate::client::https(&self.kubeconfig)?))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Local {
    /// Write a snapshot of the store to a file.
    pub async fn snapshot(&self, path: &Path) -> anyhow::Result<()> {
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
        match self {
            Local::Stopped(store) => {
                let (_, mut out) = snapshots::write(&**store, BufWriter::new(file)).await?;
                out.flush()?;
            }
            Local::Running(client) => download(client, file).await.context("the server gave no snapshot")?,
        }
        Ok(())
    }

    /// Have the server do something that answers with JSON, or do it here.
    pub async fn run(&self, action: Action) -> anyhow::Result<(u64, u64, u64)> {
        match self {
            Local::Stopped(store) => {
                match action {
                    Action::Compact => match store.compact(store.revision()).await {
                        Ok(()) | Err(Error::Compacted(_)) => {}
                        Err(error) => return Err(error.into()),
                    },
                    Action::Defrag => store.defragment().await?,
                }
                Ok((store.revision().0, store.compacted().0, store.disk_bytes()))
            }
            Local::Running(client) => {
                let name = if action == Action::Compact { "compact" } else { "defrag" };
                let request = http::Request::post(format!("{PATH}/{name}")).body(Vec::new())?;
                let answer: serde_json::Value = client.request(request).await?;
                let field = |name: &str| answer.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
                Ok((field("revision"), field("compacted"), field("bytes")))
            }
        }
    }

    pub async fn close(self) -> anyhow::Result<()> {
        match self {
            Local::Stopped(store) => Ok(store.close().await?),
            Local::Running(_) => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Compact,
    Defrag,
}

async fn download(client: &kube::Client, file: File) -> anyhow::Result<()> {
    let request = http::Request::get(format!("{PATH}/snapshot")).body(kube::client::Body::empty())?;
    let response = client.send(request).await?;
    if !response.status().is_success() {
        bail!("{}", response.status());
    }
    let (mut body, mut out) = (response.into_body(), BufWriter::new(file));
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            out.write_all(&bytes)?;
        }
    }
    Ok(out.flush()?)
}
