//! Every namespace has a ServiceAccount `default`.

use super::driver::{Controller, Requeue, Wakes};
use super::{Context, apply, namespace};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

const NAME: &str = "default";

struct ServiceAccounts {
    client: Client,
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(ServiceAccounts {
        client: context.client.clone(),
        namespaces: context.caches.of(),
        accounts: context.caches.selected("metadata.name=default"),
    })
}

#[async_trait]
impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.namespaces);
        wakes.on(&self.accounts, |change| vec![Key::new("", &change.key.namespace)]);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let active = self.namespaces.at(key).is_some_and(|n| namespace::is_active(&n));
        if !active || self.accounts.get(&key.name, NAME).is_some() {
            return Ok(Requeue::Done);
        }
        let metadata = ObjectMeta { name: Some(NAME.into()), namespace: Some(key.name.clone()), ..Default::default() };
        let account = ServiceAccount { metadata, ..Default::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Err(e) if !apply::is_already_exists(&e) && !apply::is_namespace_terminating(&e) => Err(e.into()),
            _ => Ok(Requeue::Done),
        }
    }
}
