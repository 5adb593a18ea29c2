//! A server's store from an etcd cluster: the way back from `--datastore-endpoint`, and from a foreign etcd.

use crate::durable;
use crate::server::common_keys;
use crate::store::Store;
use crate::store::local::Local;
use crate::store::snapshots::{self, Summary};
use anyhow::{Context, bail};
use std::fs::{self, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What has come.
pub struct Imported {
    pub summary: Summary,
    /// Where the store is that was there before.
    pub before: Option<PathBuf>,
}

/// Put all that `etcd` holds at its revision into the store of a stopped server. Revisions jump ahead, as after a restore.
/// A server without keys gets the cluster's, if they are there and `token` opens them. What is there already is refused,
/// or (`force`) moved aside.
pub async fn import(etcd: &dyn Store, data_dir: &Path, token: Option<&str>, force: bool) -> anyhow::Result<Imported> {
    let db = data_dir.join("server/db");
    if db.exists() {
        Local::check_unused(&db).context("is the server stopped?")?;
        if !force {
            bail!("{} is there already: give --force to move it aside", db.display());
        }
    }
    common_keys::fetch(etcd, data_dir, token).await?;
    let staging = data_dir.join("importing");
    let _ = fs::remove_dir_all(&staging);
    durable::create_dir(&staging, 0o700).with_context(|| format!("cannot make {}", staging.display()))?;
    let imported = fill(etcd, &staging).await;
    let imported = imported.and_then(|summary| Ok(Imported { summary, before: settle(&staging, data_dir, &db)? }));
    let _ = fs::remove_dir_all(&staging);
    imported
}

async fn fill(etcd: &dyn Store, staging: &Path) -> anyhow::Result<Summary> {
    let file = staging.join("snapshot");
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(durable::SECRET).clone();
    let out = BufWriter::new(options.open(&file)?);
    let (summary, out) = snapshots::write(etcd, out).await.context("reading etcd")?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Local::restore(staging.join("db"), &mut snapshots::open(&file)?)?;
    Ok(summary)
}

fn settle(staging: &Path, data_dir: &Path, db: &Path) -> anyhow::Result<Option<PathBuf>> {
    let before = db.exists().then(|| data_dir.join(format!("store.before-{}", crate::time::now_seconds())));
    if let Some(before) = &before {
        fs::rename(db, before)?;
    }
    let server = data_dir.join("server");
    durable::create_dir(&server, 0o700)?;
    fs::rename(staging.join("db"), db)?;
    durable::sync_dir(&server)?;
    durable::sync_dir(data_dir)?;
    Ok(before)
}
