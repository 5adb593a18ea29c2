//! `healthCheckNodePort`: tells load balancers outside of the cluster whether this node has endpoints of a Service with
//! `externalTrafficPolicy: Local`. Answers as kube-proxy does (k8s.io docs "Create an External Load Balancer").

use super::endpoints::local_ready;
use super::proxy::by_service;
use crate::cache::{Cache, Key};
use crate::task::Group;
use crate::wire::http::probe_response;
use axum::Router;
use http::HeaderValue;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{info, warn};

/// Changes that come together are worked on together.
const PAUSE: Duration = Duration::from_millis(500);
/// Before a port in use is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Serves the ports of all Services that have one.
pub struct Health {
    node_name: String,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    open: BTreeMap<u16, (Key, Group)>,
}

impl Health {
    pub fn start(node_name: &str, services: Cache<Service>, slices: Cache<EndpointSlice>, group: &Group) {
        let health = Health { node_name: node_name.to_owned(), services, slices, open: BTreeMap::new() };
        group.spawn("service-health", health.keep(group.clone()));
    }

    async fn keep(mut self, group: Group) {
        let mut changes = self.services.subscribe();
        loop {
            let wanted: BTreeMap<u16, Key> = self.services.list().iter().filter_map(|service| port(service)).collect();
            self.open.retain(|port, (key, group)| {
                let stays = wanted.get(port) == Some(&*key);
                if !stays {
                    group.cancel();
                }
                stays
            });
            let mut refused = false;
            for (port, key) in wanted {
                refused |= !self.open.contains_key(&port) && !self.serve(port, key, &group).await;
            }
            tokio::select! {
                notice = changes.next() => if notice.is_none() { return },
                () = tokio::time::sleep(RETRY), if refused => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// False: the port is in use.
    async fn serve(&mut self, port: u16, key: Key, group: &Group) -> bool {
        let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => listener,
            Err(error) => {
                warn!(service = %key, port, %error, "the Service's healthCheckNodePort cannot be served");
                return false;
            }
        };
        info!(service = %key, port, "health check port");
        let group = group.child();
        let (slices, node_name, about) = (self.slices.clone(), self.node_name.clone(), key.clone());
        let answer = move || {
            let count = local_ready(&slices.by(&by_service(), &about.to_string()), &node_name);
            let body = json!({ "service": { "namespace": about.namespace, "name": about.name },
                "localEndpoints": count, "serviceProxyHealthy": true });
            let mut response = probe_response(count > 0, body.to_string());
            response.headers_mut().insert("x-load-balancing-endpoint-weight", HeaderValue::from(count));
            std::future::ready(response)
        };
        let router = Router::new().fallback(answer);
        group.spawn("service-health-port", async move {
            if let Err(error) = axum::serve(listener, router).await {
                warn!(port, %error, "health check port");
            }
        });
        self.open.insert(port, (key, group));
        true
    }
}

fn port(service: &Service) -> Option<(u16, Key)> {
    let spec = service.spec.as_ref()?;
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let port = spec.health_check_node_port.filter(|_| local && balanced)?;
    Some((u16::try_from(port).ok().filter(|p| *p > 0)?, Key::of(service)))
}
