//! Whose address a packet leaves with. Towards a pod of this node nothing needs hiding, since the answer comes back through
//! here anyway: clients of node ports keep their address there. Between pods nothing is ever hidden.

use super::{
    EXTERNAL, EXTERNAL_LOCAL, HAIRPIN, Layout, NODEPORTS, NODEPORTS_LOCAL, Setting, destination_was_translated, equals,
    goto, jump, proto, rule,
};
use crate::netproxy::net::{Cidr, Family, octets};
use crate::netproxy::nft::{Base, Chain, Compare, Conntrack, Expr, Hook, Kind, Meta, Set, Verdict};

pub fn chains(setting: &Setting) -> Vec<Chain> {
    let postrouting = Chain {
        name: "nat-postrouting".into(),
        base: Some(Base { kind: Kind::Nat, hook: Hook::Postrouting, priority: libc::NF_IP_PRI_NAT_SRC }),
        rules: postrouting(setting),
    };
    let chain = |name: &str, rules| Chain { name: name.into(), base: None, rules };
    vec![
        chain("masquerade-services", services(setting)),
        chain("leave-node", leave_node(setting)),
        chain("enter-pod", enter_pod(setting)),
        postrouting,
    ]
}

fn postrouting(setting: &Setting) -> Vec<Vec<Expr>> {
    let l = Layout { family: setting.family };
    let hairpin = vec![l.source(0), l.destination(l.address()), Expr::Member { set: HAIRPIN.name, key: 0 }];
    let overlay = format!("{}-", setting.interface_prefix);
    vec![
        rule([destination_was_translated(), hairpin, as_node(setting)]),
        rule([output_name(&overlay), goto("leave-node")]),
        rule([output_name(&setting.interface_prefix), goto("enter-pod")]),
        goto("leave-node"),
    ]
}

/// The node's own call of a node port on localhost.
fn enter_pod(setting: &Setting) -> Vec<Vec<Expr>> {
    let l = Layout { family: setting.family };
    vec![rule([l.source_in(l.loopback()), as_node(setting)])]
}

fn leave_node(setting: &Setting) -> Vec<Vec<Expr>> {
    let l = Layout { family: setting.family };
    let mut rules = vec![rule([destination_was_translated(), jump("masquerade-services")])];
    if setting.own_pods {
        // Group addresses belong to the link, and a router beyond it may know the sender.
        let to_outside = || rule([l.destination_not_in(setting.cluster), l.destination_not_in(multicast(l.family))]);
        rules.push(rule([l.source_in(setting.cluster), to_outside(), hide()]));
        // Others to a pod elsewhere: the answer must come back through here, not by the pod's node's own way.
        rules.push(rule([l.source_not_in(setting.cluster), l.destination_in(setting.cluster), hide()]));
    }
    rules
}

/// As kube-proxy does: Service addresses for callers outside of the pod network, external addresses and node ports for
/// everybody but where externalTrafficPolicy is Local: there callers from outside are sent to pods of this node only, and
/// pods are known everywhere.
fn services(setting: &Setting) -> Vec<Vec<Expr>> {
    let l = Layout { family: setting.family };
    let was = |map: &'static Set| vec![Expr::Lookup { map: map.name, key: 0, into: 0 }];
    let original_node_front = || vec![proto(0), Expr::Conntrack { key: Conntrack::OriginalDestinationPort, into: 1 }];
    let was_cluster_ip = {
        let original = Expr::Conntrack { key: Conntrack::OriginalDestination, into: 0 };
        l.inside(original, setting.services, Compare::Equal)
    };
    let keep = || rule([not_from_this_node(), vec![Expr::Verdict(Verdict::Return)]]);
    vec![
        rule([was_cluster_ip, l.source_not_in(setting.cluster), hide()]),
        rule([l.original_front(), was(&EXTERNAL_LOCAL), keep()]),
        rule([l.original_front(), was(&EXTERNAL), hide()]),
        rule([original_node_front(), was(&NODEPORTS_LOCAL), keep()]),
        rule([original_node_front(), was(&NODEPORTS), hide()]),
    ]
}

/// With the address of the interface it leaves by.
fn hide() -> Vec<Expr> {
    vec![Expr::Masquerade]
}

fn as_node(setting: &Setting) -> Vec<Expr> {
    vec![Expr::Immediate { into: 0, value: octets(setting.node).into() }, Expr::SourceNat { address: 0 }]
}

fn not_from_this_node() -> Vec<Expr> {
    vec![
        Expr::AddressType { source: true, into: 0 },
        equals(0, Compare::NotEqual, u32::from(libc::RTN_LOCAL).to_ne_bytes()),
    ]
}

fn multicast(family: Family) -> Cidr {
    match family {
        Family::V4 => Cidr::new([224, 0, 0, 0].into(), 4),
        Family::V6 => Cidr::new([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    }
}

fn output_name(prefix: &str) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::OutputName, into: 0 }, equals(0, Compare::Equal, prefix.as_bytes())]
}
