//! Work inside another network namespace, without ever taking a pooled thread there.

use crate::task;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::path::Path;

/// Do `work` inside the network namespace that `path` names. Sockets opened by it stay in that namespace and may be
/// used from anywhere afterwards: mostly opening one is all the work. `NotFound` when the namespace is gone.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    task::on_own_thread("netns", move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })?
}

/// Does the path still name a live network namespace? A leftover mount point is a plain file.
pub fn exists(path: &Path) -> bool {
    use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, statfs};
    statfs(path).is_ok_and(|s| [NSFS_MAGIC, PROC_SUPER_MAGIC].contains(&s.filesystem_type()))
}
