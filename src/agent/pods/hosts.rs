//! A pod's names: hostname, domain and /etc/hosts.

use crate::agent::Config;
use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write;

/// Longest host name the kernel takes.
const HOSTNAME_BYTES_MAX: usize = 63;

/// Hostname and DNS domain (empty: none) of a pod.
pub fn names(config: &Config, pod: &Pod) -> (String, String) {
    let Some(spec) = &pod.spec else { return Default::default() };
    if let Some(over) = spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return (over.to_owned(), String::new());
    }
    let mut host = spec.hostname.clone().or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    if host.len() > HOSTNAME_BYTES_MAX {
        host.truncate(HOSTNAME_BYTES_MAX);
        host = host.trim_end_matches(['-', '.']).to_owned();
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{namespace}.svc.{}", config.cluster_domain),
        None => String::new(),
    };
    (host, domain)
}

/// What the kernel's hostname is in the pod.
pub fn hostname(config: &Config, pod: &Pod) -> String {
    let (host, domain) = names(config, pod);
    let as_fqdn = pod.spec.as_ref().is_some_and(|s| s.set_hostname_as_fqdn == Some(true));
    if as_fqdn && !domain.is_empty() { format!("{host}.{domain}") } else { host }
}

/// The pod's /etc/hosts. `host_file` Some: the pod is on the host's network and gets the host's file.
pub fn file(config: &Config, pod: &Pod, ips: &[String], host_file: Option<&str>) -> String {
    let mut out = match host_file {
        Some(text) => format!("# Kubernetes-managed hosts file (host network).\n{text}"),
        None => {
            let mut out = String::from(
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                 fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
            );
            let (host, domain) = names(config, pod);
            for ip in ips {
                let _ = match domain.as_str() {
                    "" => writeln!(out, "{ip}\t{host}"),
                    domain => writeln!(out, "{ip}\t{host}.{domain}\t{host}"),
                };
            }
            out
        }
    };
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            let _ = writeln!(out, "{}\t{names}", alias.ip);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn host_names() {
        let config = Config::for_tests(Path::new("/nowhere"));
        let long = "a".repeat(62) + "-b";
        let cases = [
            (json!({}), "web-0", ""),
            (json!({"hostname": "h"}), "h", ""),
            (json!({"subdomain": "s"}), "web-0", "s.ns.svc.cluster.local"),
            (
                json!({"subdomain": "s", "setHostnameAsFQDN": true}),
                "web-0.s.ns.svc.cluster.local",
                "s.ns.svc.cluster.local",
            ),
            (json!({"hostname": long}), &long[..62], ""),
        ];
        for (spec, host, domain) in cases {
            let pod = pod(spec);
            assert_eq!((hostname(&config, &pod).as_str(), names(&config, &pod).1.as_str()), (host, domain));
        }
    }

    #[test]
    fn hosts_files() {
        let config = Config::for_tests(Path::new("/nowhere"));
        let aliased = pod(json!({"subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = file(&config, &aliased, &["10.0.0.2".into()], None);
        assert!(text.contains("\n10.0.0.2\tweb-0.s.ns.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        let host = file(&config, &pod(json!({})), &[], Some("127.0.0.1\tbox\n"));
        assert_eq!(host, "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tbox\n");
    }
}
