//! Which CA signs for whom: client certificates come from the client CA, serving ones from the server CA. Legacy requests
//! get what no API server takes for a user.

use crate::controllers::certificates::{CLIENT, NODE_CLIENT, Settings, Signer};
use crate::pki::{Authority, Pki, Request, Signing};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// With the server's own keys.
pub fn by(pki: &Arc<Pki>, life: Duration) -> Settings {
    let keys = pki.clone();
    let sign = move |signer: &str, request: &Request, usages: &[String], life: i64| {
        authority(signer, keys.client_ca(), keys.server_ca()).sign_as_asked(request, usages, life)
    };
    Settings { signer: Some(Signer(Arc::new(sign))), api_names: pki.server_names(), life }
}

/// With the keys in a folder.
pub fn from_files(dir: &Path) -> anyhow::Result<Settings> {
    let Signing { client_ca, server_ca, api_names } = Signing::load(dir)?;
    let sign = move |signer: &str, request: &Request, usages: &[String], life: i64| {
        authority(signer, &client_ca, &server_ca).sign_as_asked(request, usages, life)
    };
    Ok(Settings { signer: Some(Signer(Arc::new(sign))), api_names, ..Default::default() })
}

fn authority<'a>(signer: &str, client_ca: &'a Authority, server_ca: &'a Authority) -> &'a Authority {
    if matches!(signer, CLIENT | NODE_CLIENT) { client_ca } else { server_ca }
}
