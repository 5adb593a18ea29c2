//! EndpointSlices (KEP-752): the addresses of a Service in slices of at most 100, changed as little as possible.

use super::members::{self, HEADLESS, Member};
use crate::cache::{Cache, Change, Index, Key};
use crate::controllers::apply;
use crate::controllers::driver::{Controller, Requeue, Wakes};
use crate::controllers::owners::controller_ref;
use crate::controllers::writes::{STALE_PAUSE, Writes};
use crate::controllers::{Context, labels::Labels};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const SERVICE: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Endpoints in one slice.
const SLICE_MAX: usize = 100;

struct Slices {
    client: Client,
    services: Cache<Service>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
    writes: Writes,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Slices {
        client: context.client.clone(),
        services: context.caches.of(),
        pods: context.caches.of(),
        nodes: context.caches.of(),
        slices: context.caches.of(),
        writes: Writes::default(),
    })
}

/// Slices by `namespace/service`.
pub(super) fn by_service() -> Index<EndpointSlice> {
    Index {
        name: "service",
        values: |slice| {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE));
            service.map(|s| format!("{}/{s}", slice.metadata.namespace.as_deref().unwrap_or(""))).into_iter().collect()
        },
    }
}

/// Whether this controller keeps a slice; others leave it alone.
pub(super) fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == manager)
}

/// The Service whose slice changed, if `manager` keeps it.
pub(super) fn service_of(change: &Change<EndpointSlice>, manager: &str) -> Vec<Key> {
    let kept = change.latest().filter(|slice| is_managed_by(slice, manager));
    let service = kept.and_then(|slice| slice.metadata.labels.as_ref()?.get(SERVICE));
    service.map(|s| Key::new(&change.key.namespace, s)).into_iter().collect()
}

/// What is to be written of one Service's slices.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

impl Changes {
    /// Write them; `edit` takes over into the server's form of a slice what the controller keeps of it.
    pub async fn apply(
        self,
        api: &Api<EndpointSlice>,
        key: &Key,
        writes: &Writes,
        edit: fn(&mut EndpointSlice, EndpointSlice),
    ) -> anyhow::Result<()> {
        for slice in &self.create {
            match api.create(&PostParams::default(), slice).await {
                Ok(made) => writes.record(key, &made),
                Err(error) if apply::is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        for (old, new) in self.update {
            let written = apply::update(api, old.as_ref(), |fresh| edit(fresh, new));
            writes.record(key, &written.await?);
        }
        for slice in &self.delete {
            apply::delete(api, slice.as_ref()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for Slices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.services);
        let services = self.services.clone();
        wakes.on(&self.pods, move |change| members::services_of(&services, change));
        wakes.on(&self.slices, |change| service_of(change, MANAGER));
        wakes.reads(&self.nodes);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(service) = self.services.at(key).filter(|s| members::is_selecting(s)) else {
            // Slices of a deleted Service go with their owner.
            self.writes.forget(key);
            return Ok(Requeue::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Done);
        }
        if !self.writes.visible(key, &self.slices).await {
            return Ok(Requeue::After(STALE_PAUSE));
        }
        let held = self.slices.by(&by_service(), &key.to_string());
        let held: Vec<_> = held.into_iter().filter(|s| is_managed_by(s, MANAGER)).collect();
        let members = members::members(&service, &self.pods.list_in(&key.namespace));
        let zone = |node: &str| self.nodes.get("", node)?.metadata.labels.as_ref()?.get(ZONE).cloned();
        let plan = plan(&service, &members, &held, &zone);
        let api: Api<EndpointSlice> = apply::api(&self.client, &key.namespace);
        let edit = |fresh: &mut EndpointSlice, new: EndpointSlice| {
            fresh.endpoints = new.endpoints;
            fresh.ports = new.ports;
            fresh.metadata.labels = new.metadata.labels;
        };
        plan.apply(&api, key, &self.writes, edit).await?;
        Ok(Requeue::Done)
    }
}

/// Slices differ in family and ports: (address type, ports as text for comparison).
type Shape = (String, String);

fn plan(
    service: &Service,
    members: &[Member],
    held: &[Arc<EndpointSlice>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> Changes {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.clone().filter(|f| !f.is_empty()).unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let labels = labels(service);
    let mut wanted: BTreeMap<Shape, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for family in &families {
        for member in members {
            let Some(address) = member.address(family) else { continue };
            let ports = ports(member, spec.ports.as_deref().unwrap_or_default());
            let shape = (family.clone(), shape_of(&ports));
            wanted.entry(shape).or_insert((ports, Vec::new())).1.push(endpoint(service, member, address, zone));
        }
    }
    let mut plan = Changes::default();
    for family in &families {
        // A Service without any pods still has a slice, so that readers can tell "none" from "not yet".
        if !wanted.keys().any(|(f, _)| f == family) {
            wanted.insert((family.clone(), String::new()), (Vec::new(), Vec::new()));
        }
    }
    let mut held_by_shape: BTreeMap<Shape, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in held {
        let shape = (slice.address_type.clone(), shape_of(slice.ports.as_deref().unwrap_or_default()));
        held_by_shape.entry(shape).or_default().push(slice.clone());
    }
    for (shape, (ports, endpoints)) in wanted {
        let mut slices = held_by_shape.remove(&shape).unwrap_or_default();
        slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let (family, _) = shape;
        fill(&mut plan, service, &labels, family, ports, endpoints, slices);
    }
    plan.delete.extend(held_by_shape.into_values().flatten());
    plan
}

/// Bring the slices of one shape to hold exactly `endpoints`.
fn fill(
    plan: &mut Changes,
    service: &Service,
    labels: &Labels,
    family: String,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
) {
    let id = |e: &Endpoint| (e.target_ref.as_ref().and_then(|t| t.uid.clone()), e.addresses.first().cloned());
    let mut left: BTreeMap<_, Endpoint> = endpoints.into_iter().map(|e| (id(&e), e)).collect();
    // What a slice holds and may keep stays there, in its present form.
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let stays = slice.endpoints.iter().flatten().filter_map(|e| left.remove(&id(e))).collect();
        kept.push((slice, stays));
    }
    let mut rest: Vec<Endpoint> = left.into_values().collect();
    // Newcomers go to slices that change anyway, then to any with room, then to new ones.
    let changes = |slice: &EndpointSlice, now: &[Endpoint]| slice.endpoints.as_deref().unwrap_or_default() != now;
    kept.sort_by_key(|(slice, now)| !changes(slice, now));
    for (_, now) in &mut kept {
        let room = SLICE_MAX.saturating_sub(now.len()).min(rest.len());
        now.extend(rest.drain(..room));
    }
    // Empty slices go, but one stays if there is nothing else.
    let any = kept.iter().any(|(_, now)| !now.is_empty()) || !rest.is_empty();
    let mut spare = !any;
    for (slice, now) in kept {
        if now.is_empty() && !std::mem::take(&mut spare) {
            plan.delete.push(slice);
        } else if changes(&slice, &now) || slice.metadata.labels.as_ref() != Some(labels) {
            let mut new = slice.as_ref().clone();
            new.endpoints = Some(now);
            new.metadata.labels = Some(labels.clone());
            plan.update.push((slice, new));
        }
    }
    let mut batches: Vec<Vec<Endpoint>> = rest.chunks(SLICE_MAX).map(<[Endpoint]>::to_vec).collect();
    if spare {
        batches.push(Vec::new());
    }
    for batch in batches {
        plan.create.push(EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or(""))),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels.clone()),
                owner_references: Some(vec![controller_ref(service)]),
                ..Default::default()
            },
            address_type: family.clone(),
            ports: Some(ports.clone()),
            endpoints: Some(batch),
        });
    }
}

/// The Service's labels, and whose slice it is.
fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().is_some_and(members::is_headless) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn endpoint(service: &Service, member: &Member, address: String, zone: &dyn Fn(&str) -> Option<String>) -> Endpoint {
    let node = member.node();
    let zone = node.as_deref().and_then(zone);
    Endpoint {
        hints: hints(service, member, node.as_deref(), zone.as_deref()),
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(member.ready),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
        }),
        hostname: member.hostname(service),
        zone,
        node_name: node,
        target_ref: Some(member.reference()),
        ..Default::default()
    }
}

/// For whom a ready endpoint is, as `spec.trafficDistribution` asks (KEP-4444, KEP-3015): proxies do the choosing.
fn hints(service: &Service, member: &Member, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let asked = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let same_node = asked == "PreferSameNode";
    if !member.ready || !(same_node || ["PreferClose", "PreferSameZone"].contains(&asked)) {
        return None;
    }
    let for_nodes = node.filter(|_| same_node).map(|name| vec![ForNode { name: name.to_owned() }]);
    let for_zones = zone.map(|name| vec![ForZone { name: name.to_owned() }]);
    (for_nodes.is_some() || for_zones.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

fn ports(member: &Member, ports: &[ServicePort]) -> Vec<EndpointPort> {
    let port = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(member.port(port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.iter().filter_map(port).collect()
}

/// Ports in any order, as the server may have defaulted them.
pub(super) fn shape_of(ports: &[EndpointPort]) -> String {
    let one = |p: &EndpointPort| {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        format!("{}/{:?}/{}/{}", text(&p.name), p.port, text(&p.protocol), text(&p.app_protocol))
    };
    let mut all: Vec<_> = ports.iter().map(one).collect();
    all.sort();
    all.join(",")
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
