//! Our store served as etcd, a real etcd, and `etcdctl` on either.

use super::etcd_certificates::Certificates;
use kedge::store::face::{Face, PROGRESS_INTERVAL};
use kedge::store::local::{Local, Options};
use kedge::store::{Store, lease};
use kedge::task::Group;
use kedge::wire::listener::Listener;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How long a watch may be silent before it is taken to have nothing more to say.
const SILENCE: Duration = Duration::from_secs(4);

pub struct Server {
    pub endpoint: String,
    pub store: Arc<dyn Store>,
    group: Group,
    _scratch: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), PROGRESS_INTERVAL).await
    }

    pub async fn start_at(address: SocketAddr, progress_interval: Duration) -> Self {
        Self::start_as(address, progress_interval, Options::default()).await
    }

    pub async fn start_with_quota(quota_bytes: u64) -> Self {
        let options = Options { quota_bytes, ..Options::default() };
        Self::start_as(([127, 0, 0, 1], 0).into(), PROGRESS_INTERVAL, options).await
    }

    /// Over TLS, for who has a certificate.
    pub async fn start_tls(certificates: &Certificates) -> Self {
        let tls = Some(certificates.server_config());
        Self::start_with(([127, 0, 0, 1], 0).into(), PROGRESS_INTERVAL, Options::default(), tls).await
    }

    async fn start_as(address: SocketAddr, progress_interval: Duration, options: Options) -> Self {
        Self::start_with(address, progress_interval, options, None).await
    }

    async fn start_with(
        address: SocketAddr,
        progress_interval: Duration,
        options: Options,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let scratch = tempfile::tempdir().expect("scratch directory");
        let store = Local::open(scratch.path().join("store"), options).expect("opens");
        let group = Group::root();
        lease::start(&group, store.clone());
        let listener = Listener::bind(address).await.expect("binds");
        let endpoint = listener.address().expect("is bound").to_string();
        let face = Arc::new(Face {
            store: store.clone(),
            name: "kedge".into(),
            url: format!("http://{endpoint}"),
            progress_interval,
            group: group.clone(),
        });
        let handler: kedge::client::Handler = Arc::new(move |request| face.clone().handle(request));
        match tls {
            Some(tls) => listener.serve(tls, handler, &group),
            None => listener.serve_plain(handler, &group),
        }
        Server { endpoint, store, group, _scratch: scratch }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.group.cancel();
    }
}

/// A real etcd.
pub struct Real {
    pub endpoint: String,
    _child: Child,
    _scratch: Option<tempfile::TempDir>,
}

impl Real {
    /// `None` where etcd is not installed. Without arguments, in a directory of its own.
    pub async fn start(data: &[&Path]) -> Option<Self> {
        Self::start_with(data, None).await
    }

    /// Over TLS, for who has a certificate.
    pub async fn start_tls(certificates: &Certificates) -> Option<Self> {
        Self::start_with(&[], Some(certificates)).await
    }

    async fn start_with(data: &[&Path], certificates: Option<&Certificates>) -> Option<Self> {
        if !installed("etcd") || !installed("etcdctl") {
            eprintln!("NOT RUN: install etcd-server and etcd-client");
            return None;
        }
        let scratch = tempfile::tempdir().expect("scratch directory");
        let own = scratch.path().join("data");
        let data = data.first().copied().unwrap_or(&own);
        let (client, peer) = (free_port(), free_port());
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let (client_url, peer_url) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let tls = certificates.map(Certificates::etcd_flags).unwrap_or_default();
        let variables = certificates.map(variables).unwrap_or_default();
        let log = std::fs::File::create(scratch.path().join("log")).expect("a log");
        let child = Command::new("etcd")
            .args(["--data-dir", data.to_str().expect("text"), "--name", "default"])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(tls)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("etcd starts");
        let endpoint = format!("127.0.0.1:{client}");
        for _ in 0..200 {
            if etcdctl_with(&variables, &endpoint, "endpoint health").await.contains("is healthy") {
                return Some(Real { endpoint, _child: child, _scratch: Some(scratch) });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(scratch.path().join("log")).unwrap_or_default();
        panic!("etcd does not get healthy:\n{log}");
    }
}

/// `etcdctl`'s variables for a client with a certificate.
fn variables(certificates: &Certificates) -> Vec<(&'static str, String)> {
    let files = [("CACERT", "ca.crt"), ("CERT", "client.crt"), ("KEY", "client.key")];
    files.map(|(name, file)| (name, certificates.path(file))).into()
}

fn installed(program: &str) -> bool {
    std::process::Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port()
}

fn command(endpoint: &str, arguments: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("ETCDCTL_API", "3");
    command.args(["--endpoints", endpoint]).args(arguments.split_whitespace()).kill_on_drop(true);
    command
}

/// What `etcdctl` says to a command; what follows `<` is its input.
pub async fn etcdctl(endpoint: &str, line: &str) -> String {
    etcdctl_with(&[], endpoint, line).await
}

/// Likewise with some of its variables (`ETCDCTL_…`).
pub async fn etcdctl_with(environment: &[(&str, String)], endpoint: &str, line: &str) -> String {
    let (arguments, input) = line.split_once('<').unwrap_or((line, ""));
    let variables = environment.iter().map(|(name, value)| (format!("ETCDCTL_{name}"), value));
    let mut child = command(endpoint, arguments)
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcdctl runs");
    let mut stdin = child.stdin.take().expect("an input");
    // It may end without reading.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    text(child.wait_with_output().await.expect("etcdctl ends"))
}

fn text(output: std::process::Output) -> String {
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

/// A running `etcdctl watch`.
pub struct Watching(Child);

pub fn watch(endpoint: &str, line: &str) -> Watching {
    Watching(command(endpoint, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("etcdctl runs"))
}

impl Watching {
    /// What it has said when it falls silent.
    pub async fn output(mut self) -> String {
        use tokio::io::AsyncReadExt;
        let (mut out, mut err) = (self.0.stdout.take().expect("piped"), self.0.stderr.take().expect("piped"));
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(SILENCE, out.read(&mut buffer)).await {
            all.extend_from_slice(&buffer[..count]);
        }
        // Killed if it has not ended by itself; then there is nothing in the other stream.
        let _ = self.0.kill().await;
        let _ = err.read_to_end(&mut all).await;
        String::from_utf8(all).expect("text")
    }
}

/// The lease that an answer speaks of having granted.
pub fn granted(answer: &str) -> Option<String> {
    let id = answer.lines().find_map(|line| line.strip_prefix("\"ID\" : "))?.parse::<i64>().ok()?;
    // As etcdctl prints it, in most places.
    Some(format!("{id:016x}"))
}

/// An answer without what has to differ: who answered, chosen numbers, times, logs.
pub fn comparable(answer: &str, endpoint: &str, lease: &str) -> String {
    let chosen = |line: &str| {
        line.starts_with("{\"level\"")
            || ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\"", "\"TTL\""].iter().any(|name| line.starts_with(name))
    };
    let decimal = i64::from_str_radix(lease, 16).map_or("none".into(), |id| id.to_string());
    let lines = answer.lines().filter(|line| !chosen(line)).map(|line| {
        let line = line.replace(endpoint, "ENDPOINT");
        if lease.is_empty() {
            return line;
        }
        let short = lease.trim_start_matches('0');
        line.replace(&decimal, "LEASE").replace(lease, "LEASE").replace(short, "LEASE")
    });
    lines.collect::<Vec<_>>().join("\n")
}
