//! A server's files from a backup.

use super::{STORE, SUMMARY, Summary, read};
use crate::durable;
use crate::store::local::Local;
use crate::store::snapshots;
use anyhow::{Context, bail, ensure};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// What was restored, and what is left to do.
pub struct Restored {
    pub summary: Summary,
    /// Where the configuration was put, if there was one in the backup.
    pub config: Option<PathBuf>,
    /// Where the files are that were there before.
    pub before: Option<PathBuf>,
}

/// Put a backup in the place of the server's files in a data directory. Nothing is changed before all of it has been
/// checked. What is there already is refused, or (`force`) moved aside.
pub fn restore(
    path: &Path,
    passphrase: Option<&str>,
    data_dir: &Path,
    config: &Path,
    force: bool,
) -> anyhow::Result<Restored> {
    let server = data_dir.join("server");
    if server.exists() && !force {
        bail!("{} is there already: give --force to move it aside", server.display());
    }
    if server.join("db").exists() {
        Local::check_unused(server.join("db")).context("is the server stopped?")?;
    }
    let staging = data_dir.join("restoring");
    let _ = fs::remove_dir_all(&staging);
    durable::create_dir(&staging, 0o700).with_context(|| format!("cannot make {}", staging.display()))?;
    let restored = stage(path, passphrase, &staging).and_then(|summary| {
        let before = settle(&staging, data_dir, &server)?;
        let config = place_config(&staging, config)?;
        Ok(Restored { summary, config, before })
    });
    let _ = fs::remove_dir_all(&staging);
    restored
}

/// Unpack and check everything beside.
fn stage(path: &Path, passphrase: Option<&str>, staging: &Path) -> anyhow::Result<Summary> {
    let mut summary = None;
    read(path, passphrase, |name, mode, content| {
        if name == Path::new(SUMMARY) {
            summary = Some(serde_json::from_reader(content)?);
            return Ok(());
        }
        unpack(staging, name, mode, content)
    })?;
    let summary = summary.context("not a backup of kedge")?;
    let store = staging.join(STORE);
    let mut snapshot = snapshots::open(&store).context("the store's part of the backup")?;
    Local::restore(staging.join("server/db"), &mut snapshot)?;
    fs::remove_file(store)?;
    Ok(summary)
}

fn unpack(staging: &Path, name: &Path, mode: u32, content: &mut dyn Read) -> anyhow::Result<()> {
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    let known = ["server", "config"].iter().any(|folder| name.starts_with(folder)) || name == Path::new(STORE);
    ensure!(inside && known, "the backup has an entry {} that does not belong there", name.display());
    let target = staging.join(name);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::File::create(&target).with_context(|| format!("cannot write {}", target.display()))?;
    file.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
    std::io::copy(content, &mut file)?;
    file.sync_all()?;
    Ok(())
}

/// Move what was unpacked into its place.
fn settle(staging: &Path, data_dir: &Path, server: &Path) -> anyhow::Result<Option<PathBuf>> {
    fs::set_permissions(staging.join("server"), fs::Permissions::from_mode(0o700))?;
    let before = server.exists().then(|| data_dir.join(format!("server.before-{}", crate::time::now_seconds())));
    if let Some(before) = &before {
        fs::rename(server, before)?;
    }
    fs::rename(staging.join("server"), server)?;
    durable::sync_dir(data_dir)?;
    Ok(before)
}

/// The configuration goes where it was, unless there is another one: then beside it.
fn place_config(staging: &Path, config: &Path) -> anyhow::Result<Option<PathBuf>> {
    let saved = staging.join("config");
    if !saved.exists() {
        return Ok(None);
    }
    let free = !config.exists() && !config.with_extension("yaml.d").exists();
    let target = if free { config.to_owned() } else { config.with_extension("restored.yaml") };
    if let Some(parent) = target.parent() {
        durable::create_dir(parent, 0o755)?;
    }
    let files = [(saved.join("config.yaml"), target.clone())];
    let folder = fs::read_dir(saved.join("config.yaml.d")).into_iter().flatten().flatten();
    let folder = folder.map(|entry| (entry.path(), target.with_extension("yaml.d").join(entry.file_name())));
    for (from, to) in files.into_iter().chain(folder).filter(|(from, _)| from.is_file()) {
        if let Some(parent) = to.parent() {
            durable::create_dir(parent, 0o755)?;
        }
        let mode = fs::metadata(&from)?.permissions().mode() & 0o777;
        durable::write(&to, &fs::read(&from)?, mode).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(Some(target))
}
