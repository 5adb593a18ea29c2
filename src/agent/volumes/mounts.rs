//! Mounts below pods' directories: tmpfs, bind mounts of sub-paths, taking everything down again.

use anyhow::{Context, bail};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Mount points at or below a directory, deepest first.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|p| PathBuf::from(unescape(p)));
    let mut found: Vec<PathBuf> = points.filter(|p| p.starts_with(dir)).collect();
    found.sort_by_key(|p| std::cmp::Reverse(p.as_os_str().len()));
    found
}

/// The kernel writes spaces and the like in octal.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let octal = (first == b'\\').then(|| rest.get(..3)).flatten().and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                bytes = &rest[3..];
            }
            None => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub fn is_mount_point(path: &Path) -> bool {
    below(path).iter().any(|p| p == path)
}

/// A tmpfs on a directory, unless one is there from before a restart. `options` as mount(8) takes them.
pub fn tmpfs(path: &Path, options: &str) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    if is_mount_point(path) {
        return Ok(());
    }
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NODEV | MsFlags::MS_NOSUID, Some(options))
        .with_context(|| format!("mounting a tmpfs on {}", path.display()))
}

/// Unmount everything below a directory and remove it. Never removes anything across a mount point: what cannot be
/// unmounted is an error, and everything stays.
pub fn remove_tree(dir: &Path) -> anyhow::Result<()> {
    for point in below(dir) {
        umount2(&point, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW))
            .with_context(|| format!("unmounting {}", point.display()))?;
    }
    if let Some(point) = below(dir).first() {
        bail!("{} is still mounted", point.display());
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Bind a sub-path of a volume to `target`. The path is resolved by the kernel and cannot leave the volume, whatever
/// links a container has put there (CVE-2017-1002101); the mount then holds what was found.
pub fn bind_subpath(volume: &Path, sub_path: &str, target: &Path) -> anyhow::Result<()> {
    let relative = Path::new(sub_path);
    if relative.is_absolute() || relative.components().any(|c| c == Component::ParentDir) {
        bail!("subPath must be a relative path without \"..\": {sub_path}");
    }
    let root = open_beneath(None, volume, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let found = match open_beneath(Some(&root), relative, OFlag::O_PATH) {
        Ok(found) => found,
        Err(error) if is_missing(&error) => {
            make_dirs(&root, relative)?;
            open_beneath(Some(&root), relative, OFlag::O_PATH)?
        }
        Err(error) => return Err(error),
    };
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    if is_mount_point(target) {
        umount2(target, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", target.display()))?;
    }
    let parent = target.parent().context("no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(target)
    } else {
        fs::OpenOptions::new().create(true).append(true).open(target).map(drop)
    }
    .with_context(|| format!("making {}", target.display()))?;
    mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("binding subPath {sub_path}"))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<nix::Error>() == Some(&nix::Error::ENOENT)
}

/// Links are followed as long as they stay beneath: a ConfigMap's files are links.
fn open_beneath(root: Option<&OwnedFd>, path: &Path, flags: OFlag) -> anyhow::Result<OwnedFd> {
    let opened = match root {
        Some(root) => {
            let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC);
            let how = how.resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
            openat2(root.as_fd(), path, how)
        }
        None => nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty()),
    };
    opened.with_context(|| format!("opening {}", path.display()))
}

/// Missing directories of a sub-path, each made in the one opened before it.
fn make_dirs(root: &OwnedFd, relative: &Path) -> anyhow::Result<()> {
    let mut so_far = PathBuf::new();
    let mut parent = root.try_clone()?;
    for part in relative.components() {
        so_far.push(part);
        let name: &Path = part.as_ref();
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o777)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("making {}", so_far.display())),
        }
        parent = open_beneath(Some(root), &so_far, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces() {
        assert_eq!(unescape(r"/a\040b\134"), r"/a b\");
        assert_eq!(unescape(r"/a\9"), r"/a\9");
    }

    #[test]
    fn sub_paths_stay_in_their_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("real")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("real", volume.join("in")).unwrap();
        let root = open_beneath(None, &volume, OFlag::O_PATH).unwrap();
        for (path, ok) in [("real", true), ("in", true), ("out", false), ("out/passwd", false), ("none", false)] {
            assert_eq!(open_beneath(Some(&root), Path::new(path), OFlag::O_PATH).is_ok(), ok, "{path}");
        }
        make_dirs(&root, Path::new("a/b")).unwrap();
        assert!(volume.join("a/b").is_dir());
        assert!(make_dirs(&root, Path::new("out/x")).is_err());
        assert!(bind_subpath(&volume, "../x", &dir.path().join("t")).is_err());
    }
}
