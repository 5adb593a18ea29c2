//! Which pods stand behind a Service, with which ports: pure.

use crate::cache::{Cache, Change, Key};
use crate::controllers::labels::Selector;
use crate::controllers::pods;
use k8s_openapi::api::core::v1::{Container, ContainerPort, ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// Set on what belongs to a headless Service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Service's pods are chosen by us: it has a selector and is not an alias.
pub fn is_selecting(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|s| !s.is_empty())
}

pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// Services of the namespace that a changed pod belongs, or belonged, to.
pub fn services_of(services: &Cache<Service>, change: &Change<Pod>) -> Vec<Key> {
    let forms: Vec<_> = change.old.iter().chain(&change.new).collect();
    if let [old, new] = forms.as_slice()
        && same_for_services(old, new)
    {
        return Vec::new();
    }
    let all = services.list_in(&change.key.namespace);
    let selecting = all.iter().filter(|service| is_selecting(service));
    let matching = selecting.filter(|service| {
        let selector = Selector::of_map(service.spec.as_ref().and_then(|s| s.selector.as_ref()));
        forms.iter().any(|pod| selector.matches(pod.metadata.labels.as_ref()))
    });
    matching.map(|service| Key::of(service.as_ref())).collect()
}

/// Nothing changed that an endpoint shows.
fn same_for_services(old: &Pod, new: &Pod) -> bool {
    let shows = |pod: &Pod| {
        let addresses = pod.status.as_ref().map(|s| (s.pod_ip.clone(), s.pod_ips.clone()));
        let state = (pods::is_ready(pod), pods::is_terminating(pod), pods::is_finished(pod));
        (
            pod.metadata.uid.clone(),
            pod.metadata.labels.clone(),
            addresses,
            state,
            pods::node_name(pod).map(str::to_owned),
        )
    };
    shows(old) == shows(new)
}

/// A pod behind a Service.
#[derive(Clone, Debug)]
pub struct Member {
    pub pod: Arc<Pod>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Member {
    /// The pod's address of a family, `IPv4` or `IPv6`.
    pub fn address(&self, family: &str) -> Option<String> {
        let status = self.pod.status.as_ref()?;
        let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone());
        let fits = |ip: &String| ip.contains(':') == (family == "IPv6");
        listed.chain(status.pod_ip.clone()).find(|ip| !ip.is_empty() && fits(ip))
    }

    pub fn reference(&self) -> ObjectReference {
        let meta = &self.pod.metadata;
        ObjectReference {
            kind: Some("Pod".into()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..Default::default()
        }
    }

    pub fn node(&self) -> Option<String> {
        pods::node_name(&self.pod).map(str::to_owned)
    }

    /// The name under the Service's domain that the pod asked for.
    pub fn hostname(&self, service: &Service) -> Option<String> {
        let spec = self.pod.spec.as_ref()?;
        let here = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
        spec.hostname.clone().filter(|h| here && !h.is_empty())
    }

    /// The pod's number for a Service's port: named ones are looked up in its containers.
    pub fn port(&self, port: &ServicePort) -> Option<i32> {
        match &port.target_port {
            None => Some(port.port),
            Some(IntOrString::Int(0)) => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(name)) => {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                let named = |p: &&ContainerPort| {
                    p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
                };
                let spec = self.pod.spec.as_ref()?;
                let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
                let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
                let containers = spec.containers.iter().chain(sidecars);
                containers.flat_map(|c| c.ports.iter().flatten()).find(named).map(|p| p.container_port)
            }
        }
    }
}

/// The pods behind a Service, in the order given. Finished pods and those without an address are out.
pub fn members(service: &Service, candidates: &[Arc<Pod>]) -> Vec<Member> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let selector = Selector::of_map(spec.selector.as_ref());
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let addressed = |pod: &Pod| {
        let status = pod.status.as_ref();
        status.is_some_and(|s| s.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty()) || s.pod_ips.is_some())
    };
    let chosen = candidates
        .iter()
        .filter(|pod| selector.matches(pod.metadata.labels.as_ref()) && !pods::is_finished(pod) && addressed(pod));
    let member = |pod: &Arc<Pod>| {
        let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
        Member { ready: publish_all || (serving && !terminating), serving, terminating, pod: pod.clone() }
    };
    chosen.map(member).collect()
}
