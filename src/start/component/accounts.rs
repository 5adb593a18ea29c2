//! Each controller's own identity: a token of its service account, made anew before it ends (upstream's
//! `--use-service-account-credentials`).

use crate::client::{self, TokenSource};
use crate::task::Group;
use crate::{controllers, join};
use arc_swap::ArcSwap;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

const NAMESPACE: &str = "kube-system";
/// Life that is asked for, seconds.
const LIFE_SECONDS: i64 = 3600;
const RETRY: Duration = Duration::from_secs(2);

/// A client for each controller's identity. `client`: may make tokens and service accounts in kube-system.
pub async fn clients(
    kubeconfig: &Path,
    client: &Client,
    group: &Group,
) -> anyhow::Result<HashMap<&'static str, Client>> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let identities = controllers::identities();
    let tokens = identities.iter().map(|identity| fresh_token(&accounts, identity));
    let tokens = futures::future::join_all(tokens).await;
    let mut clients = HashMap::new();
    for (identity, token) in identities.into_iter().zip(tokens) {
        let live = Arc::new(ArcSwap::from_pointee(token));
        let line = client::with_token(kubeconfig, TokenSource::Live(live.clone()))?;
        clients.insert(identity, line.client(join::NAMESPACE));
        let accounts = accounts.clone();
        group.spawn("token", async move {
            loop {
                tokio::time::sleep(Duration::from_secs(LIFE_SECONDS.unsigned_abs()) * 3 / 4).await;
                live.store(Arc::new(fresh_token(&accounts, identity).await));
            }
        });
    }
    Ok(clients)
}

/// A token of a service account, which is made if it is not there. Tries until it works.
async fn fresh_token(accounts: &Api<ServiceAccount>, name: &str) -> String {
    loop {
        match asked(accounts, name).await {
            Ok(Some(token)) => return token,
            Ok(None) => warn!(name, "the server gave no token"),
            Err(error) => warn!(name, %error, "no token for a controller yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn asked(accounts: &Api<ServiceAccount>, name: &str) -> kube::Result<Option<String>> {
    let spec = TokenRequestSpec { expiration_seconds: Some(LIFE_SECONDS), ..Default::default() };
    let request = TokenRequest { spec: Some(spec), ..Default::default() };
    let made = match accounts.create_token_request(name, &PostParams::default(), &request).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
            accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..Default::default() }).await?;
            accounts.create_token_request(name, &PostParams::default(), &request).await?
        }
        other => other?,
    };
    Ok(made.status.and_then(|status| status.token))
}
