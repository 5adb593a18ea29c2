//! The rules of one node, written by [`Tables`] without anything around them.

use super::lab::{Namespace, PATIENCE, root};
use crate::cache::Key;
use crate::netproxy::cni::veth::Attachment;
use crate::netproxy::link::{Links, Route};
use crate::netproxy::net::{Cidr, Family};
use crate::netproxy::plan::{self, Here, HostPort};
use crate::netproxy::rules::Setting;
use crate::netproxy::state::Owner;
use crate::netproxy::tables::{self, Tables};
use crate::netproxy::{host, netns};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

const NODE: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";

/// A node with an uplink to a machine outside, and pods.
struct Node {
    ns: Namespace,
    outside: Namespace,
    tables: Tables,
    setting: Setting,
}

impl Node {
    /// None without root.
    fn new() -> Option<Self> {
        if !root() {
            return None;
        }
        let (ns, outside) = (Namespace::new(), Namespace::new());
        ns.wire("uplink", &outside, "far");
        for (namespace, link, address) in [(&ns, "uplink", NODE), (&outside, "far", OUTSIDE)] {
            namespace.ip(&format!("address add {address}/24 dev {link}"));
        }
        ns.ip(&format!("route add default via {OUTSIDE}"));
        let setting = Setting {
            family: Family::V4,
            cluster: "10.42.0.0/16".parse().unwrap(),
            services: "10.43.0.0/16".parse().unwrap(),
            node: NODE.parse().unwrap(),
            dns: Some("10.43.0.10".parse().unwrap()),
            interface_prefix: "kdg".into(),
            own_pods: true,
        };
        let settings = vec![setting.clone()];
        let tables = netns::within(&ns.path(), || {
            host::prepare(&settings, "kedge-test").map_err(io::Error::other)?;
            let mut tables = Tables::open("kedge-test", settings.clone())?;
            tables.apply()?;
            Ok(tables)
        })
        .unwrap();
        Some(Node { ns, outside, tables, setting })
    }

    fn pod(&mut self, id: &str, address: &str, host_ports: &[HostPort]) -> Namespace {
        let pod = Namespace::new();
        let address: IpAddr = address.parse().unwrap();
        let path = pod.path();
        netns::within(&self.ns.path(), || {
            let node = [self.setting.node];
            let attachment = Attachment {
                prefix: "kdg",
                container_id: id,
                netns: &path,
                ifname: "eth0",
                addresses: &[address],
                node: &node,
                mtu: 1400,
            };
            attachment.connect()?;
            attachment.check()
        })
        .unwrap();
        self.tables.replace(Family::V4, &Owner::Pod(id.into()), plan::pod(address, host_ports));
        self.apply();
        pod
    }

    /// Pods one (10.42.0.2), two (10.42.0.3), and a client (10.42.0.4).
    fn pods(&mut self) -> [Namespace; 3] {
        [("one", "10.42.0.2"), ("two", "10.42.0.3"), ("client", "10.42.0.4")].map(|(id, ip)| self.pod(id, ip, &[]))
    }

    fn apply(&mut self) {
        let tables = &mut self.tables;
        netns::within(&self.ns.path(), || tables.apply()).unwrap();
    }

    /// A Service with this spec and endpoints "address" or "address@node" at port 8080; named by its cluster IP.
    fn service(&mut self, spec: serde_json::Value, endpoints: &[&str]) {
        let (owner, plan) = self.plan(spec, endpoints);
        self.tables.replace(Family::V4, &owner, plan);
        self.apply();
    }

    fn plan(&self, spec: serde_json::Value, endpoints: &[&str]) -> (Owner, plan::Plan) {
        let name = spec["clusterIP"].as_str().unwrap().to_owned();
        let protocol = spec["ports"][0]["protocol"].as_str().unwrap_or("TCP").to_owned();
        let service: Service = serde_json::from_value(json!({
            "metadata": { "namespace": "default", "name": name }, "spec": spec,
            "status": { "loadBalancer": { "ingress": spec["ingress"] } },
        }))
        .unwrap();
        let endpoint = |text: &&str| {
            let (address, node) = text.split_once('@').unwrap_or((text, "here"));
            json!({ "addresses": [address], "nodeName": node, "conditions": { "ready": true } })
        };
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{ "name": "", "port": 8080, "protocol": protocol }],
        }))
        .unwrap();
        let here = Here { node_name: "here", zone: "", node_ip: self.setting.node, family: Family::V4 };
        (Owner::Service(Key::new("default", name)), plan::service(&service, &[Arc::new(slice)], here))
    }
}

fn port80() -> serde_json::Value {
    json!([{ "port": 80, "protocol": "TCP" }])
}

#[test]
fn services_reach_their_endpoints() {
    let Some(mut node) = Node::new() else { return };
    let [one, two, client] = node.pods();
    one.serve("one", 8080);
    two.serve("two", 8080);
    let spec = json!({ "type": "NodePort", "clusterIP": "10.43.0.80", "externalIPs": ["198.51.100.7"],
        "ports": [{ "port": 80, "nodePort": 30080 }] });
    node.service(spec.clone(), &["10.42.0.2", "10.42.0.3"]);

    assert_eq!(client.call("10.42.0.2:8080").unwrap(), "one 10.42.0.4", "pod to pod");
    let seen = client.spread("10.43.0.80:80", 40);
    assert!(seen.len() == 2 && seen.values().all(|n| *n >= 5), "balanced: {seen:?}");
    for (from, target) in [
        (&client, "10.43.0.80:80"),
        (&client, "192.0.2.1:30080"),
        (&client, "198.51.100.7:80"),
        (&one, "10.43.0.80:80"),
        (&node.ns, "10.43.0.80:80"),
        (&node.ns, "192.0.2.1:30080"),
        (&node.ns, "127.0.0.1:30080"),
        (&node.outside, "192.0.2.1:30080"),
    ] {
        assert_eq!(from.spread(target, 20).len(), 2, "{target}");
    }
    node.outside.ip("route add 198.51.100.7 via 192.0.2.1");
    assert_eq!(node.outside.spread("198.51.100.7:80", 20).len(), 2);
    let answer = node.outside.call("192.0.2.1:30080").unwrap();
    assert_eq!(answer.split(' ').nth(1), Some(OUTSIDE), "a pod of this node sees the caller's address");

    node.service(spec.clone(), &["10.42.0.2"]);
    assert_eq!(client.spread("10.43.0.80:80", 10), BTreeMap::from([("one".into(), 10)]));
    assert_eq!(one.call("10.43.0.80:80").unwrap(), "one 192.0.2.1", "a pod reaches itself, as the node");
    client.refused("10.43.0.80:81");
    client.refused("10.43.9.9:80");

    node.service(spec, &[]);
    for target in ["10.43.0.80:80", "192.0.2.1:30080", "198.51.100.7:80"] {
        client.refused(target);
    }
    node.ns.refused("10.43.0.80:80");
    node.outside.refused("192.0.2.1:30080");
}

#[test]
fn affinity_holds_until_its_endpoint_goes() {
    let Some(mut node) = Node::new() else { return };
    let [one, two, client] = node.pods();
    one.serve("10.42.0.2", 8080);
    two.serve("10.42.0.3", 8080);
    let spec = json!({ "clusterIP": "10.43.0.80", "sessionAffinity": "ClientIP", "ports": port80() });
    node.service(spec.clone(), &["10.42.0.2", "10.42.0.3"]);
    let seen = client.spread("10.43.0.80:80", 20);
    assert_eq!(seen.len(), 1, "{seen:?}");
    let (first, other) = match seen.keys().next().unwrap().as_str() {
        "10.42.0.2" => ("10.42.0.2", "10.42.0.3"),
        _ => ("10.42.0.3", "10.42.0.2"),
    };
    node.service(spec.clone(), &[other]);
    assert_eq!(client.spread("10.43.0.80:80", 5), BTreeMap::from([(other.into(), 5)]), "its endpoint went");
    node.service(spec, &[first, other]);
    assert_eq!(
        client.spread("10.43.0.80:80", 20),
        BTreeMap::from([(other.into(), 20)]),
        "and it stays with the new one"
    );
}

#[test]
fn local_policies_use_this_node_only() {
    let Some(mut node) = Node::new() else { return };
    let [one, two, client] = node.pods();
    one.serve("one", 8080);
    two.serve("two", 8080);
    // "two" counts as another node's.
    let spec = |external: &str, internal: &str| {
        json!({ "type": "NodePort", "clusterIP": "10.43.0.80", "externalTrafficPolicy": external,
            "internalTrafficPolicy": internal, "ports": [{ "port": 80, "nodePort": 30080 }] })
    };
    node.service(spec("Local", "Cluster"), &["10.42.0.2", "10.42.0.3@there"]);
    assert_eq!(node.outside.spread("192.0.2.1:30080", 20), BTreeMap::from([("one".into(), 20)]));
    assert_eq!(client.spread("192.0.2.1:30080", 20).len(), 2, "callers inside the cluster see all endpoints");
    node.service(spec("Local", "Local"), &["10.42.0.2", "10.42.0.3@there"]);
    assert_eq!(client.spread("10.43.0.80:80", 20), BTreeMap::from([("one".into(), 20)]));
    node.service(spec("Local", "Local"), &["10.42.0.3@there"]);
    assert_eq!(node.outside.call("192.0.2.1:30080").unwrap_err().kind(), io::ErrorKind::TimedOut, "dropped");
    client.refused("10.43.0.80:80");
    assert_eq!(client.spread("192.0.2.1:30080", 5).len(), 1);
}

#[test]
fn load_balancer_addresses_obey_source_ranges() {
    let Some(mut node) = Node::new() else { return };
    let one = node.pod("one", "10.42.0.2", &[]);
    one.serve("one", 8080);
    let spec = |range: &str| {
        json!({ "type": "LoadBalancer", "clusterIP": "10.43.0.80", "loadBalancerSourceRanges": [range],
            "ingress": [{ "ip": "192.0.2.1" }], "ports": port80() })
    };
    node.service(spec("192.0.2.0/28"), &["10.42.0.2"]);
    assert_eq!(node.outside.call("192.0.2.1:80").unwrap(), "one 192.0.2.2");
    node.service(spec("203.0.113.0/24"), &["10.42.0.2"]);
    assert_eq!(node.outside.call("192.0.2.1:80").unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn udp_leaves_an_endpoint_that_is_gone() {
    let Some(mut node) = Node::new() else { return };
    let [one, two, client] = node.pods();
    one.serve_udp("one", 8080);
    two.serve_udp("two", 8080);
    let spec = json!({ "type": "NodePort", "clusterIP": "10.43.0.80",
        "ports": [{ "port": 80, "nodePort": 30080, "protocol": "UDP" }] });
    for (from, target) in [(&client, "10.43.0.80:80"), (&client, "192.0.2.1:30080")] {
        node.service(spec.clone(), &["10.42.0.2"]);
        // One socket, so one connection to the kernel's memory.
        let socket = netns::within(&from.path(), || UdpSocket::bind(("0.0.0.0", 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = || {
            let mut buffer = [0; 64];
            socket.send_to(b"?", target).unwrap();
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(ask(), "one");
        node.service(spec.clone(), &["10.42.0.3"]);
        assert_eq!(ask(), "two", "{target}");
    }
}

#[test]
fn host_ports_lead_to_their_pod() {
    let Some(mut node) = Node::new() else { return };
    let tcp = |host_ip: Option<&str>, host_port| HostPort {
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        container_port: 8080,
        protocol: 6,
    };
    let one =
        node.pod("one", "10.42.0.2", &[tcp(None, 8000), tcp(Some("192.0.2.1"), 8001), tcp(Some("127.0.0.1"), 8002)]);
    let client = node.pod("client", "10.42.0.4", &[]);
    one.serve("one", 8080);
    for target in ["192.0.2.1:8000", "192.0.2.1:8001"] {
        assert_eq!(node.outside.call(target).unwrap(), "one 192.0.2.2");
        assert_eq!(client.call(target).unwrap(), "one 10.42.0.4");
        assert_eq!(one.call(target).unwrap(), "one 192.0.2.1", "itself");
    }
    assert_eq!(node.ns.call("127.0.0.1:8002").unwrap(), "one 192.0.2.1");
    node.outside.refused("192.0.2.1:8002");
    node.tables.replace(Family::V4, &Owner::Pod("one".into()), plan::Plan::default());
    node.apply();
    node.outside.refused("192.0.2.1:8000");
}

#[test]
fn pods_leave_the_cluster_as_the_node() {
    let Some(mut node) = Node::new() else { return };
    let client = node.pod("client", "10.42.0.4", &[]);
    node.outside.serve("outside", 8080);
    assert_eq!(client.call("192.0.2.2:8080").unwrap(), "outside 192.0.2.1");
    node.ns.serve("node", 8081);
    assert_eq!(client.call("192.0.2.1:8081").unwrap(), "node 10.42.0.4");
    // What listens on all addresses does not answer at the DNS address, and the node's loopback is its own.
    client.refused("10.43.0.10:8081");
    assert!(client.call("127.0.0.1:8081").is_err());
    let guarded = netns::within(&client.path(), || {
        let mut links = Links::open()?;
        let link = links.by_name("eth0")?.unwrap().index;
        let to: Cidr = "127.9.9.9/32".parse().unwrap();
        links.add_route(&Route { via: Some("169.254.1.1".parse().unwrap()), ..Route::to(to, link) })
    });
    let _ = guarded;
    assert!(client.call("127.9.9.9:8081").is_err());
}

#[test]
fn pods_pass_a_firewall_that_drops_what_is_forwarded() {
    let Some(mut node) = Node::new() else { return };
    let one = node.pod("one", "10.42.0.2", &[]);
    let two = node.pod("two", "10.42.0.3", &[]);
    one.serve("one", 8080);
    node.outside.serve("outside", 8080);
    // As Docker makes it.
    node.ns.run("iptables", "-P FORWARD DROP");
    assert!(two.call("10.42.0.2:8080").is_err() && two.call("192.0.2.2:8080").is_err());
    let admit = |tables: &mut Tables| netns::within(&node.ns.path(), || tables.pass_others()).unwrap();
    let passed = admit(&mut node.tables);
    assert_eq!(passed.now.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ip filter FORWARD"]);
    assert_eq!(admit(&mut node.tables), Default::default(), "once");
    assert!(two.call("10.42.0.2:8080").is_ok() && two.call("192.0.2.2:8080").is_ok());
    netns::within(&node.ns.path(), || tables::remove("kedge-test")).unwrap();
    assert!(!node.ns.run("nft", "list ruleset").contains("kedge-test"), "taken away again");
}

/// Prints how long a whole table of 10,000 Services with two endpoints takes, and one more Service after it.
#[test]
#[ignore = "measures"]
fn ten_thousand_services() {
    let Some(mut node) = Node::new() else { return };
    let spec = |n: u32| {
        let ip = std::net::Ipv4Addr::from(0x0a2b_0000 + n);
        json!({ "type": "NodePort", "clusterIP": ip.to_string(), "ports": [{ "port": 80, "nodePort": 30000 + n % 2767 }] })
    };
    let plans: Vec<_> = (256..10_256).map(|n| node.plan(spec(n), &["10.42.0.2", "10.42.0.3"])).collect();
    let start = std::time::Instant::now();
    for (owner, plan) in plans {
        node.tables.replace(Family::V4, &owner, plan);
    }
    println!("noted after {:?}", start.elapsed());
    node.tables.distrust();
    node.apply();
    println!("written whole after {:?}", start.elapsed());
    for n in 0..3 {
        let start = std::time::Instant::now();
        node.service(spec(20_000 + n), &["10.42.0.2", "10.42.0.3"]);
        println!("one more: {:?}", start.elapsed());
    }
    let start = std::time::Instant::now();
    node.service(spec(20_000), &["10.42.0.2", "10.42.0.3", "10.42.0.4"]);
    println!("an endpoint more (and a new chain): {:?}", start.elapsed());
}
