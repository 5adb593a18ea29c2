//! Backups that a server makes by itself.

use super::{Source, file_name, host, list, save};
use crate::store::{Error, Store, snapshots};
use crate::task::Group;
use crate::{durable, time};
use anyhow::Context;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tracing::{error, info};

#[derive(Clone)]
pub struct Schedule {
    pub every: Duration,
    pub directory: PathBuf,
    /// How many backups stay in it.
    pub keep: usize,
    pub passphrase: Option<String>,
}

impl std::fmt::Debug for Schedule {
    /// Without the passphrase.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Schedule { every, directory, keep, .. } = self;
        f.debug_struct("Schedule").field("every", every).field("directory", directory).field("keep", keep).finish()
    }
}

/// How often to look whether a backup is due.
const PERIOD: Duration = Duration::from_secs(30);

/// Make backups until the group ends. What the last one of an earlier run is old counts.
pub fn start(group: &Group, store: Arc<dyn Store>, data_dir: PathBuf, config: PathBuf, schedule: Schedule) {
    group.spawn("backups", async move {
        loop {
            if is_due(&schedule, time::now_seconds()) {
                match back_up(&*store, &data_dir, &config, &schedule).await {
                    Ok(path) => info!(path = %path.display(), "backup made"),
                    Err(error) if matches!(error.downcast_ref(), Some(Error::Closed)) => return,
                    Err(error) => error!(error = format!("{error:#}"), "NO BACKUP could be made; trying again later"),
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    });
}

fn is_due(schedule: &Schedule, now: i64) -> bool {
    let newest = list(&schedule.directory).into_iter().next();
    let made = newest.and_then(|path| std::fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    let age = made.map(|made| now - made.as_secs() as i64);
    age.is_none_or(|age| age >= schedule.every.as_secs() as i64)
}

async fn back_up(store: &dyn Store, data_dir: &Path, config: &Path, schedule: &Schedule) -> anyhow::Result<PathBuf> {
    let directory = &schedule.directory;
    durable::create_dir(directory, 0o700).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(file_name(&host(data_dir)));
    let snapshot = directory.join(".unfinished");
    let options = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    let file = options.open(&snapshot).with_context(|| format!("cannot write {}", snapshot.display()))?;
    let (_, out) = snapshots::write(store, BufWriter::new(file)).await?;
    drop(out.into_inner().context("the snapshot of the store")?);
    let (data_dir, config) = (data_dir.to_owned(), config.to_owned());
    let (made, passphrase) = (path.clone(), schedule.passphrase.clone());
    let saved = Group::blocking(move || {
        let source = Source { data_dir: &data_dir, config: &config, snapshot: &snapshot };
        let saved = save(&source, &made, passphrase.as_deref());
        let _ = std::fs::remove_file(&snapshot);
        saved
    });
    saved.await??;
    for old in list(directory).iter().skip(schedule.keep) {
        std::fs::remove_file(old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn some_stay_and_the_next_waits_for_its_time() {
        let scratch = tempfile::tempdir().expect("scratch");
        let schedule = Schedule {
            every: Duration::from_secs(3600),
            directory: scratch.path().join("backups"),
            keep: 2,
            passphrase: None,
        };
        let now = time::now_seconds();
        assert!(is_due(&schedule, now));
        let (data_dir, store) = (scratch.path().join("data"), Memory::open());
        for age_hours in [4, 3, 2] {
            let made = back_up(&*store, &data_dir, Path::new("/nowhere/c.yaml"), &schedule).await.expect("is made");
            let older = made.with_file_name(format!("{age_hours}.{}", super::super::EXTENSION));
            std::fs::rename(&made, &older).expect("renames");
            let then = std::time::SystemTime::now() - Duration::from_secs(3600 * age_hours);
            std::fs::File::options().write(true).open(&older).and_then(|f| f.set_modified(then)).expect("ages");
            assert!(is_due(&schedule, now));
        }
        back_up(&*store, &data_dir, Path::new("/nowhere/c.yaml"), &schedule).await.expect("is made");
        assert!(!is_due(&schedule, now));
        let left = list(&schedule.directory);
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|path| super::super::check(path, None).is_ok()) && left[1].ends_with("2.kedge-backup"));
        assert_eq!(std::fs::read_dir(&schedule.directory).expect("lists").count(), 2, "nothing unfinished is left");
    }
}
