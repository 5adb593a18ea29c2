//! `kedge status`: what runs on this host, asked of the API itself.

use crate::join::identity::{Host, Kind};
use crate::join::{self, As};
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// Wait until the API answers and every node is Ready.
    #[arg(long)]
    wait: bool,

    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,

    /// The cluster's admin kubeconfig.
    #[arg(long, env = "KEDGE_WRITE_KUBECONFIG", value_name = "FILE", default_value = crate::config::KUBECONFIG)]
    kubeconfig: PathBuf,

    #[arg(long, env = "KEDGE_DATA_DIR", value_name = "DIR", default_value = crate::config::DATA_DIR)]
    data_dir: PathBuf,
}

/// How often `--wait` looks.
const PERIOD: Duration = Duration::from_millis(250);

pub fn run(args: Args) -> anyhow::Result<i32> {
    super::block_on(async {
        let deadline = Instant::now() + Duration::from_secs(args.timeout);
        loop {
            let report = look(&args).await;
            let done = match &report {
                Ok(report) => report.is_ready(),
                Err(_) => false,
            };
            if done || !args.wait || Instant::now() >= deadline {
                return finish(report, args.wait, args.timeout);
            }
            tokio::time::sleep(PERIOD).await;
        }
    })
}

fn finish(report: anyhow::Result<Report>, waited: bool, timeout: u64) -> anyhow::Result<i32> {
    let report = report.context("the API does not answer; does kedge run here, and on the server?")?;
    print!("{report}");
    if report.is_ready() {
        return Ok(0);
    }
    if waited {
        bail!("not ready after {timeout} s");
    }
    Ok(1)
}

/// What was seen at one moment.
struct Report {
    version: String,
    nodes: Vec<(String, bool, String)>,
    pods: Vec<(String, usize)>,
    figures: Vec<(String, String)>,
    certificates: Vec<String>,
}

impl Report {
    fn is_ready(&self) -> bool {
        self.nodes.iter().all(|(_, ready, _)| *ready) && !self.nodes.is_empty()
    }
}

async fn look(args: &Args) -> anyhow::Result<Report> {
    let mut report = match args.kubeconfig.exists() {
        true => of_cluster(&crate::client::https(&args.kubeconfig)?).await?,
        false => of_agent(args).await?,
    };
    report.certificates = certificates(&args.data_dir);
    Ok(report)
}

/// All of it, as the administrator sees it.
async fn of_cluster(client: &kube::Client) -> anyhow::Result<Report> {
    let version = client.apiserver_version().await?.git_version;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let metrics = client.request_text(request).await.unwrap_or_default();
    let tunnels = tunnels(client).await;
    let with_tunnel = |node: &Node| {
        let (name, ready, text) = node_line(node);
        let tunnel = tunnels.get(&name).map(|t| format!(", {t}")).unwrap_or_default();
        (name, ready, text + &tunnel)
    };
    Ok(Report {
        version,
        nodes: nodes.items.iter().map(with_tunnel).collect(),
        pods: phases(&pods.items),
        figures: figures(&metrics),
        certificates: Vec::new(),
    })
}

/// The server's way to each node that has called it, by node; nothing from servers that do not say.
async fn tunnels(client: &kube::Client) -> HashMap<String, String> {
    let Ok(request) = http::Request::get(crate::wire::tunnel::PATH).body(Vec::new()) else { return HashMap::new() };
    let answer: serde_json::Value = client.request(request).await.unwrap_or_default();
    let line = |tunnel: &serde_json::Value| {
        let text = |key: &str| tunnel[key].as_str().unwrap_or_default().to_owned();
        let line = format!("tunnel from {} since {}, {} streams", text("address"), text("since"), tunnel["streams"]);
        (text("node"), line)
    };
    answer["tunnels"].as_array().into_iter().flatten().map(line).collect()
}

/// This node and its pods, as the node sees them.
async fn of_agent(args: &Args) -> anyhow::Result<Report> {
    let Some(host) = Host::kept_in(&args.data_dir)? else {
        bail!("{} does not exist, and no agent has joined from here", args.kubeconfig.display());
    };
    let identity = host.kept()?.context("this host has not joined yet")?;
    let who = As::Node(identity.live(Kind::Client));
    let client = join::client(&identity.server, Some(&identity.server_ca), who)?;
    let version = client.apiserver_version().await?.git_version;
    let node = Api::<Node>::all(client.clone()).get(&identity.node_name).await?;
    let mine = ListParams::default().fields(&format!("spec.nodeName={}", identity.node_name));
    let pods = Api::<Pod>::all(client).list(&mine).await?;
    Ok(Report {
        version: format!("{version} at {}", identity.server),
        nodes: vec![node_line(&node)],
        pods: phases(&pods.items),
        figures: Vec::new(),
        certificates: Vec::new(),
    })
}

/// The certificate of this host that ends first, and every one that has ended.
fn certificates(data_dir: &Path) -> Vec<String> {
    let now = crate::time::now_seconds();
    let mut found = super::certificate::found(data_dir);
    found.sort_by_key(|f| f.end);
    let ended = found.iter().filter(|f| f.end <= now).count();
    found.iter().take(ended.max(1)).map(|f| format!("{} {}", f.name, f.life(now))).collect()
}

fn node_line(node: &Node) -> (String, bool, String) {
    let status = node.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|c| c.type_ == "Ready");
    let version = status.and_then(|s| s.node_info.as_ref()).map(|i| i.kubelet_version.clone()).unwrap_or_default();
    let is_ready = ready.is_some_and(|c| c.status == "True");
    let why = if is_ready { version } else { ready.and_then(|c| c.message.clone()).unwrap_or_default() };
    (node.metadata.name.clone().unwrap_or_default(), is_ready, why)
}

fn phases(pods: &[Pod]) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for pod in pods {
        let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
        *counts.entry(phase).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// The lines of `/metrics` that a person wants to see.
fn figures(metrics: &str) -> Vec<(String, String)> {
    let value = |name: &str| {
        let line = metrics.lines().find(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / (1024.0 * 1024.0));
    let wanted = [
        ("memory", "process_resident_memory_bytes"),
        ("store size", "apiserver_storage_size_bytes"),
        ("written", "kedge_store_written_bytes"),
    ];
    wanted.iter().filter_map(|(label, name)| Some(((*label).to_owned(), mib(value(name)?)))).collect()
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "API         {}", self.version)?;
        for (name, ready, text) in &self.nodes {
            writeln!(f, "node        {name} {} {text}", if *ready { "Ready" } else { "NotReady:" })?;
        }
        if self.nodes.is_empty() {
            writeln!(f, "node        none yet")?;
        }
        let pods: Vec<String> = self.pods.iter().map(|(phase, n)| format!("{n} {phase}")).collect();
        writeln!(f, "pods        {}", if pods.is_empty() { "none".to_owned() } else { pods.join(", ") })?;
        for (label, value) in &self.figures {
            writeln!(f, "{label:<11} {value}")?;
        }
        for certificate in &self.certificates {
            writeln!(f, "certificate {certificate}")?;
        }
        Ok(())
    }
}
