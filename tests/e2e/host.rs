//! One "host": two network namespaces (the node, and a client beside it on the same link), directories of its own,
//! and a kedge server in it.

use crate::image;
use crate::run::{Outcome, eventually, run, sh};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Seconds that a start may take here before a test gives up; generous because CI shares two cores.
const START_SECONDS: u64 = 90;

pub struct Host {
    id: String,
    pub dir: PathBuf,
    run_dir: PathBuf,
    server: Option<Child>,
    flags: Vec<String>,
    keep: bool,
}

impl Host {
    /// A host with nothing running.
    pub fn new() -> Host {
        assert!(nix::unistd::geteuid().is_root(), "the end-to-end tests need root: run ./test.sh as root");
        let id = format!("ke{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&id);
        std::fs::create_dir_all(&dir).expect("scratch directory");
        sh(&format!(
            "ip netns add {id}; ip netns add {id}c
             ip link add eth0 netns {id} type veth peer name eth0 netns {id}c
             ip -n {id} link set lo up; ip -n {id}c link set lo up
             ip -n {id} addr add {node}/24 dev eth0; ip -n {id} link set eth0 up
             ip -n {id}c addr add {client}/24 dev eth0; ip -n {id}c link set eth0 up
             ip -n {id} route add default via {client}",
            node = Host::IP,
            client = Host::CLIENT_IP,
        ))
        .ok();
        let run_dir = PathBuf::from("/run").join(&id);
        Host { id, dir, run_dir, server: None, flags: Vec::new(), keep: std::env::var_os("KEDGE_E2E_KEEP").is_some() }
    }

    /// A host with a server (and the test image), its node Ready.
    pub fn ready() -> Host {
        let mut host = Host::new();
        host.import();
        host.start(&[]);
        host.wait_ready();
        host
    }

    /// A host with a server without an agent.
    pub fn api_only() -> Host {
        let mut host = Host::new();
        host.start(&["--disable-agent"]);
        host.wait_api();
        host
    }

    pub const IP: &'static str = "10.99.0.1";
    pub const CLIENT_IP: &'static str = "10.99.0.2";

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig.yaml")
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Put the test image where the agent imports from.
    pub fn import(&self) {
        image::busybox(&self.data_dir().join("agent/images"), &[image::BUSYBOX]);
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

    /// `kedge server` with these further flags, as a command in the node's namespace.
    pub fn server_command(&self, flags: &[&str]) -> Command {
        let mut command = self.inside(kedge());
        command.arg("server").args(self.instance_flags()).args([
            format!("--config={}", self.dir.join("config.yaml").display()),
            format!("--write-kubeconfig={}", self.kubeconfig().display()),
            "--node-name=node-1".to_owned(),
        ]);
        command.args(flags);
        command
    }

    pub fn start(&mut self, flags: &[&str]) {
        let config = self.dir.join("config.yaml");
        if !config.exists() {
            std::fs::write(&config, "").expect("config file");
        }
        self.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("log file");
        let mut command = self.server_command(flags);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.server = Some(command.spawn().expect("start kedge server"));
    }

    /// The same server again.
    pub fn start_again(&mut self) {
        let flags = self.flags.clone();
        self.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.server.take() {
            child.kill().expect("kill -9");
            child.wait().expect("wait");
        }
    }

    /// SIGTERM, and wait.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.server.take() {
            sh(&format!("kill {}", child.id()));
            eventually("server stops", 20, || match child.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }

    #[track_caller]
    pub fn wait_api(&self) {
        eventually("API ready", START_SECONDS, || self.kubectl(&["get", "--raw", "/readyz"]).result());
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        self.wait_api();
        let outcome = self.kubectl(&["wait", "--for=condition=Ready", "node/node-1", "--timeout=90s"]);
        let outcome = if outcome.ok {
            outcome
        } else {
            // `kubectl wait` refuses at once while the Node object is not there yet.
            eventually("node registered", START_SECONDS, || self.kubectl(&["get", "node", "node-1"]).result());
            self.kubectl(&["wait", "--for=condition=Ready", "node/node-1", "--timeout=90s"])
        };
        assert!(outcome.ok, "node not Ready: {}\n{}", outcome.stderr, tail(&self.log()));
    }

    /// A command in the node's network namespace.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        enter(&self.id, program)
    }

    /// A command on the client beside the node.
    pub fn outside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        enter(&format!("{}c", self.id), program)
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.inside("kubectl");
        command.arg(format!("--kubeconfig={}", self.kubeconfig().display())).args(args);
        command.env("HOME", &self.dir).env_remove("KUBECONFIG");
        command
    }

    /// Run kubectl 1.37 with the cluster's kubeconfig.
    pub fn kubectl(&self, args: &[&str]) -> Outcome {
        run(&mut self.kubectl_command(args))
    }

    /// Words of a command line without quoting.
    pub fn k(&self, line: &str) -> Outcome {
        self.kubectl(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// kubectl with a bearer token and nothing else.
    pub fn with_token(&self, token: &str, line: &str) -> Outcome {
        let mut command = self.inside("kubectl");
        command.args(["--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify"]);
        command.arg(format!("--token={token}")).args(line.split_whitespace()).env("HOME", &self.dir);
        run(&mut command)
    }

    /// `kubectl apply -f` this text.
    pub fn apply(&self, yaml: &str) -> Outcome {
        self.with_file(yaml, &["apply", "-f"])
    }

    /// `kubectl ARGS… FILE` with the text in a file.
    pub fn with_file(&self, yaml: &str, args: &[&str]) -> Outcome {
        let file = self.dir.join("input.yaml");
        std::fs::write(&file, yaml).expect("write yaml");
        let path = file.display().to_string();
        self.kubectl(&[args, &[path.as_str()]].concat())
    }

    /// kedge's other commands on this host.
    pub fn kedge(&self, args: &[&str]) -> Outcome {
        run(self.inside(kedge()).args(args))
    }

    /// Remove everything of this instance as a user would.
    pub fn uninstall(&self) -> Outcome {
        run(self.inside(kedge()).args(["uninstall", "--keep-binary"]).args(self.instance_flags()))
    }

    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- end of the server's log ({})\n{}", self.log_file().display(), tail(&self.log()));
        }
        if self.keep {
            eprintln!("kept: namespace {}, directory {}", self.id, self.dir.display());
            return;
        }
        if let Some(mut child) = self.server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let removed = self.uninstall();
        if !removed.ok {
            eprintln!("uninstall: {}{}", removed.stdout, removed.stderr);
        }
        sh(&format!("ip netns del {0}; ip netns del {0}c", self.id));
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

fn enter(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
    command
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
