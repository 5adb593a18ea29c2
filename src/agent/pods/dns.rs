//! What a pod's resolv.conf says: its policy, its own settings, the node's resolver file.

use crate::agent::Config;
use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;
use std::path::{Path, PathBuf};

/// What resolvers read; more are cut off, as upstream does.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LETTERS_MAX: usize = 2048;

/// The parts of a resolver file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolver {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    pub fn parse(text: &str) -> Self {
        let mut out = Resolver::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let keyword = words.next();
            let rest = words.map(|w| w.to_owned());
            match keyword {
                Some("nameserver") => out.nameservers.extend(rest.take(1)),
                // The last search line wins; "." says nothing.
                Some("search" | "domain") => {
                    out.searches = rest.map(|s| s.trim_end_matches('.').to_owned()).filter(|s| !s.is_empty()).collect();
                }
                Some("options") => out.options = rest.collect(),
                _ => {}
            }
        }
        out
    }

    /// The node's resolver: the configured file, or the one that names real servers where systemd-resolved puts its
    /// own loopback address into /etc/resolv.conf (a pod cannot reach that).
    pub fn of_node(config: &Config) -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).map(|t| Self::parse(&t)).unwrap_or_default();
        if let Some(path) = &config.resolv_conf {
            return read(path);
        }
        let usual = read(Path::new("/etc/resolv.conf"));
        let behind = PathBuf::from("/run/systemd/resolve/resolv.conf");
        let loopback = |s: &String| s.starts_with("127.") || s == "::1";
        if !usual.nameservers.is_empty() && usual.nameservers.iter().all(loopback) && behind.exists() {
            return read(&behind);
        }
        usual
    }
}

/// The pod's resolver settings.
pub fn settings(config: &Config, node: &Resolver, pod: &Pod) -> DnsConfig {
    let Some(spec) = &pod.spec else { return DnsConfig::default() };
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !host_network,
        _ => false,
    };
    let mut out = if policy == "None" {
        Resolver::default()
    } else if cluster {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let domain = &config.cluster_domain;
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        add_new(&mut searches, &node.searches);
        Resolver { nameservers: vec![config.cluster_dns.to_string()], searches, options: vec!["ndots:5".into()] }
    } else {
        node.clone()
    };
    if let Some(own) = &spec.dns_config {
        add_new(&mut out.nameservers, own.nameservers.as_deref().unwrap_or_default());
        add_new(&mut out.searches, own.searches.as_deref().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            out.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            out.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    out.nameservers.truncate(NAMESERVERS_MAX);
    out.searches.truncate(SEARCHES_MAX);
    while out.searches.iter().map(|s| s.len() + 1).sum::<usize>() > SEARCH_LETTERS_MAX {
        out.searches.pop();
    }
    DnsConfig { servers: out.nameservers, searches: out.searches, options: out.options }
}

fn add_new(to: &mut Vec<String>, more: &[String]) {
    for one in more {
        if !to.contains(one) {
            to.push(one.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config() -> Config {
        Config {
            cluster_dns: "10.43.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            ..Config::for_tests(Path::new("/nowhere"))
        }
    }

    #[test]
    fn policies() {
        let node = Resolver::parse("# x\nnameserver 9.9.9.9 ; y\nsearch lan. corp\noptions edns0\n");
        let cluster = "10.43.0.10|ns.svc.cluster.local svc.cluster.local cluster.local lan corp|ndots:5";
        let own = json!({"nameservers": ["1.1.1.1"], "searches": ["a", "lan"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        let cases: &[(Value, &str)] = &[
            (json!({}), cluster),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), "9.9.9.9|lan corp|edns0"),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
            (json!({"dnsPolicy": "Default"}), "9.9.9.9|lan corp|edns0"),
            (json!({"dnsPolicy": "None", "dnsConfig": own}), "1.1.1.1|a lan|ndots:2 edns0"),
            (
                json!({"dnsConfig": own}),
                "10.43.0.10 1.1.1.1|ns.svc.cluster.local svc.cluster.local cluster.local lan corp a|ndots:2 edns0",
            ),
        ];
        for (spec, wanted) in cases {
            let mut spec = spec.clone();
            spec["containers"] = json!([]);
            let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
            let got = settings(&config(), &node, &serde_json::from_value(pod).unwrap());
            let text = format!("{}|{}|{}", got.servers.join(" "), got.searches.join(" "), got.options.join(" "));
            assert_eq!(text, *wanted, "{spec}");
        }
    }
}
