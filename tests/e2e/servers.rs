//! Several servers on one etcd cluster, over TLS with client certificates, and an agent that nobody but it can call: what
//! is lost is not missed.

use crate::agent::Agent;
use crate::etcd_certificates::Certificates;
use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{Outcome, eventually, has, run};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A node that is not heard of for so long is NotReady; agents tell of themselves every 10 s.
const GRACE: Duration = Duration::from_secs(20);

/// A server's lease of a part lasts 15 s, and the others look every 2 s.
const TAKEOVER_SECONDS: u64 = 25;

/// A silent server is found out within 20 s, and a node tells of itself every 10 s. By default one is given up after 40 s.
const FAILOVER_SECONDS: u64 = 35;

/// Three members beside the servers.
struct Etcd {
    members: Vec<Child>,
    flags: Vec<String>,
}

impl Etcd {
    fn start(host: &Host) -> Etcd {
        let directory = host.dir.join("etcd");
        let files = Certificates::make(&directory, &[Host::CLIENT_IP]);
        let url = |member: usize, port: usize| format!("https://{}:{}", Host::CLIENT_IP, 2379 + 10 * member + port);
        let cluster = (0..3).map(|member| format!("m{member}={}", url(member, 1))).collect::<Vec<_>>().join(",");
        let start = |member| {
            let (name, client, peer) = (format!("m{member}"), url(member, 0), url(member, 1));
            let log = File::create(directory.join(format!("{name}.log"))).expect("a log");
            host.outside("etcd")
                .args([&format!("--name={name}"), &format!("--data-dir={}", directory.join(&name).display())])
                .args([&format!("--listen-client-urls={client}"), &format!("--advertise-client-urls={client}")])
                .args([&format!("--listen-peer-urls={peer}"), &format!("--initial-advertise-peer-urls={peer}")])
                .arg(format!("--initial-cluster={cluster}"))
                .args(files.etcd_flags().into_iter().chain(files.etcd_peer_flags()))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log)
                .spawn()
                .expect("etcd starts")
        };
        let endpoints = (0..3).map(|member| url(member, 0)).collect::<Vec<_>>().join(",");
        let flags = vec![
            format!("--datastore-endpoint={endpoints}"),
            format!("--datastore-cafile={}", files.path("ca.crt")),
            format!("--datastore-certfile={}", files.path("client.crt")),
            format!("--datastore-keyfile={}", files.path("client.key")),
            format!("--node-monitor-grace-period={}s", GRACE.as_secs()),
            "--disable-agent".to_owned(),
        ];
        Etcd { members: (0..3).map(start).collect(), flags }
    }

    fn flags(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }

    /// kill -9 of the first one that is left.
    fn lose_one(&mut self) {
        let mut member = self.members.remove(0);
        member.kill().expect("kill -9");
        member.wait().expect("wait");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        while !self.members.is_empty() {
            self.lose_one();
        }
    }
}

/// A further server.
struct Second(Agent);

impl Second {
    fn start(host: &Host, etcd: &Etcd) -> Second {
        let mut second = Second(host.beside(3));
        let mut command = second.0.daemon("server");
        command
            .args([format!("--write-kubeconfig={}", second.kubeconfig().display()), "--node-name=node-3".to_owned()]);
        command.args(etcd.flags()).arg(format!("--token={}", host.token()));
        second.0.spawn(command);
        eventually("the second API is ready", 60, || second.k("get --raw /readyz").result());
        second
    }

    fn kubeconfig(&self) -> PathBuf {
        self.0.dir.join("kubeconfig.yaml")
    }

    /// kubectl at this server.
    fn k(&self, line: &str) -> Outcome {
        let config = format!("--kubeconfig={}", self.kubeconfig().display());
        run(self.0.inside("kubectl").arg(config).args(line.split_whitespace()).env("HOME", &self.0.dir))
    }
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: {BUSYBOX}, command: [sh, -c, 'echo {name} is here; sleep 100000']}}\n"
    )
}

/// Logs and exec of a pod, by a server's kubectl.
#[track_caller]
fn reached(by: &str, k: impl Fn(&str) -> Outcome, pod: &str) {
    eventually(&format!("logs of {pod} by {by}"), 30, || {
        let logs = k(&format!("logs {pod}")).result()?;
        if logs == format!("{pod} is here\n") { Ok(()) } else { Err(logs) }
    });
    assert_eq!(k(&format!("exec {pod} -- hostname")).ok(), format!("{pod}\n"));
}

/// Writes through both servers while a member of etcd is killed, and a watch that is open all the time.
fn a_member_is_lost(host: &Host, second: &Second, etcd: &mut Etcd) {
    const WRITES: usize = 30;
    let seen = host.dir.join("watched");
    let mut watch = host
        .kubectl_command(&["get", "configmaps", "--watch-only", "-o=name"])
        .stdout(File::create(&seen).expect("a file"))
        .spawn()
        .expect("kubectl watches");
    let mut opened = 0;
    eventually("the watch is open", 30, || {
        opened += 1;
        host.k(&format!("create configmap opened-{opened}")).ok();
        if seen.metadata().is_ok_and(|file| file.len() > 0) { Ok(()) } else { Err("it says nothing".to_owned()) }
    });
    let mut unsure = 0;
    for number in 0..WRITES {
        if number == WRITES / 3 {
            etcd.lose_one();
        }
        let line = format!("create configmap w-{number}");
        let create = || if number % 2 == 0 { host.k(&line) } else { second.k(&line) };
        let Err(error) = create().result() else { continue };
        // What was on its way to the lost member may have been done or not, and the server says so.
        unsure += 1;
        has(&error, "etcd");
        let again = create();
        assert!(again.ok || again.stderr.contains("AlreadyExists"), "{again:?}");
    }
    let names = |text: &str| (0..WRITES).filter(|n| !text.contains(&format!("configmap/w-{n}\n"))).collect::<Vec<_>>();
    for read in [host.k("get configmaps -o name").ok(), second.k("get configmaps -o name").ok()] {
        assert_eq!(names(&read), Vec::<usize>::new(), "lost in {read}");
    }
    eventually("the watch has seen all of it", 30, || {
        let missing = names(&std::fs::read_to_string(&seen).expect("reads"));
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    assert!(watch.try_wait().expect("is a child").is_none(), "the watch has ended");
    watch.kill().expect("kill");
    watch.wait().expect("wait");
    eprintln!("a member of etcd was killed: {unsure} of {WRITES} writes were answered with an error that says so");
}

const PARTS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

fn holder(k: impl Fn(&str) -> Outcome, part: &str) -> Result<String, String> {
    k(&format!("get lease -n kube-system {part} -o jsonpath={{.spec.holderIdentity}}")).result()
}

/// kill -9 of the first server, which leads and which the agent is connected to.
fn a_server_is_lost(host: &mut Host, second: &Second) {
    let led: Vec<String> = PARTS.iter().map(|part| holder(|line| host.k(line), part).expect("is held")).collect();
    led.iter().for_each(|identity| has(&host.log(), identity));
    let ready = "get node node-2 -o jsonpath={.status.conditions[?(@.type=='Ready')]['status','lastTransitionTime']}";
    let (node, container) =
        (second.k(ready).ok(), "get pod old -o jsonpath={.status.containerStatuses[0].containerID}");
    has(&node, "True");
    let running = second.k(container).ok();

    host.kill();
    let lost = Instant::now();
    second.k("create namespace after").ok();
    reached("the second server at once", |line| second.k(line), "old");
    for (part, before) in PARTS.iter().zip(&led) {
        eventually(&format!("{part} is led by the other"), TAKEOVER_SECONDS, || match holder(|l| second.k(l), part)? {
            now if now != *before && !now.is_empty() => Ok(()),
            now => Err(now),
        });
    }
    eprintln!("controllers and scheduler were taken over {:.1} s after a kill -9", lost.elapsed().as_secs_f64());
    eventually("controllers work", 20, || second.k("get -n after configmap/kube-root-ca.crt").result());
    let file = second.0.dir.join("pod.yaml");
    std::fs::write(&file, pod("new")).expect("writes");
    second.k(&format!("apply -f {}", file.display())).ok();
    second.k("wait --for=condition=Ready pod/new --timeout=60s").ok();
    reached("the second server", |line| second.k(line), "new");
    let addresses = "get endpoints kubernetes -o jsonpath={.subsets[*].addresses[*].ip}";
    eventually("the lost server is no endpoint", 40, || match second.k(addresses).result()? {
        now if now == second.0.ip => Ok(()),
        now => Err(now),
    });
    // The node would have been given up by now, if it had been missed.
    std::thread::sleep((GRACE + Duration::from_secs(10)).saturating_sub(lost.elapsed()));
    assert_eq!(second.k(ready).ok(), node, "the node stayed Ready");
    assert_eq!(second.k(container).ok(), running, "its pod went on");
}

/// The cable of the server that the agent is connected to is pulled: no connection is closed, nobody says anything.
fn a_server_falls_silent(host: &Host, second: &Second) {
    host.cut(&second.0.ip);
    let silent = Instant::now();
    let told = || host.k("get lease -n kube-node-lease node-2 -o jsonpath={.spec.renewTime}").result();
    let before = told().expect("a lease");
    // Without the other server it could not: this is later than the cut.
    eventually("the agent tells of itself by the other server", FAILOVER_SECONDS, || match told()? {
        now if now != before => Ok(()),
        now => Err(now),
    });
    eprintln!("an agent went over from a silent server after {:.1} s", silent.elapsed().as_secs_f64());
    reached("the first server", |line| host.k(line), "new");
}

#[test]
#[ignore = "end to end on real nodes, as root: ./test.sh"]
fn servers_share_an_etcd_and_what_is_lost_is_not_missed() {
    let mut host = Host::new();
    let mut etcd = Etcd::start(&host);
    host.start(&etcd.flags());
    host.wait_api();
    let second = Second::start(&host, &etcd);
    let mut agent = host.behind_nat(2);
    agent.import();
    agent.join(&host, &[]);
    host.wait_node("node-2");
    host.apply(&pod("old")).ok();
    host.k("wait --for=condition=Ready pod/old --timeout=90s").ok();

    // Both reach the node, whichever the agent has joined by, and nobody does in the ordinary way.
    run(second.0.inside("curl").args(["-sk", "--max-time", "2", &format!("https://{}:10250/healthz", agent.ip)]))
        .fails();
    reached("the first server", |line| host.k(line), "old");
    reached("the second server", |line| second.k(line), "old");
    let connections = run(agent.inside("ss").args(["-Htn", "state", "established", "dport", "=", ":6443"])).ok();
    assert_eq!(connections.lines().count(), 2, "one to each server: {connections}");

    a_member_is_lost(&host, &second, &mut etcd);
    a_server_is_lost(&mut host, &second);

    // It comes back, and reaches the node as before.
    host.start_again();
    host.wait_api();
    reached("the first server", |line| host.k(line), "new");
    reached("the second server", |line| second.k(line), "new");
    a_server_falls_silent(&host, &second);
}
