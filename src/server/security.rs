//! Puts authentication, authorization and admission together, for whoever builds the API server.

use crate::pki::Pki;
use crate::server::admission::PLUGINS;
use crate::server::api::{Api, Endpoint, Parts};
use crate::server::authn::bootstrap_token::BootstrapTokens;
use crate::server::authn::{ServiceAccounts, discovery};
use crate::server::authz::aggregate;
use crate::server::authz::graph::LiveGraph;
use crate::server::authz::node::NodeAuthorizer;
use crate::server::authz::rbac::Rbac;
use crate::server::registry::Registry;
use crate::task::Group;
use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use serde_json::Value;
use std::sync::Arc;

/// The indexes behind authorization, and the service-account tokens.
pub struct Security {
    rbac: Arc<Rbac>,
    graph: LiveGraph,
    accounts: Arc<ServiceAccounts>,
    bootstrap: Arc<BootstrapTokens>,
    configuration: Value,
    keys: Value,
}

impl Security {
    /// Start the indexes; their tasks end with `group`. `url` is where clients reach this server
    /// (`https://192.0.2.1:6443`).
    pub fn start(registry: &Arc<Registry>, pki: &Pki, cluster_domain: &str, url: &str, group: &Group) -> Self {
        let graph = LiveGraph::start(registry, group);
        let key = pki.service_account_key();
        let issuer = ServiceAccounts::issuer_of(cluster_domain);
        Security {
            rbac: Rbac::start(registry, group),
            configuration: discovery::configuration(&issuer, url),
            keys: discovery::keys(&[key.public().clone()]),
            accounts: ServiceAccounts::new(key, issuer, graph.graph.clone(), registry.clone()),
            bootstrap: BootstrapTokens::new(registry.clone()),
            graph,
        }
    }

    /// Hand everything to the API server to be built.
    pub fn install(&self, parts: &mut Parts) {
        parts.tokens.push(self.accounts.clone());
        parts.tokens.push(self.bootstrap.clone());
        parts.authorizers.push(Arc::new(NodeAuthorizer::new(self.graph.graph.clone())));
        parts.authorizers.push(self.rbac.clone());
        parts.plugins.extend_from_slice(PLUGINS);
        parts.issuer = Some(self.accounts.clone());
        parts
            .endpoints
            .push((discovery::CONFIGURATION_PATH, document(&self.configuration, discovery::CONFIGURATION_TYPE)));
        parts.endpoints.push((discovery::KEYS_PATH, document(&self.keys, discovery::KEYS_TYPE)));
    }

    /// Resolves once everything stored has been seen: before, requests are refused that should not be.
    pub async fn synced(&self) {
        self.rbac.synced().await;
        self.graph.synced().await;
    }

    /// Keep aggregated ClusterRoles up to date. `client` acts as the aggregation controller.
    pub fn start_aggregation(&self, registry: &Arc<Registry>, client: kube::Client, group: &Group) {
        aggregate::start(registry, client, group);
    }
}

/// A fixed JSON answer.
fn document(value: &Value, content_type: &'static str) -> Endpoint {
    let bytes = bytes::Bytes::from(value.to_string());
    Arc::new(move |_api: Arc<Api>, _request: Request<Body>| {
        let mut response = Response::new(Body::from(bytes.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(discovery::CACHE_CONTROL));
        Box::pin(std::future::ready(response))
    })
}
