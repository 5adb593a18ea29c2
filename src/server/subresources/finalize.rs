//! `namespaces/finalize`: the one way to change `spec.finalizers`. The last one gone, a terminating namespace goes.

use super::{body, wanted};
use crate::object::{Object, ObjectExt};
use crate::server::api::{Incoming, answer_response};
use crate::server::registry::{Call, Change, Part};
use crate::status::Result;
use axum::body::Body;
use http::Response;

pub async fn serve(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let name = incoming.info.name.clone();
    let given = body(&mut call, incoming.request, ("", "v1", "Namespace")).await?;
    let mut make = |old: Option<&Object>| {
        let mut new = old.cloned().unwrap_or_default();
        let finalizers = given.at(&["spec", "finalizers"]).cloned().unwrap_or_else(|| serde_json::json!([]));
        new.set_at(&["spec", "finalizers"], finalizers);
        for field in ["resourceVersion", "uid", "name"] {
            match given.at(&["metadata", field]) {
                Some(value) => new.set_at(&["metadata", field], value.clone()),
                None if field == "resourceVersion" => drop(new.remove_at(&["metadata", field])),
                None => {}
            }
        }
        Ok((new, false))
    };
    let change = Change { part: Part::Subresource("finalize"), make: &mut make, create: false };
    let answer = call.change(&name, change).await?;
    answer_response(&call, answer, wanted)
}
