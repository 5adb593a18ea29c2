//! The service CIDR, the API server's own Service with endpoints that follow its address, and the cluster DNS Service.

use super::Config;
use super::writer::Writer;
use crate::object::ObjectExt;
use anyhow::Result;
use serde_json::{Value, json};
use std::net::IpAddr;

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces";
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

pub async fn reconcile(writer: &Writer, config: &Config) -> Result<()> {
    service_cidr(writer, config).await?;
    kubernetes(writer, config).await?;
    endpoints(writer, config, &config.servers).await?;
    dns(writer, config).await
}

/// The default ServiceCIDR, ready to allocate from.
async fn service_cidr(writer: &Writer, config: &Config) -> Result<()> {
    let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
                      "spec": {"cidrs": [config.service_cidr]}});
    writer.ensure(CIDRS, cidr).await?;
    let Some(mut cidr) = writer.get(CIDRS, "kubernetes").await? else { return Ok(()) };
    if cidr["spec"]["cidrs"].get(0) != Some(&json!(config.service_cidr)) {
        tracing::warn!(
            configured = config.service_cidr,
            stored = %cidr["spec"]["cidrs"],
            "the default ServiceCIDR was made with another range and cannot change"
        );
    }
    if cidr.at(&["status", "conditions"]).is_none() {
        let now = crate::time::rfc3339(crate::time::now());
        let message = "Kubernetes Service CIDR is ready";
        cidr.set_at(
            &["status", "conditions"],
            json!([{"type": "Ready", "status": "True", "reason": "", "message": message, "lastTransitionTime": now}]),
        );
        writer.replace_status(CIDRS, &cidr).await?;
    }
    Ok(())
}

async fn kubernetes(writer: &Writer, config: &Config) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": config.service_ip, "sessionAffinity": "None",
                 "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.https_port}]},
    });
    ensure_service(writer, "default", service).await
}

/// Where the API's Service leads: to these servers.
pub async fn endpoints(writer: &Writer, config: &Config, servers: &[IpAddr]) -> Result<()> {
    // One EndpointSlice, and all addresses in it are of one family: that of this server's.
    let of_family = servers.iter().filter(|server| server.is_ipv4() == config.advertise_address.is_ipv4());
    let servers: Vec<IpAddr> = of_family.copied().collect();
    let port = json!([{"name": "https", "protocol": "TCP", "port": config.https_port}]);
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": servers.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(), "ports": port}],
    });
    writer.ensure_fields("/api/v1/namespaces/default/endpoints", endpoints, &["subsets"]).await?;
    let slice = slice("default", "kubernetes", "kubernetes", &servers, port);
    ensure_slice(writer, "default", slice).await
}

/// Every node answers DNS at the Service's own address, so that is its endpoint, and there is no selector.
async fn dns(writer: &Writer, config: &Config) -> Result<()> {
    let ports =
        json!([{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53}]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
                     "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
                                "kubernetes.io/name": "kube-dns"}},
        "spec": {"type": "ClusterIP", "clusterIP": config.cluster_dns, "sessionAffinity": "None", "ports": ports},
    });
    ensure_service(writer, "kube-system", service).await?;
    let slice = slice("kube-system", "kube-dns", "kube-dns", &[config.cluster_dns], ports);
    ensure_slice(writer, "kube-system", slice).await
}

/// Make a Service. One that exists keeps its address, which cannot change, and gets its ports mended.
async fn ensure_service(writer: &Writer, namespace: &str, wanted: Value) -> Result<()> {
    let collection = format!("/api/v1/namespaces/{namespace}/services");
    let port = |service: &Value| -> Vec<(String, Value, Value)> {
        let ports = service.at(&["spec", "ports"]).and_then(Value::as_array);
        let one = |p: &Value| {
            let target = p.get("targetPort").or(p.get("port")).cloned().unwrap_or_default();
            (p.str_at(&["name"]).to_owned(), p["port"].clone(), target)
        };
        ports.map(|l| l.iter().map(one).collect()).unwrap_or_default()
    };
    writer
        .update_with(&collection, &wanted, |found| {
            let (has, wants) = (found.str_at(&["spec", "clusterIP"]), wanted.str_at(&["spec", "clusterIP"]));
            if has != wants {
                tracing::warn!(service = wanted.name(), has, wants, "a Service's address cannot change");
            }
            let differs = port(found) != port(&wanted);
            if differs {
                found["spec"]["ports"] = wanted["spec"]["ports"].clone();
            }
            differs
        })
        .await
}

async fn ensure_slice(writer: &Writer, namespace: &str, slice: Value) -> Result<()> {
    let collection = format!("{SLICES}/{namespace}/endpointslices");
    // The address family of a slice cannot change.
    if let Some(found) = writer.get(&collection, slice.name()).await?
        && found["addressType"] != slice["addressType"]
    {
        writer.delete(&collection, slice.name()).await?;
    }
    writer.ensure_fields(&collection, slice, &["endpoints", "ports"]).await
}

fn slice(namespace: &str, name: &str, service: &str, addresses: &[IpAddr], ports: Value) -> Value {
    let family = if addresses.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    let endpoint = |address: &IpAddr| json!({"addresses": [address], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": ports,
    })
}
