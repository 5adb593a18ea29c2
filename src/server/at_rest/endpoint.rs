//! `/kedge/secrets-encrypt`: GET tells how far encryption has come, POST rotates the key.

use super::Sealed;
use super::shared::SharedKeys;
use crate::server::api::{Endpoint, endpoint, json_response};
use crate::status::Status;
use http::Method;
use std::sync::Arc;

pub const PATH: &str = "/kedge/secrets-encrypt";

/// `shared`: where other servers use the store, too.
pub fn serve(sealed: Arc<Sealed>, shared: Option<Arc<SharedKeys>>) -> Endpoint {
    endpoint(move |_, request| {
        let (sealed, shared) = (sealed.clone(), shared.clone());
        Box::pin(async move {
            if *request.method() == Method::POST {
                let rotated = match shared {
                    Some(shared) => shared.rotate().await,
                    None => sealed.rotate(),
                };
                rotated.map_err(|e| Status::internal(format!("{e:#}")))?;
            }
            json_response(&sealed.status().await.map_err(Status::internal)?)
        })
    })
}
