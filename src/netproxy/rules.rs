//! What our nft table says: its sets, its fixed chains, and the chains that choose an endpoint.
//!
//! A packet meets a constant number of rules, however many Services there are: rules look the packet up in maps.
//!
//! ```text
//! services     cluster IP . proto . port           → flags . count
//! external     IP . proto . port                   → cluster IP . proto . port . flags . count
//! nodeports    proto . port                        → cluster IP . proto . port . flags . count
//! *-local      the same, for traffic from outside the cluster with externalTrafficPolicy Local
//! balance-*    flags . count                       → goto the chain that chooses among that many
//! endpoints    cluster IP . proto . port . index   → address . port
//! ```
//!
//! `cluster IP . proto . port` is the identity of a Service's port; a Service with several addresses has its endpoints
//! once. A chain that chooses exists for each *number* of endpoints in use (and each affinity time), not for each Service:
//! so a change of a Service is a change of elements and nothing else, and the kernel has no rules to check again.
//!
//! No packet mark is used: whether a connection must be masqueraded is read from its original destination, so nothing
//! can collide with the marks of others.

mod masquerade;

use super::net::{Cidr, Family, octets};
use super::nft::{Base, Chain, Compare, Conntrack, Expr, Field, Header, Hook, Kind, Meta, Register, Set, Verdict};
use std::net::IpAddr;

/// Clients remembered for session affinity, all Services together. When full, a new client is balanced without memory.
const AFFINITY_CLIENTS: u32 = 65_536;

use Field::{Address, Number, Port, Proto};

const fn map(name: &'static str, key: &'static [Field], data: &'static [Field]) -> Set {
    Set { name, key, data, dynamic: None }
}

const FRONT: &[Field] = &[Address, Proto, Port];
const NODE_FRONT: &[Field] = &[Proto, Port];
const CLASS: &[Field] = &[Number, Number];
const FRONT_AND_CLASS: &[Field] = &[Address, Proto, Port, Number, Number];
const ENDPOINT: &[Field] = &[Address, Port];

pub static SERVICES: Set = map("services", FRONT, CLASS);
pub static EXTERNAL: Set = map("external", FRONT, FRONT_AND_CLASS);
pub static EXTERNAL_LOCAL: Set = map("external-local", FRONT, FRONT_AND_CLASS);
pub static NODEPORTS: Set = map("nodeports", NODE_FRONT, FRONT_AND_CLASS);
pub static NODEPORTS_LOCAL: Set = map("nodeports-local", NODE_FRONT, FRONT_AND_CLASS);
pub static ENDPOINTS: Set = map("endpoints", &[Address, Proto, Port, Number], ENDPOINT);
pub static ENDPOINTS_LOCAL: Set = map("endpoints-local", &[Address, Proto, Port, Number], ENDPOINT);
/// Members of [`ENDPOINTS`] by value, of Services with affinity: is the remembered endpoint still one?
pub static STICKY: Set = Set { name: "sticky", key: &[Address, Proto, Port, Address, Port], data: &[], dynamic: None };
pub static STICKY_LOCAL: Set = Set { name: "sticky-local", ..STICKY };
/// Service port and client → endpoint; written by the rules themselves.
pub static AFFINITY: Set =
    Set { name: "affinity", key: &[Address, Proto, Port, Address], data: ENDPOINT, dynamic: Some(AFFINITY_CLIENTS) };
pub static AFFINITY_LOCAL: Set = Set { name: "affinity-local", ..AFFINITY };
pub static HOSTPORTS: Set = map("hostports", NODE_FRONT, ENDPOINT);
pub static HOSTPORTS_BY_ADDRESS: Set = map("hostports-by-address", FRONT, ENDPOINT);
/// Addresses that may reach themselves through a Service, twice each: source and destination.
pub static HAIRPIN: Set = Set { name: "hairpin", key: &[Address, Address], data: &[], dynamic: None };
/// Ports that nobody serves: what to do.
pub static NO_ENDPOINTS: Set = map("no-endpoints", FRONT, &[Field::Verdict]);
pub static NO_ENDPOINTS_NODE: Set = map("no-endpoints-node", NODE_FRONT, &[Field::Verdict]);
/// Load balancer addresses with source ranges: the chain that knows the ranges.
pub static FIREWALL: Set = map("firewall", FRONT, &[Field::Verdict]);

pub static BALANCE_SERVICES: Set = map("balance-services", CLASS, &[Field::Verdict]);
pub static BALANCE_EXTERNAL: Set = map("balance-external", CLASS, &[Field::Verdict]);
pub static BALANCE_NODEPORTS: Set = map("balance-nodeports", CLASS, &[Field::Verdict]);

pub static SETS: [&Set; 20] = [
    &SERVICES,
    &EXTERNAL,
    &EXTERNAL_LOCAL,
    &NODEPORTS,
    &NODEPORTS_LOCAL,
    &ENDPOINTS,
    &ENDPOINTS_LOCAL,
    &STICKY,
    &STICKY_LOCAL,
    &AFFINITY,
    &AFFINITY_LOCAL,
    &HOSTPORTS,
    &HOSTPORTS_BY_ADDRESS,
    &HAIRPIN,
    &NO_ENDPOINTS,
    &NO_ENDPOINTS_NODE,
    &FIREWALL,
    &BALANCE_SERVICES,
    &BALANCE_EXTERNAL,
    &BALANCE_NODEPORTS,
];

/// What the rules must know of this node and cluster, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub family: Family,
    pub cluster: Cidr,
    pub services: Cidr,
    pub node: IpAddr,
    pub dns: Option<IpAddr>,
    /// Start of the name of every pod's veth, and with a `-` behind it of the overlay's interface.
    pub interface_prefix: String,
    /// Pods are connected by us, not by another CNI plugin that hides their addresses itself.
    pub own_pods: bool,
}

/// Which lookup leads to a balancer: it decides how the chain finds the Service port's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    Cluster,
    External,
    NodePort,
}

/// The chain that chooses one of `count` endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Balancer {
    pub via: Via,
    /// Only endpoints on this node.
    pub local: bool,
    pub count: u32,
    /// Session affinity by client address; 0 is none.
    pub affinity_seconds: u32,
}

impl Balancer {
    pub fn name(&self) -> String {
        let via = match self.via {
            Via::Cluster => "cluster",
            Via::External => "external",
            Via::NodePort => "nodeport",
        };
        let local = if self.local { "-local" } else { "" };
        match self.affinity_seconds {
            0 => format!("{via}{local}-{}", self.count),
            seconds => format!("{via}{local}-{}-sticky-{seconds}", self.count),
        }
    }

    /// The map whose element leads to this chain.
    pub fn balance(&self) -> &'static Set {
        match self.via {
            Via::Cluster => &BALANCE_SERVICES,
            Via::External => &BALANCE_EXTERNAL,
            Via::NodePort => &BALANCE_NODEPORTS,
        }
    }

    /// `flags . count` as maps hold it. Distinct balancers of one `via` have distinct classes.
    pub fn class(&self) -> [u8; 8] {
        let flags = (self.affinity_seconds << 1) | u32::from(self.local);
        let mut class = [0; 8];
        class[..4].copy_from_slice(&flags.to_ne_bytes());
        class[4..].copy_from_slice(&self.count.to_ne_bytes());
        class
    }

    pub fn chain(&self, family: Family) -> Chain {
        let l = Layout { family };
        if self.count == 0 {
            // Known, but nobody here serves it: no translation, and the filter chains say what happens.
            return Chain { name: self.name(), base: None, rules: vec![vec![Expr::Verdict(Verdict::Accept)]] };
        }
        let (endpoints, sticky, affinity) = match self.local {
            false => (&ENDPOINTS, &STICKY, &AFFINITY),
            true => (&ENDPOINTS_LOCAL, &STICKY_LOCAL, &AFFINITY_LOCAL),
        };
        let chosen = l.chosen();
        let remembered = l.after_identity();
        let seconds = self.affinity_seconds;
        let choose = || {
            let random = Expr::Random { modulus: self.count, into: l.after_identity() };
            let mut rule = self.identity(l);
            rule.extend([random, Expr::Lookup { map: endpoints.name, key: 0, into: chosen }]);
            rule
        };
        let to = |address: Register| Expr::DestinationNat { address, port: address + l.address() };
        let mut rules = Vec::new();
        if seconds > 0 {
            let known = || {
                let mut rule = self.identity(l);
                rule.extend([
                    l.source(l.after_identity()),
                    Expr::Lookup { map: affinity.name, key: 0, into: remembered },
                    Expr::Member { set: sticky.name, key: 0 },
                ]);
                rule
            };
            // Seen lately and its endpoint is still there: renew, then go. Renewing is a rule of its own because client
            // and endpoint do not fit the registers together (IPv6). The value given with it counts only if the element
            // expired this instant, and then the check above refuses it next time.
            let mut renew = known();
            renew.extend([
                l.source(l.after_identity()),
                Expr::Remember { map: affinity.name, key: 0, data: 0, seconds },
            ]);
            let mut go = known();
            go.push(to(remembered));
            // New, or its endpoint went away: choose, and remember instead of what was.
            let mut first = choose();
            first.extend([
                l.source(l.after_identity()),
                Expr::Forget { map: affinity.name, key: 0, data: chosen },
                Expr::Remember { map: affinity.name, key: 0, data: chosen, seconds },
                to(chosen),
            ]);
            rules.extend([renew, go, first]);
        }
        // Without affinity, or its memory is full.
        let mut plain = choose();
        plain.push(to(chosen));
        rules.push(plain);
        Chain { name: self.name(), base: None, rules }
    }

    /// Load `cluster IP . proto . port` into the first registers.
    fn identity(&self, l: Layout) -> Vec<Expr> {
        let (mut rule, map) = match (self.via, self.local) {
            (Via::Cluster, _) => return l.front(),
            (Via::External, false) => (l.front(), &EXTERNAL),
            (Via::External, true) => (l.front(), &EXTERNAL_LOCAL),
            (Via::NodePort, false) => (l.node_front(), &NODEPORTS),
            (Via::NodePort, true) => (l.node_front(), &NODEPORTS_LOCAL),
        };
        rule.push(Expr::Lookup { map: map.name, key: 0, into: 0 });
        rule
    }
}

/// Where values lie in the registers: the identity of a Service port first, then what follows it in a key.
#[derive(Clone, Copy)]
pub(in crate::netproxy) struct Layout {
    pub family: Family,
}

impl Layout {
    /// Registers that an address takes.
    fn address(self) -> Register {
        (self.family.bytes() / 4) as Register
    }

    /// The first register behind `address . proto . port`.
    fn after_identity(self) -> Register {
        self.address() + 2
    }

    /// Where a chosen endpoint goes: behind identity and client address.
    fn chosen(self) -> Register {
        self.after_identity() + self.address()
    }

    fn source(self, into: Register) -> Expr {
        let (offset, length) = match self.family {
            Family::V4 => (12, 4),
            Family::V6 => (8, 16),
        };
        Expr::Payload { header: Header::Network, offset, length, into }
    }

    fn destination(self, into: Register) -> Expr {
        let (offset, length) = match self.family {
            Family::V4 => (16, 4),
            Family::V6 => (24, 16),
        };
        Expr::Payload { header: Header::Network, offset, length, into }
    }

    /// `daddr . proto . dport`
    fn front(self) -> Vec<Expr> {
        vec![self.destination(0), proto(self.address()), destination_port(self.address() + 1)]
    }

    /// `proto . dport`
    fn node_front(self) -> Vec<Expr> {
        vec![proto(0), destination_port(1)]
    }

    /// `daddr . proto . dport` of the connection's first packet, before translation.
    fn original_front(self) -> Vec<Expr> {
        let mut rule = vec![Expr::Conntrack { key: Conntrack::OriginalDestination, into: 0 }, proto(self.address())];
        rule.push(Expr::Conntrack { key: Conntrack::OriginalDestinationPort, into: self.address() + 1 });
        rule
    }

    fn inside(self, of: Expr, cidr: Cidr, how: Compare) -> Vec<Expr> {
        vec![of, Expr::Mask { register: 0, mask: cidr.mask().into() }, equals(0, how, octets(cidr.network))]
    }

    pub fn source_in(self, cidr: Cidr) -> Vec<Expr> {
        self.inside(self.source(0), cidr, Compare::Equal)
    }

    fn source_not_in(self, cidr: Cidr) -> Vec<Expr> {
        self.inside(self.source(0), cidr, Compare::NotEqual)
    }

    pub fn destination_in(self, cidr: Cidr) -> Vec<Expr> {
        self.inside(self.destination(0), cidr, Compare::Equal)
    }

    fn destination_not_in(self, cidr: Cidr) -> Vec<Expr> {
        self.inside(self.destination(0), cidr, Compare::NotEqual)
    }

    fn loopback(self) -> Cidr {
        match self.family {
            Family::V4 => Cidr { network: [127, 0, 0, 0].into(), prefix: 8 },
            Family::V6 => Cidr { network: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), prefix: 128 },
        }
    }
}

fn proto(into: Register) -> Expr {
    Expr::Meta { key: Meta::L4Proto, into }
}

fn destination_port(into: Register) -> Expr {
    Expr::Payload { header: Header::Transport, offset: 2, length: 2, into }
}

fn equals(register: Register, how: Compare, with: impl Into<Box<[u8]>>) -> Expr {
    Expr::Compare { register, how, with: with.into() }
}

/// The packet's destination is an address of this node.
fn to_this_node() -> Vec<Expr> {
    vec![
        Expr::AddressType { source: false, into: 0 },
        equals(0, Compare::Equal, u32::from(libc::RTN_LOCAL).to_ne_bytes()),
    ]
}

/// Bits of the connection's status and state (linux/netfilter/nf_conntrack_common.h).
const IPS_DST_NAT: u32 = 1 << 5;
const STATE_ESTABLISHED_RELATED: u32 = 2 | 4;

fn destination_was_translated() -> Vec<Expr> {
    vec![
        Expr::Conntrack { key: Conntrack::Status, into: 0 },
        Expr::Mask { register: 0, mask: IPS_DST_NAT.to_ne_bytes().into() },
        equals(0, Compare::NotEqual, [0; 4]),
    ]
}

fn established() -> Vec<Expr> {
    vec![
        Expr::Conntrack { key: Conntrack::State, into: 0 },
        Expr::Mask { register: 0, mask: STATE_ESTABLISHED_RELATED.to_ne_bytes().into() },
        equals(0, Compare::NotEqual, [0; 4]),
    ]
}

fn rule<const N: usize>(parts: [Vec<Expr>; N]) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}

fn goto(chain: &str) -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Goto(chain.to_owned()))]
}

fn jump(chain: &str) -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Jump(chain.to_owned()))]
}

pub const REJECT: &str = "reject";

/// Every chain but the balancers.
pub fn chains(setting: &Setting) -> Vec<Chain> {
    let mut chains = vec![reject_chain()];
    chains.extend(service_chains(setting));
    chains.extend(filter_chains(setting));
    chains.extend(masquerade::chains(setting));
    chains
}

/// TCP is reset rather than told by ICMP: the kernel limits ICMP errors to one a second for each caller, and sends none
/// at all for its own packets on a route through lo.
fn reject_chain() -> Chain {
    let tcp = vec![proto(0), equals(0, Compare::Equal, [libc::IPPROTO_TCP as u8]), Expr::Reject { tcp_reset: true }];
    Chain { name: REJECT.into(), base: None, rules: vec![tcp, vec![Expr::Reject { tcp_reset: false }]] }
}

/// Where a packet to a Service goes.
fn service_chains(setting: &Setting) -> Vec<Chain> {
    let l = Layout { family: setting.family };
    let class = l.after_identity();
    let cluster = vec![
        Expr::Lookup { map: SERVICES.name, key: 0, into: class },
        Expr::Dispatch { map: BALANCE_SERVICES.name, key: class },
    ];
    let found_in = |map: &'static Set, balance: &'static Set| {
        vec![Expr::Lookup { map: map.name, key: 0, into: 0 }, Expr::Dispatch { map: balance.name, key: class }]
    };
    let to = |map: &'static Set| {
        let target = Expr::DestinationNat { address: 0, port: l.address() };
        vec![Expr::Lookup { map: map.name, key: 0, into: 0 }, target]
    };
    let clusters = || rule([l.front(), cluster.clone()]);
    let external = |map| rule([l.front(), found_in(map, &BALANCE_EXTERNAL)]);
    let nodeport = |map| rule([to_this_node(), l.node_front(), found_in(map, &BALANCE_NODEPORTS)]);
    let host_address = || rule([to_this_node(), l.front(), to(&HOSTPORTS_BY_ADDRESS)]);
    let host = || rule([to_this_node(), l.node_front(), to(&HOSTPORTS)]);
    let from_inside = vec![clusters(), external(&EXTERNAL), nodeport(&NODEPORTS), host_address(), host()];
    let from_outside = vec![
        clusters(),
        external(&EXTERNAL_LOCAL),
        external(&EXTERNAL),
        nodeport(&NODEPORTS_LOCAL),
        nodeport(&NODEPORTS),
        host_address(),
        host(),
    ];
    let entry = vec![rule([l.source_in(setting.cluster), goto("from-inside")]), goto("from-outside")];
    let base = |hook| Some(Base { kind: Kind::Nat, hook, priority: libc::NF_IP_PRI_NAT_DST });
    vec![
        Chain { name: "from-inside".into(), base: None, rules: from_inside },
        Chain { name: "from-outside".into(), base: None, rules: from_outside },
        Chain { name: "nat-prerouting".into(), base: base(Hook::Prerouting), rules: entry },
        Chain { name: "nat-output".into(), base: base(Hook::Output), rules: vec![goto("from-inside")] },
    ]
}

/// What must not pass.
fn filter_chains(setting: &Setting) -> Vec<Chain> {
    let l = Layout { family: setting.family };
    let unserved = || rule([l.front(), vec![Expr::Dispatch { map: NO_ENDPOINTS.name, key: 0 }]]);
    let unserved_here =
        || rule([to_this_node(), l.node_front(), vec![Expr::Dispatch { map: NO_ENDPOINTS_NODE.name, key: 0 }]]);
    let pass_known = || rule([established(), vec![Expr::Verdict(Verdict::Accept)]]);
    // A packet that still bears a Service address found no endpoint.
    let service_address = || rule([l.destination_in(setting.services), goto(REJECT)]);
    let dns = |how| setting.dns.map(|dns| vec![l.destination(0), equals(0, how, octets(dns))]);
    let mut input = vec![pass_known(), unserved(), unserved_here()];
    let mut output = vec![pass_known(), unserved(), unserved_here()];
    if let Some(to_dns) = dns(Compare::Equal) {
        // The address is this node's, so everything that listens on all addresses would answer there.
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            let this_protocol = vec![proto(0), equals(0, Compare::Equal, [protocol as u8])];
            let not_dns = vec![destination_port(0), equals(0, Compare::NotEqual, 53u16.to_be_bytes())];
            input.push(rule([to_dns.clone(), this_protocol, not_dns, goto(REJECT)]));
        }
        output.push(rule([to_dns, vec![Expr::Verdict(Verdict::Accept)]]));
    }
    output.push(service_address());
    let from_pod = input_name(&setting.interface_prefix);
    // A pod's packet to 127.0.0.0/8: routing would let it in, because node ports on localhost need route_localnet.
    let guard = rule([from_pod, l.destination_in(l.loopback()), vec![Expr::Verdict(Verdict::Drop)]]);
    let firewall = rule([l.front(), vec![Expr::Dispatch { map: FIREWALL.name, key: 0 }]]);
    let base = |hook, priority| Some(Base { kind: Kind::Filter, hook, priority });
    vec![
        Chain { name: "guard".into(), base: base(Hook::Prerouting, libc::NF_IP_PRI_RAW), rules: vec![guard] },
        // Before translation, while the packet still bears the load balancer's address.
        Chain {
            name: "firewall-prerouting".into(),
            base: base(Hook::Prerouting, libc::NF_IP_PRI_NAT_DST - 10),
            rules: vec![rule([established(), vec![Expr::Verdict(Verdict::Accept)]]), firewall],
        },
        Chain { name: "input".into(), base: base(Hook::Input, libc::NF_IP_PRI_FILTER), rules: input },
        Chain {
            name: "forward".into(),
            base: base(Hook::Forward, libc::NF_IP_PRI_FILTER),
            rules: vec![pass_known(), unserved(), service_address()],
        },
        Chain { name: "output".into(), base: base(Hook::Output, libc::NF_IP_PRI_FILTER), rules: output },
    ]
}

/// The chain of a load balancer port with source ranges: the listed sources pass, others are dropped.
pub fn firewall_chain(name: String, family: Family, ranges: &[Cidr]) -> Chain {
    let l = Layout { family };
    let mut rules: Vec<_> = ranges
        .iter()
        .filter(|r| r.family() == family)
        .map(|range| rule([l.source_in(*range), vec![Expr::Verdict(Verdict::Return)]]))
        .collect();
    rules.push(vec![Expr::Verdict(Verdict::Drop)]);
    Chain { name, base: None, rules }
}

fn input_name(prefix: &str) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::InputName, into: 0 }, equals(0, Compare::Equal, prefix.as_bytes())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_suffice_for_ipv6() {
        let balancer = Balancer { via: Via::NodePort, local: true, count: 3, affinity_seconds: 10 };
        for rule in balancer.chain(Family::V6).rules {
            for expr in rule {
                let last = match expr {
                    Expr::DestinationNat { port, .. } => port,
                    Expr::Lookup { map, into, .. } => {
                        let data = SETS.iter().find(|s| s.name == map).unwrap().data;
                        into + (data.iter().map(|f| f.bytes(Family::V6)).sum::<usize>() / 4) as u8 - 1
                    }
                    _ => 0,
                };
                assert!(last < 16, "{expr:?}");
            }
        }
    }

    #[test]
    fn names_and_classes_are_distinct() {
        let all: Vec<_> = [false, true]
            .into_iter()
            .flat_map(|local| {
                [(1, 0), (2, 0), (1, 10), (2, 10_800)].map(|(count, affinity_seconds)| (local, count, affinity_seconds))
            })
            .map(|(local, count, affinity_seconds)| Balancer { via: Via::Cluster, local, count, affinity_seconds })
            .collect();
        let names: std::collections::HashSet<_> = all.iter().map(Balancer::name).collect();
        let classes: std::collections::HashSet<_> = all.iter().map(Balancer::class).collect();
        assert_eq!((names.len(), classes.len()), (all.len(), all.len()));
        let mut sets: Vec<_> = SETS.iter().map(|s| s.name).collect();
        sets.sort_unstable();
        sets.dedup();
        assert_eq!(sets.len(), SETS.len());
    }
}
