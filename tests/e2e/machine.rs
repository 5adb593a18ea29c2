//! One "host": a network namespace with one interface, directories of its own, and at most one kedge in it.

use crate::run::{Outcome, eventually, run, sh};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Machine {
    /// Name of its network namespace, and of its cgroup.
    id: String,
    pub dir: PathBuf,
    run_dir: PathBuf,
    process: Option<Child>,
    keep: bool,
}

impl Machine {
    /// The namespace `id` must exist.
    pub fn new(id: &str) -> Machine {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(id);
        std::fs::create_dir_all(&dir).expect("scratch directory");
        let keep = std::env::var_os("KEDGE_E2E_KEEP").is_some();
        Machine { id: id.to_owned(), dir, run_dir: PathBuf::from("/run").join(id), process: None, keep }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("kedge.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Put the test image where the agent imports from.
    pub fn import(&self) {
        crate::image::busybox(&self.data_dir().join("agent/images"), &[crate::image::BUSYBOX]);
    }

    /// Arguments that make every instance its own.
    pub fn instance_flags(&self) -> Vec<String> {
        vec![
            format!("--data-dir={}", self.data_dir().display()),
            format!("--run-dir={}", self.run_dir.display()),
            format!("--pod-log-dir={}", self.dir.join("log").display()),
            format!("--cgroup-root=/{}", self.id),
        ]
    }

    /// `kedge server` or `kedge agent` with this host's own directories, in its namespace.
    pub fn daemon(&self, subcommand: &str) -> Command {
        let config = self.dir.join("config.yaml");
        if !config.exists() {
            std::fs::write(&config, "").expect("config file");
        }
        let mut command = self.inside(kedge());
        command.arg(subcommand).args(self.instance_flags()).arg(format!("--config={}", config.display()));
        command
    }

    /// Run it in the background, with its output in the log.
    pub fn spawn(&mut self, mut command: Command) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.process = Some(command.spawn().expect("start kedge"));
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("kill -9");
            child.wait().expect("wait");
        }
    }

    /// What a power cut and a boot without kedge leave: no process, no mount, no rule, no interface of a pod, an empty
    /// run directory.
    pub fn reboot(&mut self) {
        self.kill();
        let (data, run_dir) = (self.data_dir().display().to_string(), self.run_dir.display().to_string());
        let ours = |pid: &str| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let command = read("cmdline");
            let of_runtime = command.contains("containerd") && (command.contains(&data) || command.contains(&run_dir));
            of_runtime || read("cgroup").contains(&format!("/{}/kubepods", self.id))
        };
        eventually("every process ends", 20, || {
            let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
            let pids = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.parse::<u32>().is_ok());
            let left: Vec<String> = pids.filter(|pid| ours(pid)).collect();
            sh(&format!("kill -9 {} 2>/dev/null", left.join(" ")));
            if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
        });
        sh(&format!(
            "grep -o ' \\({data}\\|{run_dir}\\)/[^ ]*' /proc/self/mounts | sort -r | xargs -r umount -l
             rm -rf {run_dir}
             ip netns exec {id} nft flush ruleset
             for link in $(ip -n {id} -o link | grep -o 'kdg[^:@]*'); do ip -n {id} link del $link 2>/dev/null || true; done",
            id = self.id
        ))
        .ok();
    }

    /// SIGTERM, and wait.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.process.take() {
            sh(&format!("kill {}", child.id()));
            eventually("kedge stops", 20, || match child.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }

    /// A command in the host's network namespace.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        enter(&self.id, program)
    }

    /// kedge's other commands on this host.
    pub fn kedge(&self, args: &[&str]) -> Outcome {
        run(self.inside(kedge()).args(args))
    }

    /// Remove everything of this instance as a user would.
    pub fn uninstall(&self) -> Outcome {
        run(self.inside(kedge()).args(["uninstall", "--keep-binary"]).args(self.instance_flags()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- end of the log of {} ({})\n{}", self.id, self.log_file().display(), tail(&self.log()));
        }
        if self.keep {
            eprintln!("kept: namespace {}, directory {}", self.id, self.dir.display());
            return;
        }
        self.kill();
        let removed = self.uninstall();
        if !removed.ok {
            eprintln!("uninstall: {}{}", removed.stdout, removed.stderr);
        }
        sh(&format!("ip netns del {}", self.id));
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

pub fn kedge() -> PathBuf {
    match std::env::var_os("KEDGE_E2E_BINARY") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_kedge").into(),
    }
}

/// A command in a network namespace.
pub fn enter(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
    command
}

pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
