//! Subresources and kinds that are only created: one file each. Streams are in [`stream`].

mod binding;
mod eviction;
mod finalize;
mod pod_parts;
mod proxy;
mod review;
mod scale;
pub mod stream;
mod token;

use crate::object::Object;
use crate::server::api::{Incoming, Wanted, object_response, read_object};
use crate::server::codec::Offer;
use crate::server::patch::Typed;
use crate::server::registry::{Call, Part};
use crate::server::schema;
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::{Request, Response};

/// Serve a subresource of a kind.
pub async fn serve(call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let kind = call.kind();
    let subresource = kind.subresource(&incoming.info.subresource).ok_or_else(Status::no_such_path)?;
    if subresource.name == "proxy" {
        // Any method may be passed on, also those that are no verb here.
        return proxy::serve(call, incoming).await;
    }
    if !subresource.verbs.contains(&incoming.info.verb.as_str()) {
        return Err(Status::method_not_allowed(kind.group, kind.plural, &incoming.info.verb));
    }
    match subresource.name {
        "log" | "exec" | "attach" | "portforward" => stream::connect(call, incoming).await,
        "status" => whole(call, incoming, Part::Status).await,
        "finalize" => finalize::serve(call, incoming).await,
        "scale" => scale::serve(call, incoming).await,
        "approval" => whole(call, incoming, Part::Subresource("approval")).await,
        "binding" => binding::of_pod(call, incoming).await,
        "eviction" => eviction::serve(call, incoming).await,
        "ephemeralcontainers" => pod_parts::serve(call, incoming, pod_parts::EPHEMERAL_CONTAINERS).await,
        "resize" => pod_parts::serve(call, incoming, pod_parts::RESIZE).await,
        "token" => token::serve(call, incoming).await,
        _ => Err(Status::no_such_path()),
    }
}

/// Serve a kind that is created and never stored.
pub async fn create_only(call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let kind = call.kind();
    if incoming.info.verb != "create" || !incoming.info.name.is_empty() {
        return Err(Status::method_not_allowed(kind.group, kind.plural, &incoming.info.verb));
    }
    match (kind.group, kind.plural) {
        ("", "bindings") => binding::of_namespace(call, incoming).await,
        _ => review::serve(call, incoming).await,
    }
}

/// GET, PUT, PATCH of the object itself, as a part of it.
async fn whole(mut call: Call, incoming: Incoming, part: Part) -> Result<Response<Body>> {
    let Incoming { info, query, request, .. } = incoming;
    let offer = Offer { protobuf: call.served.typed.is_some(), views: true };
    let wanted = Wanted::parse(request.headers(), request.extensions(), &query, offer)?;
    let answer = match info.verb.as_str() {
        "get" => crate::server::registry::Answer::of(call.load(&info.name).await?.1),
        "update" => call.put(part, request).await?,
        _ => call.patch(part, request).await?,
    };
    crate::server::api::answer_response(&call, answer, wanted)
}

/// The body of a subresource with a kind of its own, decoded and checked.
async fn body(call: &mut Call, request: Request<Body>, gvk: (&str, &str, &str)) -> Result<Object> {
    let headers = request.headers().clone();
    let (object, warnings) = read_object(&headers, request.into_body(), gvk, typed(gvk), call.write.validation).await?;
    call.warnings.extend(warnings);
    Ok(object)
}

fn typed(gvk: (&str, &str, &str)) -> Option<Typed<'static>> {
    let schema = schema::builtin();
    schema.of(gvk.0, gvk.1, gvk.2).map(|ty| Typed { schema, ty })
}

/// How a subresource with a kind of its own is answered.
fn wanted(incoming: &Incoming) -> Result<Wanted> {
    let offer = Offer { protobuf: true, views: false };
    Wanted::parse(incoming.request.headers(), incoming.request.extensions(), &incoming.query, offer)
}

/// The answer with such a body.
fn reply(call: &Call, object: &Object, success: Success, wanted: Wanted) -> Result<Response<Body>> {
    let mut response = object_response(object, success, wanted)?;
    crate::server::api::add_warnings(&mut response, &call.warnings);
    Ok(response)
}

/// The `Success` Status of what changes something and has nothing to show.
fn done() -> Object {
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": Success::Created.code()})
}
