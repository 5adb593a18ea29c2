//! `kedge uninstall`: stop everything of ours and leave the host as it was. Volumes stay unless asked.
//!
//! Order matters: the server first (so that nothing is restarted), then pods, then containerd, then mounts, then
//! network, then files. A directory is removed only after no mount is left below it, so that nothing outside of
//! kedge can be deleted through a mount.

use crate::config::{CONFIG_FILE, DATA_DIR, RUN_DIR};
use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// Also delete volumes.
    #[arg(long)]
    purge_volumes: bool,

    /// Keep the executable and /etc/kedge.
    #[arg(long)]
    keep_binary: bool,

    #[arg(long, env = "KEDGE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,

    #[arg(long, env = "KEDGE_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,

    #[arg(long, env = "KEDGE_POD_LOG_DIR", value_name = "DIR", default_value = "/var/log")]
    pod_log_dir: PathBuf,

    #[arg(long, env = "KEDGE_CGROUP_ROOT", value_name = "PATH", default_value = "/")]
    cgroup_root: String,
}

const UNIT: &str = "/etc/systemd/system/kedge.service";
const BINARY: &str = "/usr/local/bin/kedge";

/// How long processes get after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

pub fn run(args: Args) -> anyhow::Result<i32> {
    if !nix::unistd::geteuid().is_root() {
        bail!("uninstall needs root: sudo kedge uninstall");
    }
    refuse_odd_directories(&args)?;
    step("stopping the service", stop_service(&args.run_dir))?;
    step("stopping pods and containerd", stop_pods(&args))?;
    step("unmounting", unmount_below(&[&args.run_dir, &args.data_dir]))?;
    step("removing network rules and interfaces", remove_network(&args))?;
    step("removing cgroups", remove_cgroups(&args.cgroup_root))?;
    step("removing files", remove_files(&args))?;
    println!("kedge is gone from this host");
    let volumes = args.data_dir.join("volumes");
    if volumes.exists() {
        println!("volumes are kept in {}; `rm -r` them when they are not needed", volumes.display());
    }
    Ok(0)
}

fn step(what: &str, result: anyhow::Result<()>) -> anyhow::Result<()> {
    println!("[uninstall] {what}");
    result.with_context(|| what.to_owned())
}

/// `--data-dir /` must not delete a host.
fn refuse_odd_directories(args: &Args) -> anyhow::Result<()> {
    for dir in [&args.data_dir, &args.run_dir] {
        if !dir.is_absolute() || dir.components().count() < 3 {
            bail!("{} does not look like a directory of kedge", dir.display());
        }
    }
    Ok(())
}

fn stop_service(run_dir: &Path) -> anyhow::Result<()> {
    if Path::new(UNIT).exists() {
        // Without systemd running the unit is only a file; the pid file below is then the way.
        let _ = Command::new("systemctl").args(["disable", "--now", "kedge.service"]).status();
    }
    let parts = [super::daemon::MAIN, super::component::KUBELET, super::component::PROXY];
    let pids = parts.iter().filter_map(|part| super::daemon::running(run_dir, part));
    stop_processes(&pids.collect());
    Ok(())
}

/// containerd of ours, its shims, and all that runs below the shims.
fn stop_pods(args: &Args) -> anyhow::Result<()> {
    let socket = args.run_dir.join("containerd");
    let config = args.data_dir.join("agent");
    let (socket, config) = (socket.to_string_lossy().into_owned(), config.to_string_lossy().into_owned());
    let ours = |command: &str| {
        let program = command.split('\0').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        program.starts_with("containerd") && (command.contains(&socket) || command.contains(&config))
    };
    let containerd: BTreeSet<i32> = processes().into_iter().filter(|p| ours(&p.command)).map(|p| p.pid).collect();
    let mut all = containerd.clone();
    loop {
        let found = processes();
        let more: Vec<i32> = found.iter().filter(|p| all.contains(&p.parent)).map(|p| p.pid).collect();
        let before = all.len();
        all.extend(more);
        if all.len() == before {
            break;
        }
    }
    stop_processes(&all);
    Ok(())
}

struct Process {
    pid: i32,
    parent: i32,
    command: String,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let one = |name: String| {
        let pid: i32 = name.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, the name in parentheses, may hold anything: read from its end.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Process { pid, parent, command: String::from_utf8_lossy(&command).into_owned() })
    };
    entries.filter_map(|e| one(e.file_name().to_string_lossy().into_owned())).collect()
}

fn stop_processes(pids: &BTreeSet<i32>) {
    let alive = |pid: &i32| kill(Pid::from_raw(*pid), None).is_ok() && !is_zombie(*pid);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for pid in pids {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
        let deadline = Instant::now() + GRACE;
        while pids.iter().any(alive) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Unmount everything below these directories, innermost first.
fn unmount_below(dirs: &[&PathBuf]) -> anyhow::Result<()> {
    for _ in 0..3 {
        let mut points = mounts_below(dirs);
        points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
        for point in points {
            let _ = umount2(&point, MntFlags::MNT_DETACH);
        }
    }
    match mounts_below(dirs).first() {
        Some(left) => bail!("{} is still mounted; nothing was deleted", left.display()),
        None => Ok(()),
    }
}

fn mounts_below(dirs: &[&PathBuf]) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let point = |line: &str| Some(PathBuf::from(line.split(' ').nth(1)?.replace("\\040", " ")));
    let below = |p: &PathBuf| dirs.iter().any(|d| p.starts_with(d) && p != *d);
    text.lines().filter_map(point).filter(below).collect()
}

fn remove_network(args: &Args) -> anyhow::Result<()> {
    super::block_on(crate::netproxy::cleanup(&args.run_dir))
}

/// `kubepods` below the root, in every hierarchy, deepest first.
fn remove_cgroups(root: &str) -> anyhow::Result<()> {
    // systemd first: units of slices that are only rmdir'ed would stay.
    crate::agent::cgroups::Layout::detect(&format!("{}/kubepods", root.trim_end_matches('/'))).remove_all();
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
    for hierarchy in hierarchies.chain([base.to_owned()]) {
        let parent = hierarchy.join(root.trim_matches('/'));
        for name in ["kubepods", "kubepods.slice"] {
            remove_cgroup(&parent.join(name));
        }
        if parent != hierarchy {
            // An instance's own parent; a shared one is not empty and stays.
            let _ = fs::remove_dir(&parent);
        }
    }
    Ok(())
}

fn remove_cgroup(path: &Path) {
    if !path.is_dir() {
        return;
    }
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroup(&child.path());
        }
    }
    let _ = fs::remove_dir(path);
}

fn remove_files(args: &Args) -> anyhow::Result<()> {
    remove_log_links(&args.pod_log_dir.join("containers"), &args.pod_log_dir.join("pods"));
    let volumes = args.data_dir.join("volumes");
    if args.purge_volumes || !volumes.exists() {
        remove(&args.data_dir)?;
    } else {
        for entry in fs::read_dir(&args.data_dir)?.flatten().filter(|e| e.path() != volumes) {
            remove(&entry.path())?;
        }
    }
    remove(&args.run_dir)?;
    remove(&args.pod_log_dir.join("pods"))?;
    if args.keep_binary {
        return Ok(());
    }
    let config = Path::new(CONFIG_FILE).parent().unwrap_or(Path::new("/etc/kedge"));
    for path in [config, Path::new(UNIT), Path::new(BINARY), Path::new("/var/log/kedge.log")] {
        remove(path)?;
    }
    if Path::new("/run/systemd/system").exists() {
        let _ = Command::new("systemctl").arg("daemon-reload").status();
    }
    Ok(())
}

/// Only links that point into the pods' log directory are ours.
fn remove_log_links(links: &Path, pods: &Path) {
    for entry in fs::read_dir(links).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(pods)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(links);
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}
