//! Removes bootstrap tokens that have expired.

use super::super::driver::{Controller, Requeue, Wakes};
use super::super::{Context, apply};
use super::{NAMESPACE, seconds_left, tokens};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use std::time::Duration;

struct Clean {
    client: Client,
    tokens: Cache<Secret>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Clean { client: context.client.clone(), tokens: tokens(context) })
}

#[async_trait]
impl Controller for Clean {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.tokens);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let token = self.tokens.at(key).filter(|_| key.namespace == NAMESPACE);
        let Some((token, left)) = token.and_then(|t| Some((t.clone(), seconds_left(&t, crate::time::now())?))) else {
            return Ok(Requeue::Done);
        };
        if left > 0 {
            return Ok(Requeue::After(Duration::from_secs(left as u64)));
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        apply::delete(&api, token.as_ref()).await?;
        Ok(Requeue::Done)
    }
}
