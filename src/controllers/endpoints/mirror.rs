//! Hand-made Endpoints of Services without a selector, as EndpointSlices: readers of slices (proxies, DNS) see them too
//! (upstream's endpointslicemirroring-controller, KEP-752).

use super::slices::{Changes, MANAGED_BY, SERVICE, by_service, is_managed_by, service_of, shape_of};
use crate::cache::{Cache, Key};
use crate::controllers::driver::{Controller, Requeue, Wakes};
use crate::controllers::labels::Labels;
use crate::controllers::owners::controller_ref;
use crate::controllers::writes::{STALE_PAUSE, Writes};
use crate::controllers::{Context, apply};
use crate::events::Warning;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Says of Endpoints that somebody else makes their slices.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that old clients used as a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints object itself.
const NOT_COPIED: &[&str] =
    &["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses mirrored of one set of ports; further ones are left out, and an event says so.
const ADDRESSES_MAX: usize = 1000;

struct Mirror {
    client: Client,
    recorder: crate::events::Recorder,
    services: Cache<Service>,
    endpoints: Cache<Endpoints>,
    slices: Cache<EndpointSlice>,
    writes: Writes,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Mirror {
        client: context.client.clone(),
        recorder: context.recorder.clone(),
        services: context.caches.of(),
        endpoints: context.caches.of(),
        slices: context.caches.of(),
        writes: Writes::default(),
    })
}

#[async_trait]
impl Controller for Mirror {
    fn name(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.endpoints);
        wakes.on(&self.services, |change| vec![change.key.clone()]);
        wakes.on(&self.slices, |change| service_of(change, MANAGER));
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        if !self.writes.visible(key, &self.slices).await {
            return Ok(Requeue::After(STALE_PAUSE));
        }
        let held = self.slices.by(&by_service(), &key.to_string());
        let held: Vec<_> = held.into_iter().filter(|s| is_managed_by(s, MANAGER)).collect();
        let api: Api<EndpointSlice> = apply::api(&self.client, &key.namespace);
        let selectorless = |s: &Arc<Service>| s.spec.as_ref().is_some_and(|s| s.selector.is_none());
        let mirrored =
            self.endpoints.at(key).filter(|e| is_wanted(e) && self.services.at(key).is_some_and(|s| selectorless(&s)));
        let Some(endpoints) = mirrored else {
            self.writes.forget(key);
            for slice in held {
                apply::delete(&api, slice.as_ref()).await?;
            }
            return Ok(Requeue::Done);
        };
        let (mut changes, skipped) = plan(&endpoints, &held);
        self.report(&endpoints, &skipped);
        if endpoints.metadata.deletion_timestamp.is_some() {
            changes.create.clear();
        }
        let edit = |fresh: &mut EndpointSlice, new: EndpointSlice| {
            fresh.endpoints = new.endpoints;
            fresh.ports = new.ports;
            fresh.metadata.labels = new.metadata.labels;
            fresh.metadata.annotations = new.metadata.annotations;
            fresh.metadata.owner_references = new.metadata.owner_references;
        };
        changes.apply(&api, key, &self.writes, edit).await?;
        Ok(Requeue::Done)
    }
}

impl Mirror {
    fn report(&self, endpoints: &Endpoints, skipped: &Skipped) {
        let about = endpoints.object_ref(&());
        if skipped.invalid > 0 {
            let text = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", skipped.invalid);
            self.recorder.event(&about, Warning, "InvalidIPAddress", text);
        }
        if skipped.too_many > 0 {
            let text = format!(
                "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                skipped.too_many
            );
            self.recorder.event(&about, Warning, "TooManyAddressesToMirror", text);
        }
    }
}

fn is_wanted(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let annotations = endpoints.metadata.annotations.as_ref();
    labels.is_none_or(|l| l.get(SKIP).is_none_or(|v| v != "true"))
        && annotations.is_none_or(|a| !a.contains_key(LEADER))
}

/// Addresses that are not mirrored.
#[derive(Debug, Default, PartialEq, Eq)]
struct Skipped {
    invalid: usize,
    too_many: usize,
}

/// One slice for each family and set of ports.
fn plan(endpoints: &Endpoints, held: &[Arc<EndpointSlice>]) -> (Changes, Skipped) {
    let (mut plan, mut skipped) = (Changes::default(), Skipped::default());
    let mut held_by_shape: BTreeMap<(String, String), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in held {
        let shape = (slice.address_type.clone(), shape_of(slice.ports.as_deref().unwrap_or_default()));
        held_by_shape.entry(shape).or_default().push(slice.clone());
    }
    for wanted in wanted(endpoints, &mut skipped) {
        let shape = (wanted.address_type.clone(), shape_of(wanted.ports.as_deref().unwrap_or_default()));
        let mut there = held_by_shape.remove(&shape).unwrap_or_default().into_iter();
        match there.next() {
            None => plan.create.push(wanted),
            Some(old) if same(&old, &wanted) => {}
            Some(old) => plan.update.push((old, wanted)),
        }
        plan.delete.extend(there);
    }
    plan.delete.extend(held_by_shape.into_values().flatten());
    (plan, skipped)
}

fn same(old: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let annotations = |s: &EndpointSlice| s.metadata.annotations.clone().unwrap_or_default();
    let owner = |s: &EndpointSlice| s.metadata.owner_references.iter().flatten().next().map(|o| o.uid.clone());
    old.endpoints == wanted.endpoints
        && old.metadata.labels == wanted.metadata.labels
        && annotations(old) == annotations(wanted)
        && owner(old) == owner(wanted)
}

fn wanted(endpoints: &Endpoints, skipped: &mut Skipped) -> Vec<EndpointSlice> {
    let mut slices: BTreeMap<(&str, String), EndpointSlice> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let waiting = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        for (address, ready) in ready.chain(waiting) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                skipped.invalid += 1;
                continue;
            };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let slice = slices.entry((family, shape_of(&ports))).or_insert_with(|| empty(endpoints, family, &ports));
            let members = slice.endpoints.get_or_insert_default();
            if members.len() >= ADDRESSES_MAX {
                skipped.too_many += 1;
            } else {
                members.push(endpoint(ip, address, ready));
            }
        }
    }
    slices.into_values().collect()
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let all = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    });
    all.collect()
}

fn endpoint(ip: IpAddr, address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn empty(endpoints: &Endpoints, family: &str, ports: &[EndpointPort]) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels: Labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.into(), name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|a| !a.is_empty()),
            owner_references: Some(vec![controller_ref(endpoints)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        ports: Some(ports.to_vec()),
        endpoints: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(subsets: serde_json::Value) -> Endpoints {
        let object =
            json!({"metadata": {"name": "e", "namespace": "n", "uid": "u", "labels": {"a": "b"}}, "subsets": subsets});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn one_slice_for_each_family_and_set_of_ports() {
        let endpoints = endpoints(json!([
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "x"}], "ports": [{"name": "p", "port": 1}]},
            {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "p", "port": 1, "protocol": "TCP"}]},
        ]));
        let (plan, skipped) = plan(&endpoints, &[]);
        let made: Vec<_> =
            plan.create.iter().map(|s| (s.address_type.as_str(), s.endpoints.as_ref().unwrap().len())).collect();
        assert_eq!(made, [("IPv4", 2), ("IPv6", 1)]);
        assert_eq!(skipped, Skipped { invalid: 1, too_many: 0 });
        let conditions = plan.create[0].endpoints.as_ref().unwrap()[1].conditions.clone().unwrap();
        assert_eq!(conditions.ready, Some(false));
    }

    #[test]
    fn slices_change_only_when_the_endpoints_did() {
        let first = endpoints(json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}]));
        let held: Vec<_> = plan(&first, &[]).0.create.into_iter().map(Arc::new).collect();
        let (again, _) = plan(&first, &held);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
        let more = endpoints(json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 1}]}]));
        let (changed, _) = plan(&more, &held);
        assert_eq!((changed.create.len(), changed.update.len(), changed.delete.len()), (0, 1, 0));
        let (none, _) = plan(&endpoints(json!([])), &held);
        assert_eq!((none.create.len(), none.update.len(), none.delete.len()), (0, 0, 1));
    }
}
