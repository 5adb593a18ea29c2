//! What machines that join read before they can be anybody: where the API is and whose certificates to trust
//! (`kube-public/cluster-info`, signed by bootstrap tokens, open to everyone), and what `kubeadm join` wants to know of
//! the cluster (`kube-system/kubeadm-config`, `kube-system/kubelet-config`).

use super::Config;
use super::writer::Writer;
use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::net::SocketAddr;

const KUBE_SYSTEM: &str = "/api/v1/namespaces/kube-system/configmaps";
const KUBE_PUBLIC: &str = "/api/v1/namespaces/kube-public/configmaps";

pub async fn reconcile(writer: &Writer, config: &Config) -> Result<()> {
    let kubeconfig = kubeconfig(config);
    let info = map("kube-public", "cluster-info", "kubeconfig", &kubeconfig);
    // Signatures beside it are the bootstrap signer's.
    let follow = |found: &mut Value| {
        let changed = found["data"]["kubeconfig"] != kubeconfig.as_str();
        found["data"]["kubeconfig"] = kubeconfig.as_str().into();
        changed
    };
    writer.update_with(KUBE_PUBLIC, &info, follow).await?;
    let cluster = map("kube-system", "kubeadm-config", "ClusterConfiguration", &yaml(&cluster(config)));
    writer.ensure_fields(KUBE_SYSTEM, cluster, &["data"]).await?;
    // Made once: people change how their kubelets run.
    writer.ensure(KUBE_SYSTEM, map("kube-system", "kubelet-config", "kubelet", &yaml(&kubelet(config)))).await
}

fn map(namespace: &str, name: &str, key: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
           "data": {key: text}})
}

fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

fn endpoint(config: &Config) -> SocketAddr {
    SocketAddr::new(config.advertise_address, config.https_port)
}

/// A cluster without a user. A stock kubelet has one CA file for the server it calls and for the clients it answers:
/// so both CAs are in it (nothing of the client CA can pass for a server).
fn kubeconfig(config: &Config) -> String {
    let authority = BASE64_STANDARD.encode(format!("{}{}", config.server_ca, config.client_ca));
    let server = format!("https://{}", endpoint(config));
    yaml(&json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "", "cluster": {"certificate-authority-data": authority, "server": server}}],
        "contexts": null, "current-context": "", "preferences": {}, "users": null,
    }))
}

/// kubeadm's ClusterConfiguration (kubeadm.k8s.io/v1beta4).
fn cluster(config: &Config) -> Value {
    let version = crate::KUBERNETES_VERSION.split('+').next();
    json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
        "clusterName": "kubernetes", "kubernetesVersion": version,
        "controlPlaneEndpoint": endpoint(config),
        "networking": {
            "dnsDomain": config.cluster_domain, "podSubnet": config.cluster_cidr,
            "serviceSubnet": config.service_cidr,
        },
    })
}

/// kubeadm's defaults for kubelets (kubelet.config.k8s.io/v1beta1), with serving certificates by request.
fn kubelet(config: &Config) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [config.cluster_dns], "clusterDomain": config.cluster_domain,
        "rotateCertificates": true, "serverTLSBootstrap": true,
        "staticPodPath": "/etc/kubernetes/manifests",
    })
}
