//! Automatic snapshots: some generations beside the store, from which it repairs itself.

use super::{Summary, check, list, name, write};
use crate::store::condition::Snapshot;
use crate::store::{Error, Revision, Store};
use crate::{durable, task};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tracing::{debug, warn};

/// How many snapshots stay.
pub const KEEP: usize = 5;

/// When a snapshot is due.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The youngest a snapshot must be, once the store has written as many bytes as it has.
    pub after: Duration,
    /// … or however little was written. What did not change at all is not saved again.
    pub at_most: Duration,
    /// How often to look.
    pub interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            after: Duration::from_secs(6 * 3600),
            at_most: Duration::from_secs(24 * 3600),
            interval: Duration::from_secs(60),
        }
    }
}

/// The directory of a store's rolling snapshots.
pub struct Rolling {
    directory: PathBuf,
    newest: Mutex<Option<Snapshot>>,
}

impl Rolling {
    pub fn new(directory: PathBuf) -> Self {
        let newest = list(&directory).first().and_then(|path| describe(path));
        Rolling { directory, newest: Mutex::new(newest) }
    }

    pub fn newest(&self) -> Option<Snapshot> {
        *self.newest.lock()
    }

    /// Take a snapshot now, check it by reading it back, and remove those that are too many.
    pub async fn take(&self, store: &dyn Store) -> Result<Summary, Error> {
        let io = |e: std::io::Error| super::failed(&e);
        durable::create_dir(&self.directory, 0o700).map_err(io)?;
        let temporary = self.directory.join("unfinished");
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(durable::SECRET).clone();
        let written = write(store, BufWriter::new(options.open(&temporary).map_err(io)?)).await;
        let (summary, out) = written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
        let settle = || -> std::io::Result<()> {
            let file: File = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            if check(&temporary)? != summary {
                return Err(std::io::Error::other("it reads differently from what was written"));
            }
            let path = self.directory.join(name(summary.revision));
            std::fs::rename(&temporary, &path)?;
            durable::sync_dir(&self.directory)?;
            let bytes = std::fs::metadata(&path)?.len();
            // Not the file's own time: the host's clock may have been far behind.
            let time = crate::time::now_seconds();
            *self.newest.lock() = Some(Snapshot { revision: summary.revision, time, bytes });
            for old in list(&self.directory).iter().skip(KEEP) {
                std::fs::remove_file(old)?;
            }
            Ok(())
        };
        settle().map_err(io)?;
        Ok(summary)
    }

    fn is_due(&self, policy: &Policy, revision: Revision, now: i64, written: u64) -> bool {
        let Some(newest) = self.newest() else { return true };
        let age = Duration::from_secs(u64::try_from(now - newest.time).unwrap_or(0));
        revision > newest.revision && (age >= policy.at_most || (age >= policy.after && written >= newest.bytes))
    }
}

fn describe(path: &Path) -> Option<Snapshot> {
    let metadata = std::fs::metadata(path).ok()?;
    let time = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let revision = path.file_stem()?.to_str()?.parse().ok()?;
    Some(Snapshot { revision: Revision(revision), time: time.as_secs() as i64, bytes: metadata.len() })
}

/// Take snapshots by a policy until the group ends.
pub fn start(group: &task::Group, store: Arc<dyn Store>, rolling: Arc<Rolling>, policy: Policy) {
    group.spawn("store-snapshots", async move {
        let mut written = 0;
        let mut ticks = tokio::time::interval(policy.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = crate::time::now_seconds();
            let wrote = store.written_bytes() - written;
            if !rolling.is_due(&policy, store.revision(), now, wrote) {
                continue;
            }
            written = store.written_bytes();
            match rolling.take(&*store).await {
                Ok(Summary { revision, records }) => debug!(%revision, records, "snapshot taken"),
                Err(Error::Closed) => return,
                Err(error) => warn!(%error, "no snapshot of the store could be taken; it is tried again"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::snapshots::format::Item;
    use crate::store::{Op, Txn};

    async fn put(store: &dyn Store, value: &str) {
        let put = Op::put("/a", value.to_owned());
        store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes");
    }

    #[tokio::test]
    async fn five_stay_and_hold_their_revision() {
        let scratch = tempfile::tempdir().expect("scratch");
        let rolling = Rolling::new(scratch.path().join("snapshots"));
        let store = Memory::open();
        for round in 0..8 {
            put(&*store, &format!("{round}")).await;
            let summary = rolling.take(&*store).await.expect("is taken");
            assert_eq!(summary.revision, store.revision());
        }
        let found = list(&scratch.path().join("snapshots"));
        assert_eq!(found.len(), KEEP);
        let items = super::super::open(&found[4]).expect("opens").frame().expect("reads").expect("a frame");
        let Some(Item::Write(last)) = items.last() else { panic!("no write") };
        assert_eq!((&last.kv.value[..], last.kv.mod_revision), (&b"3"[..], Revision(5)));
        let again = Rolling::new(scratch.path().join("snapshots"));
        assert_eq!(again.newest().map(|s| s.revision), Some(Revision(9)));
    }

    #[test]
    fn due_by_age_and_by_what_was_written() {
        let policy = Policy::default();
        let rolling = Rolling::new("/does/not/exist".into());
        assert!(rolling.is_due(&policy, Revision(1), 0, 0), "there is none");
        *rolling.newest.lock() = Some(Snapshot { revision: Revision(9), time: 0, bytes: 100 });
        let cases = [
            // hours, revision, written, due
            (5, 50, 1000, false),
            (6, 50, 99, false),
            (6, 50, 100, true),
            (23, 50, 0, false),
            (24, 50, 0, true),
            (99, 9, 1000, false),
            (-9, 50, 1000, false),
        ];
        for (hours, revision, written, due) in cases {
            assert_eq!(rolling.is_due(&policy, Revision(revision), hours * 3600, written), due, "{hours} h");
        }
    }

    #[tokio::test]
    async fn a_full_disk_leaves_no_half_of_one() {
        let store = Memory::open();
        put(&*store, "x").await;
        let rolling = Rolling::new("/proc/no-such".into());
        assert!(rolling.take(&*store).await.is_err());
        assert_eq!(rolling.newest(), None);
    }
}
