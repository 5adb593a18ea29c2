//! containerd as a supervised child (DESIGN D6): found, configured, started, adopted, restarted.
//!
//! It outlives us: it runs in a session of its own and writes to a file, never to a pipe of ours, so that pods and
//! their logs survive a restart, an upgrade or a crash of kedge. The next kedge adopts it when its socket answers.

use super::Config;
use super::config_toml;
use super::cri::Cri;
use crate::task::Group;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tracing::{info, warn};

/// Where a supervised containerd listens.
pub fn socket(config: &Config) -> PathBuf {
    config.run_dir.join("containerd/containerd.sock")
}

/// How long a started containerd may take to answer. A first start on a slow card makes its database; when it takes
/// longer, it is killed and started again.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// First and longest wait before a restart; the wait doubles with each death within `STABLE_AFTER`.
const RESTART_WAIT: Duration = Duration::from_millis(500);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// The log is moved to `.1` when it is larger at a start, and cut when it is larger while running.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// How often an adopted process (no child of ours) is looked at, and the size of the log.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a containerd gets to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The programs that we start or that containerd starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Programs {
    pub containerd: PathBuf,
    /// runc, or crun.
    pub runtime: PathBuf,
}

/// Directories looked into besides PATH: services often start with a short one.
const EXTRA_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

impl Programs {
    /// Find them, or say what to install.
    pub fn find() -> anyhow::Result<Self> {
        let path = search_path();
        let find = |name: &str| path.iter().map(|dir| dir.join(name)).find(|p| is_executable(p));
        let listed = || path.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":");
        let hint = "install it (Debian, Ubuntu: apt-get install containerd runc), or name a running runtime with \
                    --container-runtime-endpoint";
        let Some(containerd) = find("containerd") else {
            bail!("containerd is not installed: no executable `containerd` in {}; {hint}", listed());
        };
        let Some(runtime) = find("runc").or_else(|| find("crun")) else {
            bail!("no OCI runtime is installed: neither `runc` nor `crun` in {}; {hint}", listed());
        };
        if find("containerd-shim-runc-v2").is_none() {
            bail!("containerd is not complete: no executable `containerd-shim-runc-v2` in {}; {hint}", listed());
        }
        Ok(Programs { containerd, runtime })
    }
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|p| p.is_absolute()).collect();
    for extra in EXTRA_PATH {
        if !dirs.iter().any(|d| d == Path::new(extra)) {
            dirs.push(extra.into());
        }
    }
    dirs
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Keeps one containerd running; `up` tells whether it answers.
pub struct Supervisor {
    programs: Programs,
    socket: PathBuf,
    config_file: PathBuf,
    log_file: PathBuf,
    pid_file: PathBuf,
    /// The configuration on disk was replaced by this start: an adopted process runs with the old one.
    config_changed: bool,
    cri: Cri,
    up: watch::Sender<bool>,
}

/// One life of containerd.
enum Process {
    Ours(Child),
    /// Started by an earlier kedge.
    Adopted(Pid),
}

impl Supervisor {
    /// Write the configuration and make the directories. Nothing is started yet.
    pub fn prepare(config: &Config, cgroup: &super::cgroups::Layout, cri: Cri) -> anyhow::Result<Self> {
        let programs = Programs::find()?;
        let root = config.dir.join("containerd");
        let state = config.run_dir.join("containerd");
        for dir in [&root, &state] {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        for dir in ["certs.d", "cni/net.d", "cni/bin"] {
            let dir = config.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let text = config_toml::render(&config_toml::Settings::of(config, &programs, cgroup));
        let config_file = config.dir.join("containerd.toml");
        let config_changed = fs::read_to_string(&config_file).ok().as_deref() != Some(text.as_str());
        if config_changed {
            crate::durable::write(&config_file, text.as_bytes(), crate::durable::PUBLIC)
                .with_context(|| format!("writing {}", config_file.display()))?;
        }
        Ok(Supervisor {
            programs,
            socket: socket(config),
            config_file,
            log_file: config.dir.join("containerd.log"),
            pid_file: state.join("pid"),
            config_changed,
            cri,
            up: watch::Sender::new(false),
        })
    }

    /// Whether containerd answers now, and every change of it.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Run until the group ends. containerd is left running then.
    pub async fn run(mut self, group: Group) {
        let mut wait = RESTART_WAIT;
        while !group.is_cancelled() {
            let born = Instant::now();
            match self.live().await {
                Ok(end) => warn!("containerd ended ({end}); see {}", self.log_file.display()),
                Err(error) => warn!("containerd: {error:#}; see {}", self.log_file.display()),
            }
            self.up.send_replace(false);
            wait = if born.elapsed() > STABLE_AFTER { RESTART_WAIT } else { (wait * 2).min(RESTART_WAIT_MAX) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Adopt or start one, wait until it answers, then until it ends. Gives how it ended.
    async fn live(&mut self) -> anyhow::Result<String> {
        let mut process = match self.adopt().await {
            Some(pid) => Process::Adopted(pid),
            None => Process::Ours(self.start().await?),
        };
        if let Process::Ours(child) = &mut process {
            self.wait_until_it_answers(child).await?;
        }
        self.up.send_replace(true);
        match process {
            Process::Ours(mut child) => loop {
                tokio::select! {
                    status = child.wait() => return Ok(status.context("waiting for containerd")?.to_string()),
                    () = tokio::time::sleep(LOOK_EVERY * 60) => self.cut_log(),
                }
            },
            Process::Adopted(pid) => {
                let mut looks = 0u32;
                while is_containerd(pid, &self.config_file) {
                    tokio::time::sleep(LOOK_EVERY).await;
                    looks += 1;
                    if looks.is_multiple_of(60) {
                        self.cut_log();
                    }
                }
                Ok("an adopted process".to_owned())
            }
        }
    }

    /// The running containerd of an earlier kedge, if it answers and has today's configuration.
    async fn adopt(&mut self) -> Option<Pid> {
        let pid = fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok().map(Pid::from_raw)?;
        if !is_containerd(pid, &self.config_file) {
            return None;
        }
        let answers = tokio::time::timeout(Duration::from_secs(5), self.cri.version()).await.is_ok_and(|v| v.is_ok());
        if answers && !std::mem::take(&mut self.config_changed) {
            info!("adopted containerd {pid}");
            return Some(pid);
        }
        // Containers live under their shims and are not touched by this.
        info!(
            "replacing containerd {pid}: {}",
            if answers { "its configuration changed" } else { "it does not answer" }
        );
        stop(pid, &self.config_file).await;
        None
    }

    async fn start(&mut self) -> anyhow::Result<Child> {
        self.config_changed = false;
        if fs::metadata(&self.log_file).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
            let _ = fs::rename(&self.log_file, self.log_file.with_extension("log.1"));
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_file)
            .with_context(|| format!("opening {}", self.log_file.display()))?;
        let mut command = Command::new(&self.programs.containerd);
        let path = std::env::join_paths(search_path()).unwrap_or_default();
        command.arg("--config").arg(&self.config_file).env("PATH", path);
        // Its systemd notifications are ours to give.
        command.env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(false);
        // SAFETY: setsid is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
        }
        let child = command.spawn().with_context(|| format!("starting {}", self.programs.containerd.display()))?;
        let pid = child.id().context("containerd ended at once")?;
        crate::durable::write(&self.pid_file, pid.to_string().as_bytes(), crate::durable::PUBLIC)
            .with_context(|| format!("writing {}", self.pid_file.display()))?;
        info!("started containerd {pid}");
        Ok(child)
    }

    async fn wait_until_it_answers(&self, child: &mut Child) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("did not start ({status}): {}", last_line(&self.log_file));
            }
            // Both halves: the socket is there before the CRI plugin has loaded.
            if self.socket.exists() && self.cri.version().await.is_ok() {
                return Ok(());
            }
            if started.elapsed() > START_TIMEOUT {
                child.kill().await.ok();
                bail!("does not answer on {}: {}", self.socket.display(), last_line(&self.log_file));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Keep a copy of a log that has grown large and empty it: the writer appends, so it goes on at the start.
    fn cut_log(&self) {
        if fs::metadata(&self.log_file).is_ok_and(|m| m.len() > LOG_BYTES_MAX)
            && fs::copy(&self.log_file, self.log_file.with_extension("log.1")).is_ok()
        {
            let _ = fs::OpenOptions::new().write(true).open(&self.log_file).and_then(|f| f.set_len(0));
        }
    }
}

/// Whether a process is a containerd with this configuration file (and not another that got its number).
fn is_containerd(pid: Pid, config_file: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let wanted = config_file.as_os_str().as_encoded_bytes();
    line.split(|b| *b == 0).any(|argument| argument == wanted)
}

/// SIGTERM, then SIGKILL.
async fn stop(pid: Pid, config_file: &Path) {
    let started = Instant::now();
    let _ = kill(pid, Signal::SIGTERM);
    while is_containerd(pid, config_file) {
        if started.elapsed() > STOP_TIMEOUT {
            let _ = kill(pid, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Stop the containerd of an instance, if one runs (uninstall, tests). Containers' shims are not touched.
pub async fn shut_down(config: &Config) {
    let pid_file = config.run_dir.join("containerd/pid");
    let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(pid) = pid.map(Pid::from_raw) {
        let config_file = config.dir.join("containerd.toml");
        if is_containerd(pid, &config_file) {
            stop(pid, &config_file).await;
        }
    }
}

/// The last line of a log, for error messages.
fn last_line(path: &Path) -> String {
    const TAIL_BYTES: u64 = 4096;
    use std::io::{Read, Seek, SeekFrom};
    let tail = || -> std::io::Result<String> {
        let mut file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).trim_end().lines().last().unwrap_or_default().to_owned())
    };
    tail().unwrap_or_else(|error| format!("no log: {error}"))
}
