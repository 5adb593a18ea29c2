//! `/kedge/secrets-encrypt`: GET tells how far encryption has come, POST rotates the key.

use super::Sealed;
use crate::server::api::{Endpoint, endpoint, json_response};
use crate::status::{Reason, Status};
use http::Method;
use std::sync::Arc;

pub const PATH: &str = "/kedge/secrets-encrypt";

/// Servers that share a store have no way yet to hear of each other's keys.
const SHARED: &str =
    "servers that share an etcd keep the encryption key that they have: rotation is not possible there";

/// `shared`: other servers may use the store, too.
pub fn serve(sealed: Arc<Sealed>, shared: bool) -> Endpoint {
    endpoint(move |_, request| {
        let sealed = sealed.clone();
        Box::pin(async move {
            if *request.method() == Method::POST {
                if shared {
                    return Err(Status::new(Reason::MethodNotAllowed, SHARED));
                }
                sealed.rotate().map_err(|e| Status::internal(format!("{e:#}")))?;
            }
            json_response(&sealed.status().await.map_err(Status::internal)?)
        })
    })
}
