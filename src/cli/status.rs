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

/// What of `/metrics` a person wants to see.
fn figures(metrics: &str) -> Vec<(String, String)> {
    let value = |name: &str| {
        let line = metrics.lines().find(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / (1024.0 * 1024.0));
    let size = |name: &str| value(name).map(mib);
    let written = size("kedge_store_written_bytes").map(|all| match size("kedge_store_written_bytes_per_day") {
        Some(daily) => format!("{all} since the start, {daily} a day going by the last hour"),
        None => format!("{all} since the start"),
    });
    let snapshot = value("kedge_store_snapshot_timestamp_seconds").map(|taken| {
        let age = crate::time::human_duration(crate::time::now_seconds() - taken as i64);
        format!("of revision {}, {age} ago", value("kedge_store_snapshot_revision").unwrap_or_default())
    });
    let alarm = value("kedge_store_alarm").filter(|on| *on > 0.0);
    let losses = value("kedge_store_losses").filter(|n| *n > 0.0);
    let wanted = [
        ("memory", size("process_resident_memory_bytes")),
        ("store size", size("apiserver_storage_size_bytes")),
        ("written", written),
        ("commits", commits(metrics, &value)),
        ("snapshot", snapshot),
        ("ALARM", alarm.map(|_| "the store cannot write; the log says why (is the disk full?)".to_owned())),
        ("DATA LOST", losses.map(|n| format!("{n} times; see server/db/losses.json in the data directory"))),
    ];
    wanted.into_iter().filter_map(|(label, text)| Some((label.to_owned(), text?))).collect()
}

/// How long durable writes take.
fn commits(metrics: &str, value: &dyn Fn(&str) -> Option<f64>) -> Option<String> {
    let count = value("kedge_store_commit_duration_seconds_count").filter(|n| *n > 0.0)?;
    let buckets = metrics.lines().filter_map(|line| {
        let (bound, count) =
            line.strip_prefix("kedge_store_commit_duration_seconds_bucket{le=\"")?.split_once("\"} ")?;
        Some((bound, count.parse::<f64>().ok()?))
    });
    let buckets: Vec<_> = buckets.collect();
    let within = |part: f64| match buckets.iter().find(|(_, below)| *below >= part * count) {
        Some(("+Inf", _)) | None => "above 60 s".to_owned(),
        Some((bound, _)) => format!("within {} ms", bound.parse::<f64>().unwrap_or_default() * 1000.0),
    };
    let worst = value("kedge_store_commit_recent_worst_seconds").unwrap_or_default() * 1000.0;
    Some(format!("half {}, 99 % {}, the slowest of late {worst:.1} ms", within(0.5), within(0.99)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_metrics() {
        let metrics = "# HELP x y\nprocess_resident_memory_bytes 1048576\nkedge_store_written_bytes 524288\n\
            kedge_store_written_bytes_per_day 2097152\nkedge_store_alarm 0\nkedge_store_losses 2\n\
            kedge_store_commit_duration_seconds_bucket{le=\"0.001\"} 50\n\
            kedge_store_commit_duration_seconds_bucket{le=\"10\"} 98\n\
            kedge_store_commit_duration_seconds_bucket{le=\"+Inf\"} 100\n\
            kedge_store_commit_duration_seconds_count 100\nkedge_store_commit_recent_worst_seconds 70.5\n";
        let shown: Vec<String> = figures(metrics).into_iter().map(|(label, text)| format!("{label}: {text}")).collect();
        let wanted = [
            "memory: 1.0 MiB",
            "written: 0.5 MiB since the start, 2.0 MiB a day going by the last hour",
            "commits: half within 1 ms, 99 % above 60 s, the slowest of late 70500.0 ms",
            "DATA LOST: 2 times; see server/db/losses.json in the data directory",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(figures(""), []);
    }
}
