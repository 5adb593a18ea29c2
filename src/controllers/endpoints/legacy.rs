//! `v1` Endpoints: one object per Service, for readers that do not know slices.

use super::members::{self, HEADLESS, Member};
use crate::cache::{Cache, Key};
use crate::controllers::driver::{Controller, Requeue, Wakes};
use crate::controllers::labels::Labels;
use crate::controllers::{Context, apply};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::{BTreeMap, BTreeSet};

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Addresses in one Endpoints object; more are cut off, and this annotation says so.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";

struct LegacyEndpoints {
    client: Client,
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(LegacyEndpoints {
        client: context.client.clone(),
        services: context.caches.of(),
        pods: context.caches.of(),
        endpoints: context.caches.of(),
    })
}

#[async_trait]
impl Controller for LegacyEndpoints {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.services);
        let services = self.services.clone();
        wakes.on(&self.pods, move |change| members::services_of(&services, change));
        wakes.on(&self.endpoints, |change| vec![change.key.clone()]);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let api: Api<Endpoints> = apply::api(&self.client, &key.namespace);
        let held = self.endpoints.at(key);
        let Some(service) = self.services.at(key) else {
            // Not ours to keep once the Service is gone; other people's objects of that name stay.
            if let Some(held) = held.filter(|e| is_ours(e)) {
                apply::delete(&api, held.as_ref()).await?;
            }
            return Ok(Requeue::Done);
        };
        if !members::is_selecting(&service) {
            return Ok(Requeue::Done);
        }
        let wanted = wanted(&service, &members::members(&service, &self.pods.list_in(&key.namespace)));
        match held {
            None => match api.create(&PostParams::default(), &wanted).await {
                Err(error) if apply::is_namespace_terminating(&error) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            },
            Some(held) if same(&held, &wanted) => {}
            Some(held) => {
                apply::update(&api, held.as_ref(), |fresh| {
                    fresh.subsets = wanted.subsets;
                    fresh.metadata.labels = wanted.metadata.labels;
                    let annotations = fresh.metadata.annotations.get_or_insert_default();
                    annotations.remove(OVER_CAPACITY);
                    annotations.extend(wanted.metadata.annotations.unwrap_or_default());
                })
                .await?;
            }
        }
        Ok(Requeue::Done)
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY.0)).is_some_and(|m| m == MANAGED_BY.1)
}

fn same(held: &Endpoints, wanted: &Endpoints) -> bool {
    let capacity = |e: &Endpoints| e.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY)).cloned();
    held.subsets.clone().unwrap_or_default() == wanted.subsets.clone().unwrap_or_default()
        && held.metadata.labels == wanted.metadata.labels
        && capacity(held) == capacity(wanted)
}

/// Addresses by family order, told apart by pod.
type Address = (String, Option<String>);

fn wanted(service: &Service, members: &[Member]) -> Endpoints {
    let spec = service.spec.clone().unwrap_or_default();
    let family = spec.ip_families.iter().flatten().next().cloned().unwrap_or_else(|| "IPv4".into());
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    // Ports by address, then addresses by the same ports: upstream's canonical form.
    let mut addresses: BTreeMap<Address, (EndpointAddress, bool, BTreeSet<PortId>)> = BTreeMap::new();
    for member in members.iter().filter(|m| publish_all || !m.terminating) {
        let Some(ip) = member.address(&family) else { continue };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((port.name.clone(), member.port(port)?, protocol, port.app_protocol.clone()))
        });
        let ports: BTreeSet<_> = ports.collect();
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|p| !p.is_empty()) {
            continue;
        }
        let address = EndpointAddress {
            hostname: member.hostname(service),
            node_name: member.node(),
            target_ref: Some(member.reference()),
            ip: ip.clone(),
        };
        addresses.insert((ip, member.pod.metadata.uid.clone()), (address, member.ready, ports));
    }
    let truncated = addresses.len() > ADDRESSES_MAX;
    if truncated {
        addresses = truncate(addresses);
    }
    let mut subsets: BTreeMap<BTreeSet<PortId>, EndpointSubset> = BTreeMap::new();
    for (address, ready, ports) in addresses.into_values() {
        let subset = subsets.entry(ports.clone()).or_insert_with(|| EndpointSubset {
            ports: Some(ports.into_iter().map(port).collect()).filter(|p: &Vec<_>| !p.is_empty()),
            ..Default::default()
        });
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            annotations: truncated.then(|| [(OVER_CAPACITY.to_owned(), TRUNCATED.to_owned())].into()),
            ..Default::default()
        },
        subsets: Some(subsets.into_values().collect()).filter(|s: &Vec<_>| !s.is_empty()),
    }
}

type PortId = (Option<String>, i32, String, Option<String>);

fn port((name, port, protocol, app_protocol): PortId) -> EndpointPort {
    EndpointPort { name, port, protocol: Some(protocol), app_protocol }
}

/// Ready addresses are kept before those that are not.
fn truncate<T>(all: BTreeMap<Address, (T, bool, BTreeSet<PortId>)>) -> BTreeMap<Address, (T, bool, BTreeSet<PortId>)> {
    let (ready, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, (_, ready, _))| *ready);
    ready.into_iter().chain(other).take(ADDRESSES_MAX).collect()
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().is_some_and(members::is_headless) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(n: usize, ready: bool) -> Arc<Pod> {
        let ip = format!("10.42.{}.{}", n / 250, n % 250 + 1);
        let status = if ready { "True" } else { "False" };
        let value = json!({"metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": format!("u{n}"),
                "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": status}]}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn service(ports: Value) -> Service {
        let value = json!({"metadata": {"name": "web", "namespace": "ns"},
            "spec": {"clusterIP": "10.43.0.1", "selector": {"app": "web"}, "ports": ports}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn subsets_show_ready_and_not_ready() {
        let service = service(json!([{"port": 80, "targetPort": 8080}]));
        let made = wanted(&service, &members::members(&service, &[pod(1, true), pod(0, true), pod(2, false)]));
        let subsets = serde_json::to_value(&made.subsets).unwrap();
        assert_eq!(subsets.as_array().unwrap().len(), 1);
        assert_eq!(subsets[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        let ips: Vec<_> =
            subsets[0]["addresses"].as_array().unwrap().iter().map(|a| a["ip"].as_str().unwrap()).collect();
        assert_eq!(ips, ["10.42.0.1", "10.42.0.2"]);
        assert_eq!(subsets[0]["notReadyAddresses"][0]["targetRef"]["name"], "p2");
        assert_eq!(wanted(&service, &[]).subsets, None);
    }

    #[test]
    fn too_many_addresses_are_cut_off_and_said_so() {
        let service = service(json!([{"port": 80}]));
        let pods: Vec<_> = (0..=ADDRESSES_MAX).map(|n| pod(n, n != 0)).collect();
        let made = wanted(&service, &members::members(&service, &pods));
        let subset = &made.subsets.unwrap()[0];
        assert_eq!(subset.addresses.as_ref().unwrap().len(), ADDRESSES_MAX);
        assert_eq!(subset.not_ready_addresses, None);
        assert_eq!(made.metadata.annotations.unwrap()[OVER_CAPACITY], TRUNCATED);
    }
}
