//! The server's half of a join (DESIGN D10): what is told to everyone (the CA), to who has a token (the cluster's
//! settings), and to nodes whose certificate has ended (a new one). Certificates come by the CSR API.

mod node_token;
mod renewal;
mod settings;

pub use node_token::{NodeToken, node_token_file};

use crate::join::{CA_PATH, RENEWAL_PATH, SETTINGS_PATH, Settings};
use crate::server::api::{Parts, endpoint};
use crate::status::Result;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::path::Path;
use std::sync::Arc;

/// What the endpoints tell.
pub struct Join {
    pub token: Arc<NodeToken>,
    pub settings: Settings,
    /// PEM.
    pub server_ca: String,
}

impl Join {
    /// The node's token is kept below `data_dir`; `given`: what the flags say it is.
    pub fn new(data_dir: &Path, given: Option<&str>, settings: Settings, server_ca: String) -> anyhow::Result<Self> {
        let token = Arc::new(NodeToken::keep(data_dir, given, &server_ca)?);
        Ok(Join { token, settings, server_ca })
    }

    /// Hand everything to the API server to be built.
    pub fn install(&self, parts: &mut Parts) {
        parts.tokens.push(self.token.clone());
        let ca = self.server_ca.clone();
        parts.endpoints.push((CA_PATH, endpoint(move |_, _| Box::pin(std::future::ready(Ok(text(ca.clone())))))));
        let told = self.settings.clone();
        let tell = move |_, request: Request<Body>| -> BoxFuture<'static, Result<Response<Body>>> {
            Box::pin(std::future::ready(settings::answer(&told, &request)))
        };
        parts.endpoints.push((SETTINGS_PATH, endpoint(tell)));
        let renewals = Arc::new(renewal::Renewals::new(self.settings.client_ca.clone()));
        let renew = move |api, request| -> BoxFuture<'static, Result<Response<Body>>> {
            let renewals = renewals.clone();
            Box::pin(async move { renewals.answer(&api, request).await })
        };
        parts.endpoints.push((RENEWAL_PATH, endpoint(renew)));
    }
}

fn text(text: String) -> Response<Body> {
    Response::new(Body::from(text))
}
