use super::*;
use crate::netproxy::plan::{HostPort, pod, tests::show};
use crate::netproxy::rules::{Balancer, Via};

fn state() -> State {
    State::new(Setting {
        family: Family::V4,
        cluster: "10.42.0.0/16".parse().unwrap(),
        services: "10.43.0.0/16".parse().unwrap(),
        node: "192.0.2.1".parse().unwrap(),
        dns: None,
        interface_prefix: "kdg".into(),
        own_pods: true,
    })
}

fn owner(name: &str) -> Owner {
    Owner::Pod(name.into())
}

/// A pod with host ports, as a plan that is easy to write down.
fn plan(address: &str, host_ports: &[u16]) -> Plan {
    let port = |host_port: &u16| HostPort { host_ip: None, host_port: *host_port, container_port: 80, protocol: 6 };
    pod(address.parse().unwrap(), &host_ports.iter().map(port).collect::<Vec<_>>())
}

/// The change as lines: `+` added, `-` dropped.
fn changes(state: &mut State) -> Vec<String> {
    let change = state.take_change();
    let of = |sign: &str, elements: &BTreeMap<&'static str, Vec<Element>>| -> Vec<String> {
        let in_set = |(set, elements): (&&'static str, &Vec<Element>)| -> Vec<String> {
            let line = |e: &Element| format!("{sign}{}", show(&Place { set, key: e.key.clone() }, &e.data));
            elements.iter().map(line).collect()
        };
        elements.iter().flat_map(in_set).collect()
    };
    let chains = change.add_chains.iter().map(|c| format!("+{}", c.name));
    let gone = change.drop_chains.iter().map(|c| format!("-{c}"));
    [of("-", &change.drop), of("+", &change.add), chains.collect(), gone.collect()].concat()
}

#[test]
fn only_what_differs_is_written() {
    let mut state = state();
    state.replace(&owner("a"), plan("10.42.0.2", &[8000, 8001]));
    let lines = changes(&mut state);
    assert_eq!(lines.len(), 3, "{lines:?}");
    state.replace(&owner("a"), plan("10.42.0.2", &[8000, 8002]));
    assert_eq!(changes(&mut state), ["-hostports tcp 8001 = 10.42.0.2 80", "+hostports tcp 8002 = 10.42.0.2 80"]);
    state.replace(&owner("a"), plan("10.42.0.3", &[8000]));
    state.replace(&owner("a"), plan("10.42.0.2", &[8000, 8002]));
    assert_eq!(changes(&mut state), Vec::<String>::new(), "there and back");
    state.replace(&owner("a"), Plan::default());
    assert_eq!(changes(&mut state).len(), 3);
    assert_eq!(state.owners().count(), 0);
    assert!(state.whole().add.is_empty());
}

#[test]
fn who_came_first_has_the_port_until_it_goes() {
    let mut state = state();
    state.replace(&owner("a"), plan("10.42.0.2", &[8000]));
    state.replace(&owner("b"), plan("10.42.0.3", &[8000]));
    assert!(changes(&mut state).contains(&"+hostports tcp 8000 = 10.42.0.2 80".to_owned()));
    state.replace(&owner("a"), Plan::default());
    let lines = changes(&mut state);
    assert!(lines.contains(&"-hostports tcp 8000 = 10.42.0.2 80".to_owned()), "{lines:?}");
    assert!(lines.contains(&"+hostports tcp 8000 = 10.42.0.3 80".to_owned()), "{lines:?}");
}

#[test]
fn chains_live_while_somebody_leads_to_them() {
    let mut state = state();
    let leads = |count| {
        let balancer = Balancer { via: Via::Cluster, local: false, count, affinity_seconds: 0 };
        Plan { chains: BTreeMap::from([(balancer.name(), Target::Balancer(balancer))]), ..Plan::default() }
    };
    state.replace(&owner("a"), leads(2));
    assert_eq!(changes(&mut state), ["+balance-services 0 2 = Goto(\"cluster-2\")", "+cluster-2"]);
    state.replace(&owner("b"), leads(2));
    state.replace(&owner("a"), leads(3));
    assert_eq!(changes(&mut state), ["+balance-services 0 3 = Goto(\"cluster-3\")", "+cluster-3"]);
    state.replace(&owner("b"), Plan::default());
    assert_eq!(changes(&mut state), ["-balance-services 0 2 = Goto(\"cluster-2\")", "-cluster-2"]);
    let whole = state.whole();
    assert_eq!(whole.add_chains.len(), 1);
    assert_eq!(whole.add["balance-services"].len(), 1);
}
