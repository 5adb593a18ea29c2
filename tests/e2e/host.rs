//! A host with a kedge server, and a client beside it: a namespace of its own that holds the link (a bridge) which
//! server, client and further hosts are on, and is everybody's default route.

use crate::agent::Agent;
pub use crate::machine::kedge;
use crate::machine::{Machine, enter, tail};
use crate::run::{Outcome, eventually, run, sh};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Seconds that a start may take here before a test gives up; generous because CI shares two cores.
pub const START_SECONDS: u64 = 90;

pub struct Host {
    machine: Machine,
    flags: Vec<String>,
    link: Link,
}

/// The namespace of the client and of the bridge `br0`. Goes with its last machine.
struct Link {
    namespace: String,
    keep: bool,
}

impl Host {
    pub const IP: &'static str = "10.99.0.1";
    pub const CLIENT_IP: &'static str = "10.99.0.2";

    /// A host with nothing running.
    pub fn new() -> Host {
        assert!(nix::unistd::geteuid().is_root(), "the end-to-end tests need root: run ./test.sh as root");
        let id = format!("ke{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let link = Link { namespace: format!("{id}c"), keep: std::env::var_os("KEDGE_E2E_KEEP").is_some() };
        sh(&format!(
            "ip netns add {l}; ip -n {l} link set lo up
             ip -n {l} link add br0 address {mac} type bridge; ip -n {l} addr add {client}/24 dev br0; ip -n {l} link set br0 up",
            l = link.namespace,
            client = Host::CLIENT_IP,
            // One of its own: else it changes as hosts are plugged in, and who is there already calls the old one.
            mac = "02:99:00:00:00:02",
        ))
        .ok();
        link.plug(&id, Host::IP);
        Host { machine: Machine::new(&id), flags: Vec::new(), link }
    }

    /// A host with a server (and the test image), its node Ready.
    pub fn ready() -> Host {
        let mut host = Host::new();
        host.import();
        host.start(&[]);
        host.wait_ready();
        host
    }

    /// A host with a server with these flags, and one beside it that has joined; both Ready.
    pub fn and_second(flags: &[&str]) -> (Host, Agent) {
        let mut host = Host::new();
        host.import();
        host.start(flags);
        host.wait_ready();
        let mut second = host.beside(2);
        second.import();
        second.join(&host, &[]);
        host.wait_node(&second.name);
        (host, second)
    }

    /// A host with a server without an agent.
    pub fn api_only() -> Host {
        let mut host = Host::new();
        host.start(&["--disable-agent"]);
        host.wait_api();
        host
    }

    /// A second, third… host on the same link, with nothing running: `node-<n>` with address 10.99.0.1<n>.
    pub fn beside(&self, n: u8) -> Agent {
        let id = format!("{}a{n}", self.id());
        let ip = format!("10.99.0.1{n}");
        self.link.plug(&id, &ip);
        Agent::new(Machine::new(&id), &format!("node-{n}"), &ip)
    }

    /// A host behind a router that translates addresses and lets nothing in: `node-<n>` with address 10.98.<n>.2.
    pub fn behind_nat(&self, n: u8) -> Agent {
        let (id, router) = (format!("{}a{n}", self.id()), format!("{}r{n}", self.id()));
        self.link.plug(&router, &format!("10.99.0.2{n}"));
        let (inside, gateway) = (format!("10.98.{n}.2"), format!("10.98.{n}.1"));
        sh(&format!(
            "ip netns add {id}
             ip link add eth0 netns {id} type veth peer name lan netns {router}
             ip -n {id} link set lo up; ip -n {id} addr add {inside}/24 dev eth0; ip -n {id} link set eth0 up
             ip -n {router} addr add {gateway}/24 dev lan; ip -n {router} link set lan up
             ip -n {id} route add default via {gateway}
             ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1
             ip netns exec {router} nft 'add table ip nat
                add chain ip nat out {{ type nat hook postrouting priority 100; }}
                add rule ip nat out oifname eth0 masquerade
                add chain ip nat way {{ type filter hook forward priority 0; policy drop; }}
                add rule ip nat way iifname lan accept
                add rule ip nat way ct state established,related accept'"
        ))
        .ok();
        let mut agent = Agent::new(Machine::new(&id), &format!("node-{n}"), &inside);
        agent.also_remove(&router);
        agent
    }

    /// Pull the cable of a host on the link.
    pub fn cut(&self, ip: &str) {
        sh(&format!("ip -n {} link set {} down", self.link.namespace, port(ip))).ok();
    }

    /// Plug it in again.
    pub fn mend(&self, ip: &str) {
        sh(&format!("ip -n {} link set {} up", self.link.namespace, port(ip))).ok();
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig.yaml")
    }

    /// `kedge server` with these further flags, as a command in the node's namespace.
    pub fn server_command(&self, flags: &[&str]) -> Command {
        let mut command = self.daemon("server");
        command
            .arg(format!("--write-kubeconfig={}", self.kubeconfig().display()))
            .arg("--node-name=node-1")
            .args(flags);
        command
    }

    pub fn start(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        let command = self.server_command(flags);
        self.spawn(command);
    }

    /// The same server again.
    pub fn start_again(&mut self) {
        let flags = self.flags.clone();
        self.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[track_caller]
    pub fn wait_api(&self) {
        eventually("API ready", START_SECONDS, || self.kubectl(&["get", "--raw", "/readyz"]).result());
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        self.wait_api();
        self.wait_node("node-1");
    }

    /// Wait until a node is Ready.
    #[track_caller]
    pub fn wait_node(&self, name: &str) {
        // `kubectl wait` refuses at once while the Node object is not there yet.
        eventually("node registered", START_SECONDS, || self.kubectl(&["get", "node", name]).result());
        let node = format!("node/{name}");
        let outcome = self.kubectl(&["wait", "--for=condition=Ready", &node, "--timeout=90s"]);
        assert!(outcome.ok, "{name} not Ready: {}\n{}", outcome.stderr, tail(&self.log()));
    }

    /// The token that nodes join with, in the form that pins the CA.
    pub fn token(&self) -> String {
        let file = self.data_dir().join("server/node-token");
        std::fs::read_to_string(file).expect("node-token").trim().to_owned()
    }

    /// kedge's other commands with the cluster's kubeconfig.
    pub fn kedge_with_config(&self, args: &[&str]) -> Outcome {
        run(self.inside(kedge()).args(args).arg(format!("--kubeconfig={}", self.kubeconfig().display())))
    }

    /// A command on the client beside the node.
    pub fn outside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        enter(&self.link.namespace, program)
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
}

impl Deref for Host {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Host {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

/// The bridge's port of a host. Names of interfaces have 15 characters at most.
fn port(ip: &str) -> String {
    format!("p{}", ip.rsplit('.').next().unwrap_or_default())
}

impl Link {
    /// A namespace with an interface on the link.
    fn plug(&self, id: &str, ip: &str) {
        let bridge = &self.namespace;
        let port = port(ip);
        sh(&format!(
            "ip netns add {id}
             ip link add eth0 netns {id} type veth peer name {port} netns {bridge}
             ip -n {bridge} link set {port} master br0 up
             ip -n {id} link set lo up; ip -n {id} addr add {ip}/24 dev eth0; ip -n {id} link set eth0 up
             ip -n {id} route add default via {gateway}",
            gateway = Host::CLIENT_IP,
        ))
        .ok();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.keep {
            sh(&format!("ip netns del {}", self.namespace));
        }
    }
}
