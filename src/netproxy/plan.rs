//! One Service and its EndpointSlices → what our table must hold for them. Pure.
//!
//! The rules are kube-proxy's (k8s.io docs "Virtual IPs and Service Proxies", KEP-2086 for internalTrafficPolicy).

use super::endpoints::{Endpoints, endpoints};
use super::net::{Cidr, Family, octets};
use super::nft::{Data, Set, Verdict};
use super::rules::{self, Balancer, Via};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The API's default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;

/// An element's place: set and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub set: &'static str,
    pub key: Box<[u8]>,
}

/// A chain that elements lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Balancer(Balancer),
    /// Load balancer source ranges.
    Firewall(Vec<Cidr>),
}

/// An address that clients speak UDP to: None is every address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Front {
    pub address: Option<IpAddr>,
    pub port: u16,
}

/// What the table must hold for one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub elements: BTreeMap<Place, Data>,
    pub chains: BTreeMap<String, Target>,
    /// Where UDP may go: connections to elsewhere that the kernel still tracks are stale.
    pub udp: BTreeMap<Front, BTreeSet<SocketAddr>>,
}

/// What must be known of the node.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub node_name: &'a str,
    /// `topology.kubernetes.io/zone` of the node; "" for none.
    pub zone: &'a str,
    pub node_ip: IpAddr,
    pub family: Family,
}

/// The plan of one Service; empty for one without cluster IP or that another proxy serves.
pub fn service(service: &Service, slices: &[Arc<EndpointSlice>], here: Here<'_>) -> Plan {
    let mut plan = Plan::default();
    let labels = service.metadata.labels.as_ref();
    if labels.is_some_and(|l| l.contains_key("service.kubernetes.io/service-proxy-name")) {
        return plan;
    }
    let (Some(cluster_ip), Some(spec)) = (cluster_ip(service, here.family), &service.spec) else { return plan };
    let fronts = Fronts::of(service, here.family);
    for port in spec.ports.iter().flatten() {
        if let (Some(proto), Ok(number)) = (protocol(port.protocol.as_deref()), u16::try_from(port.port)) {
            let work = PortWork { proto, number, cluster_ip, fronts: &fronts, here };
            work.plan(port, &endpoints(port, slices, here), &mut plan);
        }
    }
    plan
}

/// The plan of one pod of this node: it may reach itself through a Service.
pub fn pod(address: IpAddr, host_ports: &[HostPort]) -> Plan {
    let mut plan = Plan::default();
    plan.put(&rules::HAIRPIN, [octets(address), octets(address)].concat(), Data::None);
    for port in host_ports {
        let target = [octets(address), port_bytes(port.container_port)].concat();
        let key = [proto_bytes(port.protocol), port_bytes(port.host_port)].concat();
        match port.host_ip.filter(|ip| !ip.is_unspecified()) {
            None => plan.put(&rules::HOSTPORTS, key, Data::Value(target.into())),
            Some(ip) if Family::of(ip) == Family::of(address) => {
                plan.put(&rules::HOSTPORTS_BY_ADDRESS, [octets(ip), key].concat(), Data::Value(target.into()));
            }
            Some(_) => continue,
        }
        if i32::from(port.protocol) == libc::IPPROTO_UDP {
            let front = Front { address: port.host_ip.filter(|ip| !ip.is_unspecified()), port: port.host_port };
            plan.udp.entry(front).or_default().insert(SocketAddr::new(address, port.container_port));
        }
    }
    plan
}

/// A port of the node that leads to a pod (`ports[].hostPort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// IP protocol number of the API's name; TCP when absent.
pub fn protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP").to_ascii_uppercase().as_str() {
        "TCP" => Some(libc::IPPROTO_TCP as u8),
        "UDP" => Some(libc::IPPROTO_UDP as u8),
        "SCTP" => Some(libc::IPPROTO_SCTP as u8),
        _ => None,
    }
}

/// The cluster IP of a family; None for headless Services and ExternalName.
pub fn cluster_ip(service: &Service, family: Family) -> Option<IpAddr> {
    let spec = service.spec.as_ref()?;
    let first = spec.cluster_ip.iter();
    first.chain(spec.cluster_ips.iter().flatten()).filter_map(|ip| ip.parse().ok()).find(|ip| Family::of(*ip) == family)
}

/// How a Service is reached from outside, and under which rules.
struct Fronts {
    external: Vec<IpAddr>,
    balancers: Vec<IpAddr>,
    internal_local: bool,
    external_local: bool,
    affinity_seconds: u32,
    ranges: Vec<Cidr>,
    /// Names the chain of `ranges`.
    owner: String,
}

impl Fronts {
    fn of(service: &Service, family: Family) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let parsed = |ips: Vec<&String>| -> Vec<IpAddr> {
            ips.into_iter().filter_map(|ip| ip.parse().ok()).filter(|ip| Family::of(*ip) == family).collect()
        };
        let is_balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
        let ingress = status.into_iter().flatten().filter(|i| is_balancer && i.ip_mode.as_deref() != Some("Proxy"));
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let config =
            spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
        let seconds = u32::try_from(config.unwrap_or(AFFINITY_SECONDS)).unwrap_or(0);
        let ranges = spec.load_balancer_source_ranges.iter().flatten().filter_map(|r| r.trim().parse().ok());
        Fronts {
            external: parsed(spec.external_ips.iter().flatten().collect()),
            balancers: parsed(ingress.filter_map(|i| i.ip.as_ref()).collect()),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity_seconds: if sticky { seconds } else { 0 },
            ranges: ranges.filter(|_| is_balancer).collect(),
            owner: format!(
                "{}/{}",
                service.metadata.namespace.as_deref().unwrap_or_default(),
                service.metadata.name.as_deref().unwrap_or_default()
            ),
        }
    }

    /// The chain that lets only the listed sources through. Its name follows from what it says, so that a change of the
    /// ranges is another chain.
    fn firewall(&self) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(format!("{} {:?}", self.owner, self.ranges));
        format!("firewall-{}", digest.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>())
    }
}

struct PortWork<'a> {
    proto: u8,
    number: u16,
    cluster_ip: IpAddr,
    fronts: &'a Fronts,
    here: Here<'a>,
}

impl PortWork<'_> {
    fn plan(&self, port: &ServicePort, endpoints: &Endpoints, plan: &mut Plan) {
        let fronts = self.fronts;
        let node_port = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
        let reached_from_outside = node_port.is_some() || !fronts.external.is_empty() || !fronts.balancers.is_empty();
        if !fronts.internal_local || reached_from_outside {
            self.put_endpoints(plan, &endpoints.all, &rules::ENDPOINTS, &rules::STICKY);
        }
        if fronts.internal_local || (fronts.external_local && reached_from_outside) {
            self.put_endpoints(plan, &endpoints.local, &rules::ENDPOINTS_LOCAL, &rules::STICKY_LOCAL);
        }
        for local in endpoints.local.iter().map(SocketAddr::ip).filter(|ip| *ip != self.here.node_ip) {
            plan.put(&rules::HAIRPIN, [octets(local), octets(local)].concat(), Data::None);
        }
        self.cluster(endpoints, plan);
        for address in fronts.external.iter().chain(&fronts.balancers) {
            let key = self.front(*address);
            let maps = [&rules::EXTERNAL, &rules::EXTERNAL_LOCAL, &rules::NO_ENDPOINTS];
            self.outside(Via::External, maps, &key, endpoints, plan);
            self.udp(plan, Some(*address), self.number, endpoints);
        }
        if let Some(node_port) = node_port {
            let key = [proto_bytes(self.proto), port_bytes(node_port)].concat();
            let maps = [&rules::NODEPORTS, &rules::NODEPORTS_LOCAL, &rules::NO_ENDPOINTS_NODE];
            self.outside(Via::NodePort, maps, &key, endpoints, plan);
            self.udp(plan, None, node_port, endpoints);
        }
        if !fronts.ranges.is_empty() {
            let chain = fronts.firewall();
            for address in &fronts.balancers {
                plan.put(&rules::FIREWALL, self.front(*address), Data::Verdict(Verdict::Goto(chain.clone())));
            }
            plan.chains.insert(chain, Target::Firewall(fronts.ranges.clone()));
        }
    }

    /// The cluster IP. Without endpoints there is no element, and what keeps a Service address is rejected.
    fn cluster(&self, endpoints: &Endpoints, plan: &mut Plan) {
        let local = self.fronts.internal_local;
        let count = if local { endpoints.local.len() } else { endpoints.all.len() };
        if count > 0 {
            let balancer = self.balancer(Via::Cluster, local, count);
            plan.put(&rules::SERVICES, self.front(self.cluster_ip), Data::Value(balancer.class().into()));
            plan.lead_to(balancer);
        }
        self.udp(plan, Some(self.cluster_ip), self.number, endpoints);
    }

    /// An address or port that is reached from outside: callers inside the cluster see all endpoints, callers outside
    /// see this node's when the policy is Local.
    fn outside(&self, via: Via, maps: [&'static Set; 3], key: &[u8], endpoints: &Endpoints, plan: &mut Plan) {
        let [all, local, unserved] = maps;
        let mut lead = |map: &'static Set, balancer: Balancer| {
            let data = [self.front(self.cluster_ip), balancer.class().to_vec()].concat();
            plan.put(map, key, Data::Value(data.into()));
            plan.lead_to(balancer);
        };
        if endpoints.all.is_empty() {
            plan.put(unserved, key, Data::Verdict(Verdict::Goto(rules::REJECT.to_owned())));
            return;
        }
        lead(all, self.balancer(via, false, endpoints.all.len()));
        if self.fronts.external_local {
            lead(local, self.balancer(via, true, endpoints.local.len()));
            if endpoints.local.is_empty() {
                plan.put(unserved, key, Data::Verdict(Verdict::Drop));
            }
        }
    }

    fn put_endpoints(&self, plan: &mut Plan, endpoints: &[SocketAddr], map: &'static Set, sticky: &'static Set) {
        for (index, endpoint) in (0u32..).zip(endpoints) {
            let target = [octets(endpoint.ip()), port_bytes(endpoint.port())].concat();
            let key = [self.front(self.cluster_ip), index.to_ne_bytes().to_vec()].concat();
            if self.fronts.affinity_seconds > 0 {
                plan.put(sticky, [self.front(self.cluster_ip), target.clone()].concat(), Data::None);
            }
            plan.put(map, key, Data::Value(target.into()));
        }
    }

    fn balancer(&self, via: Via, local: bool, count: usize) -> Balancer {
        Balancer { via, local, count: count as u32, affinity_seconds: self.fronts.affinity_seconds }
    }

    fn front(&self, address: IpAddr) -> Vec<u8> {
        [octets(address), proto_bytes(self.proto), port_bytes(self.number)].concat()
    }

    fn udp(&self, plan: &mut Plan, address: Option<IpAddr>, port: u16, endpoints: &Endpoints) {
        if i32::from(self.proto) == libc::IPPROTO_UDP {
            let targets = endpoints.all.iter().chain(&endpoints.local).copied().collect();
            plan.udp.insert(Front { address, port }, targets);
        }
    }
}

impl Plan {
    fn put(&mut self, set: &'static Set, key: impl Into<Box<[u8]>>, data: Data) {
        self.elements.insert(Place { set: set.name, key: key.into() }, data);
    }

    fn lead_to(&mut self, balancer: Balancer) {
        self.chains.insert(balancer.name(), Target::Balancer(balancer));
    }
}

/// Ports and protocols fill four bytes of a concatenation.
fn port_bytes(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}

fn proto_bytes(proto: u8) -> Vec<u8> {
    vec![proto, 0, 0, 0]
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(in crate::netproxy) mod tests;
