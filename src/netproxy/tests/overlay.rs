//! Several nodes on one switch, each with its network part and pods, and a machine outside of the cluster.

use super::lab::{
    EVENTS, FakeApi, NODES, Namespace, PATIENCE, Running, SERVICES, SLICES, config, node, root, service, slice, until,
};
use crate::netproxy::netns;
use crate::netproxy::overlay::{Backend, probe_wireguard};
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;
use tempfile::TempDir;

const OUTSIDE: &str = "192.0.2.200";

/// A switch; what is plugged into it lies in 192.0.2.0/24.
struct Switch {
    ns: Namespace,
}

impl Switch {
    fn new() -> Self {
        let ns = Namespace::new();
        ns.ip("link add br0 type bridge");
        ns.ip("link set br0 up");
        Switch { ns }
    }

    fn plug(&self, there: &Namespace, name: &str, address: &str) {
        let port = format!("port-{name}");
        self.ns.wire(&port, there, "uplink");
        self.ns.ip(&format!("link set {port} master br0"));
        there.ip(&format!("address add {address}/24 dev uplink"));
    }
}

/// A node whose network part runs.
struct Host {
    name: &'static str,
    ns: Namespace,
    dir: TempDir,
    address: String,
    running: Option<Running>,
}

impl Host {
    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn restart(&mut self, api: &FakeApi, backend: Backend) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        let config = config(self.name, &self.address, self.dir.path());
        self.running = Some(Running::start(api, &self.ns, crate::netproxy::Config { overlay: backend, ..config }));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(running) = self.running.take().filter(|_| !std::thread::panicking()) {
            running.stop();
        }
    }
}

/// Nodes "a" (192.0.2.1, pods 10.42.0.0/24), "b" (192.0.2.2, pods 10.42.1.0/24), … and a machine outside.
struct Cluster {
    api: FakeApi,
    switch: Switch,
    outside: Namespace,
    hosts: Vec<Host>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Cluster {
    /// None without root.
    fn new(count: usize, backend: Backend) -> Option<Self> {
        if !root() {
            return None;
        }
        let (api, switch, outside) = (FakeApi::new(), Switch::new(), Namespace::new());
        switch.plug(&outside, "out", OUTSIDE);
        let mut cluster = Cluster { api, switch, outside, hosts: Vec::new() };
        for name in &NAMES[..count] {
            let number = cluster.hosts.len();
            let ns = Namespace::new();
            let address = format!("192.0.2.{}", number + 1);
            cluster.switch.plug(&ns, name, &address);
            cluster.add(name, ns, address, backend);
        }
        Some(cluster)
    }

    fn add(&mut self, name: &'static str, ns: Namespace, address: String, backend: Backend) {
        self.api.put(NODES, node(name, &address, &format!("10.42.{}.0/24", self.hosts.len())));
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host { name, ns, dir, address, running: None };
        host.restart(&self.api, backend);
        self.hosts.push(host);
    }

    /// One pod on each node; each serves its node's name at port 8080.
    fn pods(&self) -> Vec<(Namespace, String)> {
        let pods: Vec<_> = self.hosts.iter().map(|host| host.running().pod("web")).collect();
        for (host, (pod, _)) in self.hosts.iter().zip(&pods) {
            pod.serve(host.name, 8080);
        }
        pods
    }

    /// A Service "web" at 10.43.0.80:80 and node port 30080, with endpoints "address@node".
    fn serve(&self, external_policy: &str, endpoints: &[&str]) {
        let mut web = service("web", "10.43.0.80");
        web["spec"]["type"] = json!("NodePort");
        web["spec"]["externalTrafficPolicy"] = json!(external_policy);
        web["spec"]["ports"][0]["nodePort"] = json!(30080);
        self.api.put(SERVICES, web);
        self.api.put(SLICES, slice("web", endpoints));
    }
}

fn answers(from: &Namespace, target: &str, expected: &str) {
    until(&format!("{target} answers {expected}"), || from.call(target).is_ok_and(|answer| answer == expected));
}

/// Send a datagram that may not be cut into pieces, of this many bytes with its IP and UDP headers.
fn send_whole(from: &Namespace, to: &str, packet_bytes: usize) -> io::Result<usize> {
    let socket = netns::within(&from.path(), || UdpSocket::bind("0.0.0.0:0"))?;
    let never_cut = libc::IP_PMTUDISC_DO;
    // SAFETY: the pointer and length describe a number that lives through the call; the descriptor is open.
    let set = unsafe {
        let length = size_of_val(&never_cut) as libc::socklen_t;
        let value = (&raw const never_cut).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value, length)
    };
    assert_eq!(set, 0);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&vec![0; packet_bytes - 28], to)?;
    socket.recv(&mut [0; 64])
}

/// Pods and nodes of all kinds of callers, whatever carries their packets.
fn everybody_reaches_everybody(cluster: &Cluster, mtu: usize) {
    let pods = cluster.pods();
    let [(pod_a, ip_a), (pod_b, ip_b)] = &pods[..2] else { unreachable!() };
    let (on_a, on_b) = (format!("{ip_a}:8080"), format!("{ip_b}:8080"));
    answers(pod_a, &on_b, &format!("b {ip_a}"));
    answers(pod_b, &on_a, &format!("a {ip_b}"));

    // A Service keeps the caller's address from pod to pod, on another node too.
    let there = format!("{ip_b}@b");
    cluster.serve("Cluster", &[&there]);
    answers(pod_a, "10.43.0.80:80", &format!("b {ip_a}"));
    // The node itself, to a pod and to a Service: some address that answers find back to.
    let node = &cluster.hosts[0].ns;
    until("the node reaches a pod elsewhere", || node.call(&on_b).is_ok());
    until("the node reaches a Service elsewhere", || node.call("10.43.0.80:80").is_ok());
    // From outside through the other node's port.
    let outside = &cluster.outside;
    until("node port of the other node", || outside.call("192.0.2.1:30080").is_ok_and(|a| a.starts_with("b ")));
    assert_eq!(outside.call("192.0.2.2:30080").unwrap(), format!("b {OUTSIDE}"), "of its own node: with its address");
    assert!(pod_a.call("192.0.2.2:30080").is_ok() && pod_a.call("192.0.2.1:30080").is_ok());

    cluster.serve("Local", &[&there]);
    until("nobody serves here", || outside.call("192.0.2.1:30080").is_err());
    assert_eq!(outside.call("192.0.2.2:30080").unwrap(), format!("b {OUTSIDE}"));
    assert_eq!(pod_a.call("192.0.2.1:30080").unwrap(), format!("b {ip_a}"), "a pod sees all endpoints, as itself");
    assert!(node.call("192.0.2.1:30080").is_ok(), "so does the node");

    // The largest packet passes, and pods know that none is larger.
    pod_b.serve_udp("b", 9000);
    let to = format!("{ip_b}:9000");
    assert!(send_whole(pod_a, &to, mtu).is_ok());
    let refused = send_whole(pod_a, &to, mtu + 1).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));

    // A pod that is gone: an answer at once, and nothing leaves for the default gateway.
    let gone = pod_a.call("10.42.1.250:8080").unwrap_err();
    let gone_far = pod_a.call("10.42.77.1:8080").unwrap_err();
    assert_eq!([gone.kind(), gone_far.kind()], [io::ErrorKind::HostUnreachable; 2]);
}

#[test]
fn vxlan_connects_nodes() {
    let Some(cluster) = Cluster::new(2, Backend::Vxlan) else { return };
    everybody_reaches_everybody(&cluster, 1450);
}

#[test]
fn host_gw_connects_nodes() {
    let Some(cluster) = Cluster::new(2, Backend::HostGw) else { return };
    everybody_reaches_everybody(&cluster, 1500);
    assert!(!cluster.hosts[0].ns.ip("link").contains("kdg-"), "no device");
    assert_eq!(cluster.api.list(EVENTS).len(), 0);
}

/// Needs a kernel with WireGuard; says so where there is none.
#[test]
fn wireguard_connects_nodes() {
    if !root() {
        return;
    }
    let here = Namespace::new();
    if let Err(error) = netns::within(&here.path(), || probe_wireguard("kdg").map_err(io::Error::other)) {
        return eprintln!("skipped: {error}");
    }
    let mut cluster = Cluster::new(2, Backend::WireGuard).unwrap();
    everybody_reaches_everybody(&cluster, 1420);
    let key = |api: &FakeApi| api.list(NODES)[0]["metadata"]["annotations"].clone();
    let before = key(&cluster.api);
    assert!(before.is_object());
    let api = cluster.api.clone();
    let (kept, address) = cluster.hosts[0].running().pod("kept");
    kept.serve("kept", 8080);
    cluster.hosts[0].restart(&api, Backend::WireGuard);
    let (client, client_address) = cluster.hosts[1].running().pod("client");
    answers(&client, &format!("{address}:8080"), &format!("kept {client_address}"));
    assert_eq!(key(&api), before, "the key is kept");
}

#[test]
fn nodes_beyond_a_router_are_told_and_reached() {
    let Some(mut cluster) = Cluster::new(1, Backend::HostGw) else { return };
    let (router, far) = (Namespace::new(), Namespace::new());
    cluster.switch.plug(&router, "router", "192.0.2.254");
    router.wire("second", &far, "uplink");
    router.ip("address add 198.51.100.1/24 dev second");
    router.run("sysctl", "-w net.ipv4.ip_forward=1");
    far.ip("address add 198.51.100.2/24 dev uplink");
    far.ip("route add default via 198.51.100.1");
    cluster.hosts[0].ns.ip("route add default via 192.0.2.254");
    cluster.add("b", far, "198.51.100.2".into(), Backend::HostGw);
    let pods = cluster.pods();
    answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
    until("told", || !cluster.api.list(EVENTS).is_empty());
    let events = cluster.api.list(EVENTS);
    assert!(events.iter().all(|e| e["reason"] == "NotOnLink"), "{events:?}");
}

#[test]
fn what_others_break_is_healed() {
    let Some(cluster) = Cluster::new(2, Backend::Vxlan) else { return };
    let pods = cluster.pods();
    let works = || answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
    works();
    let here = &cluster.hosts[0].ns;
    for damage in [
        "link delete kdg-vxlan",
        "link set kdg-vxlan down",
        "route delete 10.42.1.0/24",
        "neigh del 10.42.1.1 dev kdg-vxlan",
        "address flush dev kdg-vxlan",
        "link set kdg-vxlan mtu 1000",
        "route flush table main proto 107",
    ] {
        here.ip(damage);
        let broken = Instant::now();
        works();
        until(damage, || {
            let link = here.ip("address show dev kdg-vxlan");
            link.contains("mtu 1450")
                && link.contains("10.42.0.1/32")
                && here.ip("route").contains("unreachable 10.42.0.0/16")
        });
        println!("{damage}: healed after {:?}", broken.elapsed());
    }
    let entries = here.run("bridge", "fdb show dev kdg-vxlan");
    let entry = entries.lines().find(|l| l.contains("dst 192.0.2.2")).unwrap();
    here.run("bridge", &format!("fdb del {} dev kdg-vxlan dst 192.0.2.2", entry.split(' ').next().unwrap()));
    works();
}

#[test]
fn nodes_come_move_and_go() {
    let Some(mut cluster) = Cluster::new(1, Backend::Vxlan) else { return };
    let api = cluster.api.clone();
    assert!(!cluster.hosts[0].ns.ip("link").contains("kdg-vxlan"), "a lone node has no device");
    for name in ["b", "c"] {
        let (ns, address) = (Namespace::new(), format!("192.0.2.{}", cluster.hosts.len() + 1));
        cluster.switch.plug(&ns, name, &address);
        cluster.add(name, ns, address, Backend::Vxlan);
    }
    let pods = cluster.pods();
    answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
    answers(&pods[1].0, "10.42.2.2:8080", "c 10.42.1.2");

    // Another address, as after DHCP: the node's network part starts anew with it.
    let moved = &mut cluster.hosts[1];
    // The old one first: with it the kernel would drop every later one of the same network.
    moved.ns.ip("address delete 192.0.2.2/24 dev uplink");
    moved.ns.ip("address add 192.0.2.77/24 dev uplink");
    moved.address = "192.0.2.77".into();
    moved.restart(&api, Backend::Vxlan);
    api.put(NODES, node("b", "192.0.2.77", "10.42.1.0/24"));
    answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
    answers(&pods[1].0, "10.42.2.2:8080", "c 10.42.1.2");
    assert!(cluster.hosts[1].ns.call("10.42.1.2:8080").is_ok(), "the node's own pods too");

    // Another part of the pod network, as after `kubectl delete node`: pods made since are reached.
    api.put(NODES, node("b", "192.0.2.77", "10.42.9.0/24"));
    let b = &cluster.hosts[1];
    let mut made = Vec::new();
    until("new pods get new addresses", || {
        made.push(b.running().pod(&format!("late{}", made.len())));
        made.last().unwrap().1.starts_with("10.42.9.")
    });
    let (late, address) = made.last().unwrap();
    late.serve("late", 8080);
    answers(&pods[0].0, &format!("{address}:8080"), "late 10.42.0.2");
    let route = cluster.hosts[0].ns.ip("route");
    assert!(!route.contains("10.42.1.0/24"), "the old way is gone: {route}");

    // And nodes that go.
    api.delete(NODES, "b");
    until("no way to b", || !cluster.hosts[0].ns.ip("route").contains("10.42.9.0/24"));
    answers(&pods[0].0, "10.42.2.2:8080", "c 10.42.0.2");
    api.delete(NODES, "c");
    until("alone again", || !cluster.hosts[0].ns.ip("link").contains("kdg-vxlan"));
}

#[test]
fn leftovers_go_and_ways_stay_without_the_server() {
    let Some(mut cluster) = Cluster::new(2, Backend::Vxlan) else { return };
    let api = cluster.api.clone();
    let pods = cluster.pods();
    answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
    // Another backend takes the place of the first on both nodes; pods stay connected.
    for host in &mut cluster.hosts {
        host.restart(&api, Backend::HostGw);
    }
    until("no VXLAN", || !cluster.hosts[0].ns.ip("link").contains("kdg-vxlan"));
    answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
    // The machine starts anew while nobody answers the API.
    cluster.hosts[0].running.take().unwrap().stop();
    cluster.hosts[0].ns.ip("route flush table main proto 107");
    assert!(pods[0].0.call("10.42.1.2:8080").is_err());
    let silent = FakeApi::silent();
    cluster.hosts[0].restart(&silent, Backend::HostGw);
    answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
    cluster.hosts[0].restart(&api, Backend::None);
    until("nothing of ours", || !cluster.hosts[0].ns.ip("route").contains("10.42.1.0/24"));
}

#[test]
fn the_overlay_passes_a_firewall_that_drops_what_is_forwarded() {
    for backend in [Backend::Vxlan, Backend::HostGw] {
        let Some(mut cluster) = Cluster::new(2, backend) else { return };
        let pods = cluster.pods();
        cluster.serve("Cluster", &["10.42.1.2@b"]);
        let api = cluster.api.clone();
        for host in &mut cluster.hosts {
            host.ns.run("iptables", "-P FORWARD DROP");
            // Found at the start, else within half a minute.
            host.restart(&api, backend);
        }
        answers(&pods[0].0, "10.42.1.2:8080", "b 10.42.0.2");
        until("through a node port of the other node", || cluster.outside.call("192.0.2.1:30080").is_ok());
    }
}

/// Prints how many bytes a second one connection carries between pods: on one node, and on two with each backend.
#[test]
#[ignore = "measures"]
fn throughput() {
    for (backend, same_node) in [(Backend::HostGw, true), (Backend::HostGw, false), (Backend::Vxlan, false)] {
        let Some(cluster) = Cluster::new(2, backend) else { return };
        let (from, _) = cluster.hosts[0].running().pod("from");
        let (to, address) = cluster.hosts[usize::from(!same_node)].running().pod("to");
        until("reached", || measure(&from, &to, &address, 1 << 20).is_ok());
        let rate = measure(&from, &to, &address, 2 << 30).unwrap();
        println!("{backend}, {}: {rate:.2} Gbit/s", if same_node { "one node" } else { "two nodes" });
    }
}

fn measure(from: &Namespace, to: &Namespace, address: &str, bytes: usize) -> io::Result<f64> {
    let listener = netns::within(&to.path(), || TcpListener::bind("0.0.0.0:0"))?;
    let target: SocketAddr = format!("{address}:{}", listener.local_addr()?.port()).parse().unwrap();
    let mut out = netns::within(&from.path(), || TcpStream::connect_timeout(&target, PATIENCE))?;
    let (mut stream, _) = listener.accept()?;
    let block = vec![0; 1 << 17];
    let sender = crate::task::thread("sender", move || {
        let mut left = bytes;
        while left > 0 {
            left -= out.write(&block[..left.min(block.len())]).unwrap();
        }
    })?;
    let (start, mut buffer) = (Instant::now(), vec![0; 1 << 17]);
    let mut received = 0;
    while received < bytes {
        received += stream.read(&mut buffer)?;
    }
    sender.join().unwrap();
    Ok(received as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64())
}
