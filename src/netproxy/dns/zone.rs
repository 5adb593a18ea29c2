//! The cluster's own names, answered from the caches of Services and EndpointSlices. The names are those of the
//! Kubernetes DNS specification 1.1.0.

use crate::cache::{Cache, Index};
use crate::netproxy::endpoints;
use crate::netproxy::net::Cidr;
use crate::netproxy::proxy::by_service;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// How long resolvers may keep our answers: endpoints come and go.
pub const TTL_SECONDS: u32 = 5;
/// Version of the specification, told as `dns-version.<domain>`.
const SPECIFICATION: &str = "1.1.0";
/// Addresses in one answer; of more, the first.
const MAX_RECORDS: usize = 1000;

/// What the zone says of a question.
#[derive(Debug, PartialEq)]
pub enum Said {
    Found {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// An alias of a name; the rest of the answer is to be found there.
    Alias(Box<Record>, Name),
    /// The name exists, not with this type.
    NoData,
    NoSuchName,
    /// Not ours.
    Elsewhere,
    /// Ours, but the caches are not filled yet.
    NotYet,
}

/// The cluster's zone.
pub struct Zone {
    origin: Name,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    /// Reverse names of these are ours alone.
    networks: Vec<Cidr>,
}

/// Services by their cluster IPs.
fn by_cluster_ip() -> Index<Service> {
    Index {
        name: "cluster-ip",
        values: |service| {
            let spec = service.spec.as_ref();
            let ips = spec.and_then(|s| s.cluster_ips.clone()).unwrap_or_default();
            let first = spec.and_then(|s| s.cluster_ip.clone());
            ips.into_iter().chain(first).filter(|ip| ip != "None").collect::<BTreeSet<_>>().into_iter().collect()
        },
    }
}

/// Slices by the addresses of their endpoints.
fn by_address() -> Index<EndpointSlice> {
    Index {
        name: "address",
        values: |slice| {
            let addresses = slice.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned());
            addresses.collect::<BTreeSet<_>>().into_iter().collect()
        },
    }
}

impl Zone {
    pub fn new(
        domain: &str,
        services: Cache<Service>,
        slices: Cache<EndpointSlice>,
        networks: Vec<Cidr>,
    ) -> Result<Self, hickory_proto::ProtoError> {
        let mut origin = Name::from_ascii(domain.trim_end_matches('.'))?.to_lowercase();
        origin.set_fqdn(true);
        Ok(Zone { origin, services, slices, networks })
    }

    /// The record that comes with "no such name" and "no data", and says how long to believe them (RFC 2308).
    pub fn soa(&self) -> Record {
        let below = |labels: &[&str]| {
            let name = labels.iter().rev().try_fold(self.origin.clone(), |name, label| name.prepend_label(*label));
            name.unwrap_or_else(|_| self.origin.clone())
        };
        let serial = self.services.revision().max(self.slices.revision()) as u32;
        let soa = SOA::new(below(&["ns", "dns"]), below(&["hostmaster"]), serial, 7200, 1800, 86400, TTL_SECONDS);
        Record::from_rdata(self.origin.clone(), TTL_SECONDS, RData::SOA(soa))
    }

    pub fn answer(&self, name: &Name, kind: RecordType) -> Said {
        if let Some(said) = self.reverse(name, kind) {
            return said;
        }
        if !self.origin.zone_of(name) {
            return Said::Elsewhere;
        }
        if !(self.services.is_synced() && self.slices.is_synced()) {
            return Said::NotYet;
        }
        let depth = usize::from(name.num_labels() - self.origin.num_labels());
        let labels: Option<Vec<String>> =
            name.iter().take(depth).map(|l| String::from_utf8(l.to_ascii_lowercase()).ok()).collect();
        let Some(labels) = labels else { return Said::NoSuchName };
        // Nearest to the origin first.
        let labels: Vec<&str> = labels.iter().rev().map(String::as_str).collect();
        match labels[..] {
            [] => self.apex(name, kind),
            ["dns-version"] => {
                only(RecordType::TXT, kind, || vec![record(name, RData::TXT(TXT::new(vec![SPECIFICATION.into()])))])
            }
            ["dns", "ns"] | ["svc"] | ["pod"] | ["dns"] => Said::NoData,
            ["svc", namespace] => self.namespace(namespace),
            ["pod", namespace] => self.namespace(namespace),
            ["pod", namespace, address] => self.pod(name, kind, namespace, address),
            ["svc", namespace, service, ref rest @ ..] => self.service(name, kind, namespace, service, rest),
            _ => Said::NoSuchName,
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Said {
        match kind {
            RecordType::SOA => found(vec![self.soa()]),
            RecordType::NS => {
                let server = name.prepend_label("dns").and_then(|n| n.prepend_label("ns"));
                server.map_or(Said::NoData, |server| found(vec![record(name, RData::NS(NS(server)))]))
            }
            _ => Said::NoData,
        }
    }

    /// A namespace is a name of its own when something is in it.
    fn namespace(&self, namespace: &str) -> Said {
        if self.services.list_in(namespace).is_empty() { Said::NoSuchName } else { Said::NoData }
    }

    /// `1-2-3-4.<namespace>.pod`: the address that the name says.
    fn pod(&self, name: &Name, kind: RecordType, namespace: &str, address: &str) -> Said {
        let v4 = address.replace('-', ".").parse::<std::net::Ipv4Addr>().map(IpAddr::from);
        let parsed = v4.or_else(|_| address.replace('-', ":").parse::<std::net::Ipv6Addr>().map(IpAddr::from));
        match parsed {
            Ok(address) if !namespace.is_empty() => addresses(name, kind, [address]),
            _ => Said::NoSuchName,
        }
    }

    fn service(&self, name: &Name, kind: RecordType, namespace: &str, service: &str, rest: &[&str]) -> Said {
        let Some(object) = self.services.get(namespace, service) else { return Said::NoSuchName };
        let Some(spec) = &object.spec else { return Said::NoSuchName };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().and_then(|t| Name::from_ascii(t).ok());
            return match (target, rest) {
                (Some(mut target), []) => {
                    target.set_fqdn(true);
                    Said::Alias(Box::new(record(name, RData::CNAME(CNAME(target.clone())))), target)
                }
                _ => Said::NoSuchName,
            };
        }
        let view = View { zone: self, namespace, service, object: &object };
        match rest {
            [] if kind == RecordType::SRV => view.srv(name, None),
            [] => addresses(name, kind, view.addresses()),
            [protocol, port] if protocol.starts_with('_') => {
                view.port(name, kind, &port[1.min(port.len())..], &protocol[1..])
            }
            [protocol] if protocol.starts_with('_') => Said::NoData,
            [host] if view.is_headless() => view.host(name, kind, host),
            _ => Said::NoSuchName,
        }
    }

    /// Names under `in-addr.arpa` and `ip6.arpa`; None when they are not ours.
    fn reverse(&self, name: &Name, kind: RecordType) -> Option<Said> {
        let address = reversed(name)?;
        if !(self.services.is_synced() && self.slices.is_synced()) {
            return self.networks.iter().any(|n| n.contains(address)).then_some(Said::NotYet);
        }
        let targets = self.names_of(address);
        if targets.is_empty() {
            return self.networks.iter().any(|n| n.contains(address)).then_some(Said::NoSuchName);
        }
        Some(only(RecordType::PTR, kind, || targets.into_iter().map(|t| record(name, RData::PTR(PTR(t)))).collect()))
    }

    fn names_of(&self, address: IpAddr) -> Vec<Name> {
        let key = address.to_string();
        let services = self.services.by(&by_cluster_ip(), &key);
        let mut names: Vec<Name> = services
            .iter()
            .filter_map(|s| self.name_of(s.metadata.namespace.as_deref()?, s.metadata.name.as_deref()?, None))
            .collect();
        for slice in self.slices.by(&by_address(), &key) {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
            let endpoint = slice.endpoints.iter().flatten().find(|e| e.addresses.contains(&key));
            if let (Some(service), Some(endpoint), Some(namespace)) = (service, endpoint, &slice.metadata.namespace) {
                names.extend(self.name_of(namespace, service, Some(&host_label(endpoint, address))));
            }
        }
        names.truncate(MAX_RECORDS);
        names
    }

    fn name_of(&self, namespace: &str, service: &str, host: Option<&str>) -> Option<Name> {
        let base = self
            .origin
            .prepend_label("svc")
            .and_then(|n| n.prepend_label(namespace))
            .and_then(|n| n.prepend_label(service));
        match host {
            Some(host) => base.and_then(|n| n.prepend_label(host)).ok(),
            None => base.ok(),
        }
    }
}

/// One Service as its names see it.
struct View<'a> {
    zone: &'a Zone,
    namespace: &'a str,
    service: &'a str,
    object: &'a Service,
}

impl View<'_> {
    fn is_headless(&self) -> bool {
        self.object.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
    }

    fn cluster_ips(&self) -> Vec<IpAddr> {
        let spec = self.object.spec.as_ref();
        let all = spec.and_then(|s| s.cluster_ips.as_ref()).into_iter().flatten();
        let first = spec.and_then(|s| s.cluster_ip.as_ref());
        let parsed: BTreeSet<IpAddr> = all.chain(first).filter_map(|ip| ip.parse().ok()).collect();
        parsed.into_iter().collect()
    }

    fn slices(&self) -> Vec<Arc<EndpointSlice>> {
        self.zone.slices.by(&by_service(), &format!("{}/{}", self.namespace, self.service))
    }

    /// The cluster IPs; of a headless Service its endpoints.
    fn addresses(&self) -> Vec<IpAddr> {
        if !self.is_headless() {
            return self.cluster_ips();
        }
        let slices = self.slices();
        let all: BTreeSet<IpAddr> = ready(&slices).filter_map(|(_, e)| address_of(e)).collect();
        all.into_iter().collect()
    }

    /// `<host>.<service>`: an endpoint by its hostname, or by its address written with dashes.
    fn host(&self, name: &Name, kind: RecordType, host: &str) -> Said {
        let slices = self.slices();
        let named = ready(&slices).filter_map(|(_, e)| address_of(e).filter(|a| host_label(e, *a) == host));
        let found: BTreeSet<IpAddr> = named.collect();
        if found.is_empty() { Said::NoSuchName } else { addresses(name, kind, found) }
    }

    /// `_port._protocol.<service>`
    fn port(&self, name: &Name, kind: RecordType, port: &str, protocol: &str) -> Said {
        let ports = self.object.spec.iter().flat_map(|s| s.ports.iter().flatten());
        let mut same = ports.filter(|p| {
            p.name.as_deref() == Some(port) && p.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol)
        });
        match same.next() {
            Some(port) if kind == RecordType::SRV => self.srv(name, Some(port)),
            Some(_) => Said::NoData,
            None => Said::NoSuchName,
        }
    }

    /// SRV records of one port or of all, with the addresses of their targets.
    fn srv(&self, name: &Name, port: Option<&ServicePort>) -> Said {
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        let mut add = |target: Name, port: u16, addresses: &[IpAddr]| {
            answers.push(record(name, RData::SRV(SRV::new(0, 100, port, target.clone()))));
            let known = additionals.iter().any(|r: &Record| r.name == target);
            additionals.extend(addresses.iter().filter(|_| !known).map(|a| record(&target, rdata(*a))));
        };
        if self.is_headless() {
            let slices = self.slices();
            for (slice, endpoint) in ready(&slices).take(MAX_RECORDS) {
                let Some(address) = address_of(endpoint) else { continue };
                let Some(target) =
                    self.zone.name_of(self.namespace, self.service, Some(&host_label(endpoint, address)))
                else {
                    continue;
                };
                let wanted = slice.ports.iter().flatten().filter(|p| port.is_none_or(|port| p.name == port.name));
                for number in wanted.filter_map(|p| u16::try_from(p.port?).ok()) {
                    add(target.clone(), number, &[address]);
                }
            }
        } else if let Some(target) = self.zone.name_of(self.namespace, self.service, None) {
            let ports = self.object.spec.iter().flat_map(|s| s.ports.iter().flatten());
            for number in
                ports.filter(|p| port.is_none_or(|port| p == &port)).filter_map(|p| u16::try_from(p.port).ok())
            {
                add(target.clone(), number, &self.cluster_ips());
            }
        }
        if answers.is_empty() { Said::NoData } else { Said::Found { answers, additionals } }
    }
}

fn ready(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = (&EndpointSlice, &Endpoint)> {
    let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten().map(move |e| (&**s, e)));
    endpoints.filter(|(_, e)| endpoints::is_ready(e))
}

fn address_of(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

/// The pod's hostname when it has one, else its address with dashes.
fn host_label(endpoint: &Endpoint, address: IpAddr) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"))
}

fn rdata(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(a) => RData::A(A(a)),
        IpAddr::V6(a) => RData::AAAA(AAAA(a)),
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECONDS, data)
}

fn found(answers: Vec<Record>) -> Said {
    Said::Found { answers, additionals: Vec::new() }
}

/// The records if the question is for their type, else "no data".
fn only(have: RecordType, asked: RecordType, records: impl FnOnce() -> Vec<Record>) -> Said {
    if asked == have || asked == RecordType::ANY { found(records()) } else { Said::NoData }
}

fn addresses(name: &Name, kind: RecordType, all: impl IntoIterator<Item = IpAddr>) -> Said {
    let wanted = |a: &IpAddr| match kind {
        RecordType::A => a.is_ipv4(),
        RecordType::AAAA => a.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    let answers: Vec<_> = all.into_iter().filter(wanted).take(MAX_RECORDS).map(|a| record(name, rdata(a))).collect();
    if answers.is_empty() { Said::NoData } else { found(answers) }
}

/// The address that a complete reverse name stands for.
fn reversed(name: &Name) -> Option<IpAddr> {
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    if let Some(digits) = text.strip_suffix(".in-addr.arpa") {
        let turned: Vec<&str> = digits.rsplit('.').collect();
        return turned.join(".").parse::<std::net::Ipv4Addr>().ok().map(IpAddr::from);
    }
    let nibbles: Vec<&str> = text.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    let groups: Vec<String> = nibbles.chunks(4).map(|group| group.concat()).collect();
    let whole = nibbles.len() == 32 && nibbles.iter().all(|n| n.len() == 1);
    groups.join(":").parse::<std::net::Ipv6Addr>().ok().filter(|_| whole).map(IpAddr::from)
}

#[cfg(test)]
#[path = "zone_tests.rs"]
pub(super) mod tests;
