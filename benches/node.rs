//! Figures of a whole node, beside the budgets of the design: `cargo bench --bench node -- [--binary PATH] [--minutes N]
//! [--second-node]` (only what is measured of a second node).
//!
//! Starts real servers (with agent and containerd) in a network namespace and directories of its own, as the
//! end-to-end tests do, and prints one line per figure:
//!
//! - start: from the process to `/readyz` and to a Ready node; on an empty data directory, and with the certificates
//!   and the image store of an earlier start, containerd ended in between or still there. The API's store is new each
//!   time: a Node from before would be Ready before the server is. Asked every few milliseconds over the network.
//! - idle: memory of kedge and of containerd beside it, CPU time and bytes written over N minutes (default 5) after
//!   one minute of rest. "Written" is what the kernel counts for the process (`/proc/PID/io`), "store" its own counter.
//! - pods: from the create request to Running and to Ready as a watch tells it, one alone and 16 at once.
//! - API: create, get and list of ConfigMaps of 1 KiB on one and on 50 connections, from the client's namespace, so
//!   that everything passes TLS and a network link. The client shares the machine with the server: rates are
//!   lower bounds. Watch fan-out and comparisons with other servers are for a client-go load generator.
//!
//! - a second node, on the same link: from `kedge agent` with a token to the Node Ready, on an empty data directory;
//!   then idle as above, with all bytes that pass its network interface (frames, both ways).
//!
//! Needs root, containerd, runc, and busybox-static. Without `--binary` the executable of this build is measured;
//! memory means something for release builds only. Figures are printed, never judged: a busy machine is no failure.

#[allow(dead_code)]
#[path = "../tests/e2e/agent.rs"]
mod agent;
#[allow(dead_code)]
#[path = "../tests/e2e/host.rs"]
mod host;
#[allow(dead_code)]
#[path = "../tests/e2e/image.rs"]
mod image;
#[allow(dead_code)]
#[path = "../tests/e2e/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "../tests/e2e/run.rs"]
mod run;

use futures::{StreamExt, TryStreamExt};
use host::Host;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, WatchEvent, WatchParams};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often a starting server is asked.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// A start that takes longer is a failure.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Pods that take longer are a failure.
const POD_PATIENCE: Duration = Duration::from_secs(120);
/// Rest before the idle minutes, so that they hold nothing of the start.
const REST: Duration = Duration::from_secs(60);
const CLIENTS: usize = 50;
const OBJECTS_ALONE: usize = 500;
const OBJECTS: usize = 2000;
const LIST_OBJECTS: usize = 10_000;
const LISTS: usize = 10;
const NAMESPACE: &str = "bench";

struct Options {
    minutes: u64,
    only_second_node: bool,
}

fn main() {
    let options = options();
    println!("machine: {} CPUs, load {}", cpus(), read("/proc/loadavg").split(' ').next().unwrap_or("?"));
    println!("binary:  {} ({})", host::kedge().display(), mib(std::fs::metadata(host::kedge()).map_or(0, |m| m.len())));
    let mut host = Host::new();
    host.import();

    start(&mut host, "start, empty data directory");
    wait_for_image(&host);
    if options.only_second_node {
        second_node(&host, options.minutes);
        return host.stop();
    }
    host.stop();
    end_containerd(&host);
    forget(&host);
    start(&mut host, "start, warm image store");
    host.stop();
    forget(&host);
    start(&mut host, "start, containerd still there");

    wait_for_image(&host);
    idle(&host, options.minutes);
    in_client(&host, |client| async move {
        pods(&client, 1).await;
        pods(&client, 16).await;
    });
    memory(&host, "after pods");
    let kubeconfig = host.kubeconfig();
    in_client(&host, |client| api(client, kubeconfig));
    memory(&host, "after the API figures");
    second_node(&host, options.minutes);
    host.stop();
}

fn options() -> Options {
    let mut options = Options { minutes: 5, only_second_node: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--binary" => {
                let path = args.next().expect("--binary PATH");
                // SAFETY: nothing else runs yet; the tests' host reads it.
                unsafe { std::env::set_var("KEDGE_E2E_BINARY", path) }
            }
            "--minutes" => options.minutes = args.next().and_then(|n| n.parse().ok()).expect("--minutes N"),
            "--second-node" => options.only_second_node = true,
            _ => {} // cargo adds --bench
        }
    }
    options
}

/// One line: what, its figures, the budget.
fn show(what: &str, figures: impl std::fmt::Display, budget: &str) {
    let budget = if budget.is_empty() { String::new() } else { format!("   [budget {budget}]") };
    println!("{what:<34} {figures}{budget}");
}

// ---- start

fn start(host: &mut Host, what: &str) {
    let _ = std::fs::remove_file(host.kubeconfig());
    let begin = Instant::now();
    host.start(&[]);
    let kubeconfig = host.kubeconfig();
    let (ready, node) = on_client_side(host, async move {
        let client = loop {
            if let Ok(client) = kedge::client::https(&kubeconfig)
                && client.request_text(get("/readyz")).await.is_ok()
            {
                break client;
            }
            assert!(begin.elapsed() < START_PATIENCE, "the API does not answer");
            tokio::time::sleep(ASK_EVERY).await;
        };
        let ready = begin.elapsed();
        let nodes: Api<Node> = Api::all(client);
        while !nodes.get("node-1").await.is_ok_and(|node| node_ready(&node)) {
            assert!(begin.elapsed() < START_PATIENCE, "the node is not Ready");
            tokio::time::sleep(ASK_EVERY).await;
        }
        (ready, begin.elapsed())
    });
    show(what, format!("API {} ms, node Ready {} ms", ready.as_millis(), node.as_millis()), "2 s to Ready");
}

fn node_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Remove the API's store of a stopped server.
fn forget(host: &Host) {
    std::fs::remove_dir_all(host.data_dir().join("server/db")).expect("the store is there");
}

fn end_containerd(host: &Host) {
    let Some(pid) = containerd(host) else { return };
    run::sh(&format!("kill {pid}")).ok();
    run::eventually("containerd ends", 20, || match Path::new(&format!("/proc/{pid}")).exists() {
        true => Err("it runs".to_owned()),
        false => Ok(()),
    });
}

// ---- idle

fn idle(host: &Host, minutes: u64) {
    std::thread::sleep(REST);
    memory(host, "idle");
    let seconds = minutes * 60;
    let before = Usage::of(host);
    std::thread::sleep(Duration::from_secs(seconds));
    let after = Usage::of(host);
    memory(host, &format!("idle, {minutes} min later"));
    let cpu =
        |from: f64, to: f64| format!("{:.2} s ({:.2} % of a core)", to - from, (to - from) * 100.0 / seconds as f64);
    let bytes =
        |from: u64, to: u64| format!("{} bytes ({:.2} KiB/s)", to - from, (to - from) as f64 / 1024.0 / seconds as f64);
    show("idle CPU, kedge", cpu(before.kedge.cpu_seconds, after.kedge.cpu_seconds), "0.5 %");
    show("idle CPU, containerd", cpu(before.containerd.cpu_seconds, after.containerd.cpu_seconds), "");
    show("idle writes, kedge", bytes(before.kedge.written_bytes, after.kedge.written_bytes), "1 KiB/s");
    show("idle writes, of it the store", bytes(before.store_bytes, after.store_bytes), "");
    show("idle writes, containerd", bytes(before.containerd.written_bytes, after.containerd.written_bytes), "");
}

fn memory(host: &Host, what: &str) {
    show(&format!("memory of kedge, {what}"), Memory::of(pid_of(host)), "60 MB; 120 MB for now");
    if let Some(pid) = containerd(host) {
        show(&format!("memory of containerd, {what}"), Memory::of(pid), "");
    }
}

/// In KiB, as the kernel tells it.
struct Memory {
    rss: u64,
    pss: u64,
    anonymous: u64,
}

impl Memory {
    fn of(pid: u32) -> Memory {
        let rollup = read(&format!("/proc/{pid}/smaps_rollup"));
        let value = |name| number(&rollup, name);
        Memory { rss: value("Rss:"), pss: value("Pss:"), anonymous: value("Anonymous:") }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = |kib: u64| kib as f64 * 1024.0 / 1e6;
        write!(f, "RSS {:.1} MB, PSS {:.1} MB, anonymous {:.1} MB", mb(self.rss), mb(self.pss), mb(self.anonymous))
    }
}

struct Process {
    cpu_seconds: f64,
    written_bytes: u64,
}

impl Process {
    fn of(pid: u32) -> Process {
        let stat = read(&format!("/proc/{pid}/stat"));
        // The command's name may hold spaces; fields count from behind it: utime and stime are 14 and 15 (proc(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Process {
            cpu_seconds: ticks as f64 / per_second as f64,
            written_bytes: number(&read(&format!("/proc/{pid}/io")), "write_bytes:"),
        }
    }
}

struct Usage {
    kedge: Process,
    containerd: Process,
    store_bytes: u64,
}

impl Usage {
    fn of(host: &Host) -> Usage {
        let metrics = host.kubectl(&["get", "--raw", "/metrics"]).ok();
        Usage {
            kedge: Process::of(pid_of(host)),
            containerd: Process::of(containerd(host).expect("containerd runs")),
            store_bytes: number(&metrics, "kedge_store_written_bytes "),
        }
    }
}

/// The containerd of this instance: the one that was started with its configuration.
fn containerd(host: &Host) -> Option<u32> {
    let config = host.data_dir().join("agent/containerd.toml");
    let config = config.to_str()?;
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let line = read(&format!("/proc/{pid}/cmdline"));
        let mut words = line.split('\0');
        words.next().is_some_and(|program| program.ends_with("containerd")) && words.any(|word| word == config)
    })
}

// ---- a second node

fn second_node(host: &Host, minutes: u64) {
    let mut agent = host.beside(2);
    let kubeconfig = host.kubeconfig();
    let begin = Instant::now();
    agent.join(host, &[]);
    let joined = on_client_side(host, async move {
        let nodes: Api<Node> = Api::all(kedge::client::https(&kubeconfig).expect("the admin's kubeconfig"));
        while !nodes.get("node-2").await.is_ok_and(|node| node_ready(&node)) {
            assert!(begin.elapsed() < START_PATIENCE, "the second node is not Ready");
            tokio::time::sleep(ASK_EVERY).await;
        }
        begin.elapsed()
    });
    show("second node, join to Ready", format!("{} ms", joined.as_millis()), "3 s");
    std::thread::sleep(REST);
    let pid = pid_of(&agent);
    let (cpu, wire) = (Process::of(pid).cpu_seconds, wire_bytes(&agent));
    std::thread::sleep(Duration::from_secs(minutes * 60));
    show("memory of the agent, idle", Memory::of(pid), "25 MB; 40 MB for now");
    show("idle CPU of the agent", format!("{:.2} s in {minutes} min", Process::of(pid).cpu_seconds - cpu), "");
    let (sent, received) = wire_bytes(&agent);
    let rate = |from: u64, to: u64| (to - from) as f64 / 1000.0 / minutes as f64;
    let (sent, received) = (rate(wire.0, sent), rate(wire.1, received));
    let text = format!("{:.1} KB a minute ({sent:.1} sent, {received:.1} received)", sent + received);
    show("on the agent's wire, idle", text, "20 KB a minute");
    agent.stop();
}

/// Bytes that a host's interface has sent and received.
fn wire_bytes(host: &machine::Machine) -> (u64, u64) {
    let text = run::run(host.inside("ip").args(["-s", "-j", "link", "show", "eth0"])).ok();
    let links: serde_json::Value = serde_json::from_str(&text).expect("ip -j");
    let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_u64().expect("stats64");
    (bytes("tx"), bytes("rx"))
}

// ---- pods

fn wait_for_image(host: &Host) {
    run::eventually("the image is imported", 60, || {
        let node = host.kubectl(&["get", "node", "node-1", "-o", "jsonpath={.status.images}"]).result()?;
        if node.contains("busybox") { Ok(()) } else { Err(node) }
    });
}

/// Create so many pods at once and tell when they were Running and Ready.
async fn pods(client: &Client, count: usize) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    service_account(client, "default").await;
    let watch = pods.watch(&WatchParams::default().labels(&format!("bench=p{count}")), "0").await.expect("watch");
    let mut watch = watch.boxed();
    let begin = Instant::now();
    let creating = futures::future::try_join_all((0..count).map(|i| {
        let body = pod(&format!("p{count}-{i}"), &format!("p{count}"));
        client.request_text(post("/api/v1/namespaces/default/pods", body))
    }));
    let mut running: BTreeMap<String, Duration> = BTreeMap::new();
    let mut ready: BTreeMap<String, Duration> = BTreeMap::new();
    let watching = async {
        while ready.len() < count {
            let event = watch.try_next().await.expect("watch").expect("the watch goes on");
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
            let Some(status) = pod.status else { continue };
            let name = pod.metadata.name.unwrap_or_default();
            if status.phase.as_deref() == Some("Running") {
                running.entry(name.clone()).or_insert(begin.elapsed());
            }
            if status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True") {
                ready.entry(name).or_insert(begin.elapsed());
            }
        }
    };
    let (created, waited) = tokio::join!(creating, tokio::time::timeout(POD_PATIENCE, watching));
    created.expect("pods are created");
    waited.expect("pods become Ready in time");
    let figures = format!("Running {}; Ready {}", spread(running), spread(ready));
    show(
        &format!("{count} pod{}, from create", if count == 1 { "" } else { "s at once" }),
        figures,
        match count {
            1 => "",
            _ => "median 1 s to Running",
        },
    );
    for i in 0..count {
        let path = format!("/api/v1/namespaces/default/pods/p{count}-{i}?gracePeriodSeconds=0");
        let _ = client.request_text(request("DELETE", &path, Vec::new())).await;
    }
}

fn spread(times: BTreeMap<String, Duration>) -> String {
    let mut times: Vec<Duration> = times.into_values().collect();
    times.sort();
    format!("median {} ms, max {} ms", times[times.len() / 2].as_millis(), times[times.len() - 1].as_millis())
}

fn pod(name: &str, label: &str) -> Vec<u8> {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"bench": label}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "c", "image": image::BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
        }]},
    });
    pod.to_string().into_bytes()
}

/// A namespace takes pods as soon as its service account is there.
async fn service_account(client: &Client, namespace: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    while client.request_text(get(&path)).await.is_err() {
        tokio::time::sleep(ASK_EVERY).await;
    }
}

// ---- the API

async fn api(client: Client, kubeconfig: PathBuf) {
    let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    client.request_text(post("/api/v1/namespaces", namespace.to_string().into_bytes())).await.expect("namespace");
    let alone = vec![client.clone()];
    // One connection each: a client keeps one HTTP/2 connection.
    let many: Vec<Client> = (0..CLIENTS).map(|_| kedge::client::https(&kubeconfig).expect("client")).collect();
    let create = |prefix: &'static str| move |i| post(&config_maps(), config_map(&format!("{prefix}-{i}")));
    let get_one = |prefix: &'static str| move |i| get(&format!("{}/{prefix}-{i}", config_maps()));
    timed("create 1 KiB, 1 client", &alone, OBJECTS_ALONE, create("a"), "").await;
    timed("get 1 KiB, 1 client", &alone, OBJECTS_ALONE, get_one("a"), "").await;
    timed("create 1 KiB, 50 clients", &many, OBJECTS, create("b"), "4,000/s").await;
    timed("get 1 KiB, 50 clients", &many, OBJECTS * 2, move |i| get_one("b")(i % OBJECTS), "20,000/s").await;
    let more = LIST_OBJECTS - OBJECTS - OBJECTS_ALONE;
    timed("create more for the list", &many, more, create("c"), "").await;
    timed("list of 10,000", &alone, LISTS, |_| get(&config_maps()), "0.05 s for 12,500").await;
    timed(
        "list of 10,000, 50 clients",
        &many,
        CLIENTS * 2,
        |_| get(&format!("{}?limit=500", config_maps())),
        "pages of 500",
    )
    .await;
    client
        .request_text(request("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}"), Vec::new()))
        .await
        .expect("delete");
}

/// Send so many requests over these connections, one at a time on each, and show rate and latencies.
async fn timed(
    what: &str,
    clients: &[Client],
    count: usize,
    make: impl Fn(usize) -> http::Request<Vec<u8>> + Send + Sync + 'static,
    budget: &str,
) {
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in clients {
        let (client, next, make) = (client.clone(), next.clone(), make.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return took;
                }
                let begin = Instant::now();
                client.request_text(make(i)).await.expect("the request succeeds");
                took.push(begin.elapsed());
            }
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    took.sort();
    let ms = |per_cent: usize| took[(took.len() - 1) * per_cent / 100].as_secs_f64() * 1e3;
    let mut figures = String::new();
    let _ = write!(figures, "{rate:>8.0}/s  p50 {:.2} ms  p99 {:.2} ms  (n {count})", ms(50), ms(99));
    show(what, figures, budget);
}

fn config_maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn config_map(name: &str) -> Vec<u8> {
    let data = "0123456789abcdef".repeat(64);
    serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": data},
    })
    .to_string()
    .into_bytes()
}

// ---- plumbing

/// Run this on a thread in the client's network namespace.
fn on_client_side<T: Send>(host: &Host, work: impl Future<Output = T> + Send) -> T {
    let namespace = format!("/run/netns/{}c", host.id());
    let run = || {
        let file = std::fs::File::open(&namespace).expect("client's namespace");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the client's namespace");
        // Its worker threads begin in the namespace of the thread that starts them.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("runtime").block_on(work)
    };
    kedge::task::on_own_thread("client", run).expect("client thread")
}

fn in_client<F: Future<Output = ()> + Send>(host: &Host, work: impl FnOnce(Client) -> F + Send) {
    let kubeconfig = host.kubeconfig();
    on_client_side(host, async move { work(kedge::client::https(&kubeconfig).expect("client")).await });
}

fn request(method: &str, path: &str, body: Vec<u8>) -> http::Request<Vec<u8>> {
    let builder = http::Request::builder().method(method).uri(path);
    builder.header("content-type", "application/json").body(body).expect("request")
}

fn get(path: &str) -> http::Request<Vec<u8>> {
    request("GET", path, Vec::new())
}

fn post(path: &str, body: Vec<u8>) -> http::Request<Vec<u8>> {
    request("POST", path, body)
}

/// The number behind a name at the start of a line; 0 if there is none.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).map_or(0, |n| n as u64)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, |n| n.get())
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Process id of the server, from its pid file.
fn pid_of(host: &machine::Machine) -> u32 {
    let text = std::fs::read_to_string(host.run_dir().join("kedge.pid")).expect("pid file of a running server");
    text.trim().parse().expect("a process id")
}
