use super::*;

fn peer(name: &str, address: &str, pods: &[&str]) -> Peer {
    let pods = pods.iter().map(|p| p.parse().unwrap()).collect();
    Peer { name: name.into(), address: address.parse().unwrap(), pods, key: None }
}

fn here() -> Here {
    let near = "192.0.2.2".parse().unwrap();
    let far = "198.51.100.2".parse().unwrap();
    let router = Some("192.0.2.254".parse().unwrap());
    Here {
        name: "a".into(),
        address: "192.0.2.1".parse().unwrap(),
        pods: vec!["10.42.0.0/24".parse().unwrap()],
        cluster: vec!["10.42.0.0/16".parse().unwrap()],
        prefix: "kdg".into(),
        link_mtu: 1500,
        ways: [(near, Way { link: 2, via: None }), (far, Way { link: 2, via: router })].into(),
    }
}

/// Routes as people read them.
fn routes(wanted: &Wanted) -> Vec<String> {
    let show = |path: &Path| {
        let exit = match &path.exit {
            Exit::Device(name) => name.clone(),
            Exit::Link(link) => format!("link {link}"),
            Exit::Nowhere => "nowhere".into(),
        };
        let word = |name: &str, address: Option<IpAddr>| address.map(|a| format!(" {name} {a}")).unwrap_or_default();
        format!("{} → {exit}{}{}", path.to, word("via", path.via), word("from", path.source))
    };
    wanted.routes.iter().map(show).collect()
}

#[test]
fn vxlan_leads_through_one_device() {
    let wanted = plan(Backend::Vxlan, &here(), &[peer("b", "192.0.2.2", &["10.42.1.0/24"])]);
    assert_eq!(routes(&wanted), ["10.42.1.0/24 → kdg-vxlan via 10.42.1.1 from 10.42.0.1", "10.42.0.0/16 → nowhere"]);
    let [Device { name, mtu, addresses, kind: Kind::Vxlan { vxlan, mac, neighbours, forwarding } }] =
        &wanted.devices[..]
    else {
        panic!("{wanted:?}")
    };
    assert_eq!((name.as_str(), *mtu, vxlan.id, vxlan.port), ("kdg-vxlan", 1450, 1, 8472));
    assert_eq!((addresses[0].to_string(), vxlan.local.to_string()), ("10.42.0.1".into(), "192.0.2.1".into()));
    let (gateway, theirs) = neighbours.first_key_value().unwrap();
    assert_eq!((gateway.to_string(), forwarding[theirs].to_string()), ("10.42.1.1".into(), "192.0.2.2".into()));
    assert_ne!(mac, theirs);
    // The other side makes the same of the names.
    let there = Here { name: "b".into(), address: "192.0.2.2".parse().unwrap(), ..here() };
    let back = plan(Backend::Vxlan, &there, &[peer("a", "192.0.2.1", &["10.42.0.0/24"])]);
    let [Device { kind: Kind::Vxlan { mac: own, .. }, .. }] = &back.devices[..] else { panic!("{back:?}") };
    assert_eq!(own, theirs);
}

#[test]
fn a_lone_node_has_no_device() {
    for backend in [Backend::Vxlan, Backend::HostGw] {
        let wanted = plan(backend, &here(), &[]);
        assert_eq!((wanted.devices.len(), routes(&wanted)), (0, vec!["10.42.0.0/16 → nowhere".to_owned()]));
    }
    assert_eq!(plan(Backend::None, &here(), &[peer("b", "192.0.2.2", &["10.42.1.0/24"])]), Wanted::default());
}

#[test]
fn host_gw_tells_of_nodes_beyond_a_router() {
    let peers = [peer("b", "192.0.2.2", &["10.42.1.0/24"]), peer("c", "198.51.100.2", &["10.42.2.0/24"])];
    let wanted = plan(Backend::HostGw, &here(), &peers);
    assert_eq!(
        routes(&wanted),
        [
            "10.42.2.0/24 → kdg-vxlan via 10.42.2.1 from 10.42.0.1",
            "10.42.1.0/24 → link 2 via 192.0.2.2",
            "10.42.0.0/16 → nowhere"
        ]
    );
    assert_eq!(wanted.problems.iter().map(|p| (p.node.as_str(), p.reason)).collect::<Vec<_>>(), [("c", "NotOnLink")]);
}

#[test]
fn wireguard_needs_keys() {
    let key = wireguard::Key([7; 32]);
    let with_key = Peer { key: Some(key), ..peer("b", "192.0.2.2", &["10.42.1.0/24"]) };
    let wanted = plan(Backend::WireGuard, &here(), &[with_key, peer("c", "192.0.2.3", &["10.42.2.0/24"])]);
    assert_eq!(routes(&wanted), ["10.42.1.0/24 → kdg-wg from 10.42.0.1", "10.42.0.0/16 → nowhere"]);
    let [Device { mtu: 1420, kind: Kind::WireGuard { port: 51820, peers }, .. }] = &wanted.devices[..] else {
        panic!("{wanted:?}")
    };
    assert_eq!(peers[&key].endpoint.to_string(), "192.0.2.2:51820");
    assert_eq!(
        wanted.problems.iter().map(|p| (p.node.as_str(), p.reason)).collect::<Vec<_>>(),
        [("c", "NoWireGuardKey")]
    );
}

#[test]
fn families_that_this_node_lacks_are_left_out() {
    let six = peer("b", "192.0.2.2", &["10.42.1.0/24", "fd00:1::/64"]);
    let dual = Here { pods: vec!["10.42.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()], ..here() };
    assert_eq!(plan(Backend::Vxlan, &here(), std::slice::from_ref(&six)).routes.len(), 2);
    let wanted = plan(Backend::Vxlan, &dual, &[six]);
    assert!(routes(&wanted).contains(&"fd00:1::/64 → kdg-vxlan via fd00:1::1 from fd00::1".to_owned()), "{wanted:?}");
}

#[test]
fn backends_have_names() {
    for (name, backend) in NAMES {
        assert_eq!((name.parse(), backend.to_string()), (Ok(*backend), (*name).to_owned()));
        assert_eq!(serde_json::to_value(backend).unwrap(), *name);
    }
    assert_eq!("ipip".parse::<Backend>(), Err(NoSuchBackend));
}

#[test]
fn mtus() {
    for (backend, mtu) in [(Backend::Vxlan, 1450), (Backend::WireGuard, 1420), (Backend::HostGw, 1500)] {
        assert_eq!(backend.pod_mtu(1500, [192, 0, 2, 1].into()), mtu, "{backend}");
    }
    assert_eq!(Backend::Vxlan.pod_mtu(1500, "2001:db8::1".parse().unwrap()), 1430);
}
