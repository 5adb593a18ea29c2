//! `/kedge/secrets-encrypt`: GET tells how far encryption has come, POST rotates the key.

use super::Sealed;
use crate::server::api::{Endpoint, endpoint, json_response};
use crate::status::Status;
use http::Method;
use std::sync::Arc;

pub const PATH: &str = "/kedge/secrets-encrypt";

pub fn serve(sealed: Arc<Sealed>) -> Endpoint {
    endpoint(move |_, request| {
        let sealed = sealed.clone();
        Box::pin(async move {
            if *request.method() == Method::POST {
                sealed.rotate().map_err(|e| Status::internal(format!("{e:#}")))?;
            }
            json_response(&sealed.status().await.map_err(Status::internal)?)
        })
    })
}
