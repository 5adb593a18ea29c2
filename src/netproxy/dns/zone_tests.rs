use super::*;
use serde_json::json;

pub fn zone() -> Zone {
    let services: Vec<Service> = serde_json::from_value(json!([
        { "metadata": { "namespace": "default", "name": "web" }, "spec": { "clusterIP": "10.43.0.80", "clusterIPs": ["10.43.0.80"],
            "ports": [{ "name": "http", "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }] } },
        { "metadata": { "namespace": "default", "name": "db" }, "spec": { "clusterIP": "None", "ports": [{ "name": "sql", "port": 5432 }] } },
        { "metadata": { "namespace": "default", "name": "empty" }, "spec": { "clusterIP": "None" } },
        { "metadata": { "namespace": "default", "name": "out" }, "spec": { "type": "ExternalName", "externalName": "example.org" } },
        { "metadata": { "namespace": "default", "name": "alias" },
            "spec": { "type": "ExternalName", "externalName": "web.default.svc.cluster.local" } },
    ]))
    .unwrap();
    let slices: Vec<EndpointSlice> = serde_json::from_value(json!([
        { "metadata": { "namespace": "default", "name": "db-1", "labels": { "kubernetes.io/service-name": "db" } },
            "addressType": "IPv4", "ports": [{ "name": "sql", "port": 5432 }], "endpoints": [
                { "addresses": ["10.42.0.7"], "hostname": "db-0", "conditions": { "ready": true } },
                { "addresses": ["10.42.0.8"], "conditions": { "ready": true } },
                { "addresses": ["10.42.0.9"], "hostname": "db-2", "conditions": { "ready": false } } ] },
    ]))
    .unwrap();
    let networks = vec!["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()];
    Zone::new("cluster.local", Cache::fixed(services), Cache::fixed(slices), networks).unwrap()
}

/// The answer as words: record data, or what was said instead.
fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
    match zone.answer(&Name::from_ascii(name).unwrap(), kind) {
        Said::Found { answers, additionals } => {
            let all = answers.iter().chain(&additionals).map(|r| r.data.to_string());
            all.collect::<Vec<_>>().join(", ")
        }
        Said::Alias(_, target) => format!("alias {target}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn names_of_the_specification() {
    let zone = zone();
    use RecordType::{A, AAAA, NS, PTR, SOA, SRV, TXT};
    for (name, kind, expected) in [
        ("web.default.svc.cluster.local.", A, "10.43.0.80"),
        ("WEB.Default.svc.cluster.LOCAL.", A, "10.43.0.80"),
        ("web.default.svc.cluster.local.", AAAA, "NoData"),
        ("web.default.svc.cluster.local.", TXT, "NoData"),
        ("web.other.svc.cluster.local.", A, "NoSuchName"),
        ("db.default.svc.cluster.local.", A, "10.42.0.7, 10.42.0.8"),
        ("empty.default.svc.cluster.local.", A, "NoData"),
        ("db-0.db.default.svc.cluster.local.", A, "10.42.0.7"),
        ("10-42-0-8.db.default.svc.cluster.local.", A, "10.42.0.8"),
        ("db-2.db.default.svc.cluster.local.", A, "NoSuchName"),
        ("x.web.default.svc.cluster.local.", A, "NoSuchName"),
        ("_http._tcp.web.default.svc.cluster.local.", SRV, "0 100 80 web.default.svc.cluster.local., 10.43.0.80"),
        ("_http._tcp.web.default.svc.cluster.local.", A, "NoData"),
        ("_http._udp.web.default.svc.cluster.local.", SRV, "NoSuchName"),
        ("_dns._udp.web.default.svc.cluster.local.", SRV, "0 100 53 web.default.svc.cluster.local., 10.43.0.80"),
        (
            "_sql._tcp.db.default.svc.cluster.local.",
            SRV,
            "0 100 5432 db-0.db.default.svc.cluster.local., 0 100 5432 10-42-0-8.db.default.svc.cluster.local., 10.42.0.7, 10.42.0.8",
        ),
        ("out.default.svc.cluster.local.", A, "alias example.org."),
        ("10-42-0-99.default.pod.cluster.local.", A, "10.42.0.99"),
        ("web.default.pod.cluster.local.", A, "NoSuchName"),
        ("dns-version.cluster.local.", TXT, "1.1.0"),
        ("default.svc.cluster.local.", A, "NoData"),
        ("other.svc.cluster.local.", A, "NoSuchName"),
        ("svc.cluster.local.", A, "NoData"),
        ("cluster.local.", NS, "ns.dns.cluster.local."),
        ("80.0.43.10.in-addr.arpa.", PTR, "web.default.svc.cluster.local."),
        ("7.0.42.10.in-addr.arpa.", PTR, "db-0.db.default.svc.cluster.local."),
        ("99.0.43.10.in-addr.arpa.", PTR, "NoSuchName"),
        ("1.2.0.192.in-addr.arpa.", PTR, "Elsewhere"),
        ("43.10.in-addr.arpa.", PTR, "Elsewhere"),
        // What search domains make of outside names must end the search.
        ("example.org.default.svc.cluster.local.", A, "NoSuchName"),
        ("example.org.svc.cluster.local.", A, "NoSuchName"),
        ("example.org.cluster.local.", A, "NoSuchName"),
        ("example.org.", A, "Elsewhere"),
        ("local.", A, "Elsewhere"),
    ] {
        assert_eq!(ask(&zone, name, kind), expected, "{name} {kind}");
    }
    assert!(ask(&zone, "cluster.local.", SOA).starts_with("ns.dns.cluster.local. hostmaster.cluster.local. 1 "));
}

#[test]
fn reverse_names() {
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
    for (name, expected) in [
        ("4.3.2.1.in-addr.arpa.", Some("1.2.3.4")),
        ("3.2.1.in-addr.arpa.", None),
        ("400.3.2.1.in-addr.arpa.", None),
        (v6, Some("2001:db8::1")),
        ("8.b.d.0.1.0.0.2.ip6.arpa.", None),
        ("example.org.", None),
    ] {
        assert_eq!(reversed(&Name::from_ascii(name).unwrap()), expected.map(|a| a.parse().unwrap()), "{name}");
    }
}
