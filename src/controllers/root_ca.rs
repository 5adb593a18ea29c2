//! Every namespace has a ConfigMap `kube-root-ca.crt` with the CA that pods verify the API server by.

use super::driver::{Controller, Requeue, Wakes};
use super::{Config, Context, apply, namespace};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

struct RootCa {
    client: Client,
    config: Arc<Config>,
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(RootCa {
        client: context.client.clone(),
        config: context.config.clone(),
        namespaces: context.caches.of(),
        maps: context.caches.selected("metadata.name=kube-root-ca.crt"),
    })
}

#[async_trait]
impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.namespaces);
        wakes.on(&self.maps, |change| vec![Key::new("", &change.key.namespace)]);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let active = self.namespaces.at(key).is_some_and(|n| namespace::is_active(&n));
        if !active || self.config.root_ca.is_empty() {
            return Ok(Requeue::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let data = BTreeMap::from([(FILE.to_owned(), self.config.root_ca.clone())]);
        let held = self.maps.get(&key.name, NAME);
        if held.as_ref().is_some_and(|map| map.data.as_ref() == Some(&data)) {
            return Ok(Requeue::Done);
        }
        // All of it is ours: written whole, without reading it first (which our role does not allow).
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(key.name.clone()),
                annotations: Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into()),
                resource_version: held.as_ref().and_then(|map| map.metadata.resource_version.clone()),
                ..Default::default()
            },
            data: Some(data),
            ..Default::default()
        };
        let written = match held {
            Some(_) => api.replace(NAME, &PostParams::default(), &map).await,
            None => api.create(&PostParams::default(), &map).await,
        };
        match written {
            Err(e) if !apply::is_already_exists(&e) && !apply::is_namespace_terminating(&e) => Err(e.into()),
            _ => Ok(Requeue::Done),
        }
    }
}
