//! `serviceaccounts/token`: TokenRequest.

use super::{body, reply, wanted};
use crate::object::{Object, ObjectExt};
use crate::server::admission::Operation;
use crate::server::api::Incoming;
use crate::server::registry::Call;
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::Response;

const GVK: (&str, &str, &str) = ("authentication.k8s.io", "v1", "TokenRequest");

pub async fn serve(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let name = incoming.info.name.clone();
    let mut request: Object = body(&mut call, incoming.request, GVK).await?;
    let (_, account) = call.load(&name).await?;
    if request.name().is_empty() {
        request.set_at(&["metadata", "name"], name.clone().into());
    }
    if request.name() != name {
        return Err(Status::bad_request("name in URL does not match name in TokenRequest object"));
    }
    request.set_at(&["metadata", "namespace"], account.namespace().into());
    request.set_at(&["metadata", "creationTimestamp"], call.now().into());
    call.admit(Operation::Create, Some(&mut request), None).await?;
    call.check(Operation::Create, Some(&mut request), None).await?;
    let issuer = call.api.issuer().ok_or_else(|| Status::unavailable("this server issues no tokens"))?;
    let answer = issuer.issue(&call.user, &account, request).await?;
    reply(&call, &answer, Success::Created, wanted)
}
