//! `fsGroup`: a volume's files belong to the pod's group, which may read and write them, and so will new ones.

use anyhow::Context;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Apply to a directory and everything in it; links are not followed.
pub fn give_to_group(path: &Path, group: u32) -> anyhow::Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("reading {}", path.display()))?;
    if metadata.gid() != group {
        lchown(path, None, Some(group)).with_context(|| format!("chown {}", path.display()))?;
    }
    if metadata.is_symlink() {
        return Ok(());
    }
    let more = if metadata.is_dir() { 0o2770 } else { 0o660 };
    let mode = metadata.mode() & 0o7777;
    if mode | more != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | more))
            .with_context(|| format!("chmod {}", path.display()))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
            give_to_group(&entry?.path(), group)?;
        }
    }
    Ok(())
}
