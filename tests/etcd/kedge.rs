//! Whole servers: the program itself, without a node.

use super::server::free_port;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Longest wait for a server to answer, and for one to take over after another was lost (15 s and what follows).
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Kedge {
    pub data: PathBuf,
    port: u16,
    kubeconfig: PathBuf,
    child: Child,
}

impl Kedge {
    /// Start one below a directory; `number` tells it from others.
    pub fn start(scratch: &Path, number: u8, flags: &[&str]) -> Self {
        let port = free_port();
        let directory = directory(scratch, number);
        std::fs::create_dir_all(&directory).expect("a directory");
        let (data, kubeconfig) = (directory.join("data"), directory.join("kubeconfig"));
        let log = std::fs::File::create(directory.join("log")).expect("a log");
        let path = |path: &Path| path.to_str().expect("text").to_owned();
        let child = Command::new(env!("CARGO_BIN_EXE_kedge"))
            .args(["server", "--disable-agent", "--config", "/dev/null", "--node-ip", "127.0.0.1"])
            .args(["--node-name", &format!("server-{number}"), "--advertise-address", &format!("192.0.2.{number}")])
            .args(["--bind-address", "127.0.0.1", "--https-listen-port", &port.to_string()])
            .args(["--data-dir", &path(&data), "--run-dir", &path(&directory.join("run"))])
            .args(["--write-kubeconfig", &path(&kubeconfig)])
            .args(flags)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("kedge starts");
        Kedge { data, port, kubeconfig, child }
    }

    /// `kubectl` at this server, as its admin.
    pub async fn kubectl(&self, line: &str) -> Result<String, String> {
        self.kubectl_as(self, line).await
    }

    /// Likewise with the kubeconfig of another one.
    pub async fn kubectl_as(&self, other: &Kedge, line: &str) -> Result<String, String> {
        let config = format!("--kubeconfig {}", other.kubeconfig.display());
        self.run_kubectl(&format!("{config} {line}")).await
    }

    /// Whose token this server takes it for.
    pub async fn whoami(&self, token: &str) -> Result<String, String> {
        let ca = self.data.join("server/tls/server-ca.crt");
        let line = "auth whoami -o jsonpath={.status.userInfo.username}";
        let flags = format!("--kubeconfig /dev/null --certificate-authority {} --token {token}", ca.display());
        self.run_kubectl(&format!("{flags} {line}")).await
    }

    async fn run_kubectl(&self, line: &str) -> Result<String, String> {
        let server = format!("https://127.0.0.1:{}", self.port);
        let mut command = Command::new("kubectl");
        command.args(["--server", &server, "--request-timeout", "20s"]).args(line.split_whitespace());
        result(command.kill_on_drop(true).output().await)
    }

    pub async fn ready(&mut self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.kubectl("get --raw /readyz").await.as_deref() != Ok("ok") {
            let ended = self.child.try_wait().expect("is a child");
            assert!(ended.is_none() && tokio::time::Instant::now() < deadline, "not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What it says when it ends by itself.
    pub async fn refuses(mut self) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("ends").expect("is a child");
        assert!(!ended.success());
        self.log()
    }

    /// Hang, and go on.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).expect("is there");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).expect("is ours");
    }

    /// As a power cut ends it.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("was there");
    }

    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("ends").expect("is a child");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.kubeconfig.with_file_name("log")).unwrap_or_default()
    }
}

fn directory(scratch: &Path, number: u8) -> PathBuf {
    scratch.join(format!("server-{number}"))
}

/// A `kedge` command about a server's files, whether there are any or not.
pub async fn kedge(scratch: &Path, number: u8, line: &str) -> Result<String, String> {
    let directory = directory(scratch, number);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kedge"));
    command.env("KEDGE_DATA_DIR", directory.join("data")).env("KEDGE_CONFIG", "/dev/null");
    command.env("KEDGE_WRITE_KUBECONFIG", directory.join("kubeconfig"));
    result(command.args(line.split_whitespace()).kill_on_drop(true).output().await)
}

fn result(output: std::io::Result<std::process::Output>) -> Result<String, String> {
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Try until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
