//! The servers that are measured, each a process of its own.

use kedge::store::Store;
use kedge::store::face::{Face, PROGRESS_INTERVAL};
use kedge::store::local::engine;
use kedge::store::local::{Local, Options};
use kedge::task::{self, Group};
use kedge::wire::listener::Listener;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Set for a process that is to serve a store in this directory, at the address in [`ADDRESS`].
pub const SERVE: &str = "KEDGE_BENCH_SERVE";
const ADDRESS: &str = "KEDGE_BENCH_ADDRESS";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Etcd,
    Kedge,
}

/// A running server. It ends when this is dropped.
pub struct Server {
    pub endpoint: String,
    pub path: PathBuf,
    child: Child,
}

impl Server {
    /// Start one on the files in a directory; it may not answer yet.
    pub fn start(kind: Kind, path: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let endpoint = format!("http://{address}");
        let mut command = match kind {
            Kind::Etcd => etcd(path, &endpoint),
            Kind::Kedge => {
                let mut command = Command::new(std::env::current_exe().expect("own path"));
                command.env(SERVE, path).env(ADDRESS, address);
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().expect("the server starts");
        Server { endpoint, path: path.to_owned(), child }
    }

    fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Resident memory in bytes, and the most there ever was.
    pub fn rss(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) << 10
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Bytes that it has caused to be written to disk.
    pub fn written(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id())).unwrap_or_default();
        let field = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        field.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
    }

    /// Bytes that its files take.
    pub fn disk(&self) -> u64 {
        fn walk(path: &Path) -> u64 {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let size = |entry: std::fs::DirEntry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => walk(&entry.path()),
                Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
                Err(_) => 0,
            };
            entries.map(size).sum()
        }
        walk(&self.path)
    }

    /// Have kedge do what its maintenance does every minute, as if nothing had been used for two.
    pub async fn trim(&mut self) {
        if let Some(stdin) = &mut self.child.stdin {
            stdin.write_all(b"trim\n").await.expect("it listens");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    pub async fn kill(mut self) -> PathBuf {
        self.child.kill().await.expect("it ends");
        self.path.clone()
    }

    /// Have it end in good order.
    pub async fn stop(mut self) -> PathBuf {
        let pid = nix::unistd::Pid::from_raw(self.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        self.child.wait().await.expect("it ends");
        self.path.clone()
    }
}

fn etcd(path: &Path, endpoint: &str) -> Command {
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(path).args(["--name", "one", "--log-level", "error", "--logger", "zap"]);
    command.args(["--listen-client-urls", endpoint, "--advertise-client-urls", endpoint]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("one={peer}")]);
    command
}

/// Whether there is an etcd to compare with.
pub fn has_etcd() -> bool {
    let mut command = std::process::Command::new("etcd");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

pub fn etcd_version() -> String {
    let output = std::process::Command::new("etcd").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("?").to_lowercase().replace("version: ", "")
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// The engine of kedge's store: `--engine`.
pub const ENGINE: &str = "KEDGE_STORE_ENGINE";

/// Kedge's store in a directory.
pub fn open(path: &Path) -> Arc<dyn Store> {
    let engine =
        std::env::var(ENGINE).map_or_else(|_| engine::Kind::default(), |name| name.parse().expect("an engine"));
    Local::open(path, Options { engine: Some(engine), ..Options::default() }).expect("opens")
}

/// Be the server: until SIGTERM, or until the parent has gone.
pub async fn serve(path: &Path) {
    let store = open(path);
    let group = Group::root();
    let address = std::env::var(ADDRESS).expect("an address");
    let listener = Listener::bind(address.parse().expect("an address")).await.expect("binds");
    let url = format!("http://{address}");
    let (name, progress_interval) = ("one".into(), PROGRESS_INTERVAL);
    let face = Arc::new(Face { store: store.clone(), name, url, progress_interval, group: group.clone() });
    listener.serve_plain(Arc::new(move |request| face.clone().handle(request)), &group);
    let terminate = tokio::signal::unix::SignalKind::terminate();
    let mut terminate = tokio::signal::unix::signal(terminate).expect("signals");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = obey(store.clone()) => {}
    }
    store.close().await.expect("closes");
}

/// Do what the parent says. Gives word when it has gone.
fn obey(store: Arc<dyn Store>) -> oneshot::Receiver<()> {
    let (gone, told) = oneshot::channel();
    let listen = move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if line == "trim" {
                store.trim();
                store.trim();
            }
        }
        let _ = gone.send(());
    };
    task::thread("commands", listen).expect("a thread");
    told
}
