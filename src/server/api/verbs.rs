//! From an authorized request to the verb of a kind.

use super::body::{self, header};
use super::respond::{add_warnings, answer_response, list_response, object_response, watch_response};
use super::{Api, Incoming, Wanted};
use crate::object::ObjectExt;
use crate::server::codec::Offer;
use crate::server::kinds::{Kind, Verbs};
use crate::server::registry::{Answer, Call, Change, Part, Served, parse};
use crate::server::request::options::{DeleteOptions, ListOptions, WriteOptions, get_revision};
use crate::server::request::{RequestInfo, UserInfo};
use crate::server::watch::Watcher;
use crate::server::{subresources, table};
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::header::USER_AGENT;
use http::{HeaderMap, Response};
use serde_json::Value;
use std::sync::Arc;

/// Longest default manager name, in bytes (upstream `prefixFromUserAgent`).
const MAX_AGENT_BYTES: usize = 128;

impl Api {
    pub(super) async fn route(self: &Arc<Self>, incoming: Incoming) -> Result<Response<Body>> {
        let info = &incoming.info;
        if !info.is_resource {
            return self.documents(incoming).await;
        }
        let served =
            self.registry().served(&info.group, &info.version, &info.resource).ok_or_else(Status::no_such_path)?;
        check_path(served.kind, info)?;
        let call = self.call(served, &incoming)?;
        if !info.subresource.is_empty() {
            return subresources::serve(call, incoming).await;
        }
        let mut response = match served.kind.verbs {
            Verbs::CreateOnly => subresources::create_only(call, incoming).await?,
            _ => self.verb(call, incoming).await?,
        };
        if let Some(text) = served.kind.deprecation() {
            add_warnings(&mut response, &[text.to_owned()]);
        }
        Ok(response)
    }

    fn call(self: &Arc<Self>, served: Served, incoming: &Incoming) -> Result<Call> {
        let what = match incoming.info.verb.as_str() {
            "create" => "CreateOptions",
            "patch" => "PatchOptions",
            _ => "UpdateOptions",
        };
        Ok(Call {
            api: self.clone(),
            served,
            info: incoming.info.clone(),
            user: incoming.user.clone(),
            // Parameters of a proxy request are the backend's.
            write: match incoming.info.subresource.as_str() {
                "proxy" => WriteOptions::default(),
                _ => WriteOptions::parse(&incoming.query, what)?,
            },
            agent: agent(incoming.request.headers(), &incoming.user),
            warnings: Vec::new(),
        })
    }

    async fn verb(self: &Arc<Self>, mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
        let kind = call.kind();
        let Incoming { info, query, request, .. } = incoming;
        let wanted = Wanted::parse(request.headers(), request.extensions(), &query, offer(&call))?;
        if kind.verbs == Verbs::ReadOnly {
            return read_only(&call, wanted);
        }
        let answer = match info.verb.as_str() {
            "list" => {
                let list = call.list(&ListOptions::parse(&query, false)?).await?;
                return list_response(list, wanted).await;
            }
            "watch" => return watch(&call, &query, wanted).await,
            "get" => {
                let revision = get_revision(&query)?;
                let kv = call.read(&info.name, revision).await?.ok_or_else(|| call.not_found(&info.name))?;
                read_answer(kind, kv, wanted)?
            }
            "create" if info.name.is_empty() => {
                let (headers, body) = (request.headers().clone(), request.into_body());
                let expected = (kind.group, kind.version, kind.kind);
                let (object, warnings) =
                    body::read_object(&headers, body, expected, call.served.typed, call.write.validation).await?;
                call.warnings.extend(warnings);
                call.create(object, false).await?
            }
            "update" => call.put(Part::Main, request).await?,
            "patch" => call.patch(Part::Main, request).await?,
            "delete" => {
                let options = delete_options(&query, request).await?;
                call.delete(&info.name, &options).await?
            }
            "deletecollection" if kind.verbs == Verbs::All => {
                let options = delete_options(&query, request).await?;
                let list = call.list(&ListOptions::parse(&query, false)?).await?;
                let items = list.collect().await?;
                call.delete_collection(items, &options).await?
            }
            verb => return Err(Status::method_not_allowed(kind.group, kind.plural, verb)),
        };
        answer_response(&call, answer, wanted)
    }
}

impl Call {
    /// PUT of the whole object, or of a part that looks like it.
    pub async fn put(&mut self, part: Part, request: http::Request<Body>) -> Result<Answer> {
        let kind = self.kind();
        let name = self.info.name.clone();
        let (headers, body) = (request.headers().clone(), request.into_body());
        let expected = (kind.group, kind.version, kind.kind);
        let (object, warnings) =
            body::read_object(&headers, body, expected, self.served.typed, self.write.validation).await?;
        self.warnings.extend(warnings);
        let create = part == Part::Main && kind.strategy.allow_create_on_update();
        let mut make = move |_: Option<&Value>| Ok((object.clone(), false));
        self.change(&name, Change { part, make: &mut make, create }).await
    }
}

/// What a kind can be answered as.
pub fn offer(call: &Call) -> Offer {
    Offer { protobuf: call.served.typed.is_some(), views: true }
}

/// Namespaces where they belong, names where they are needed.
fn check_path(kind: &Kind, info: &RequestInfo) -> Result<()> {
    let collection = matches!(info.verb.as_str(), "list" | "watch");
    if kind.is_namespaced() && info.namespace.is_empty() && !collection {
        return Err(Status::method_not_allowed(kind.group, kind.plural, &info.verb));
    }
    // A cluster-scoped kind below a namespace is no path of ours; a namespace itself is.
    if !kind.is_namespaced() && !info.namespace.is_empty() && kind.plural != "namespaces" {
        return Err(Status::no_such_path());
    }
    let needs_name = matches!(info.verb.as_str(), "update" | "patch" | "delete");
    if needs_name && info.name.is_empty() {
        return Err(Status::method_not_allowed(kind.group, kind.plural, &info.verb));
    }
    Ok(())
}

async fn watch(call: &Call, query: &crate::server::request::Query, wanted: Wanted) -> Result<Response<Body>> {
    let mut options = ListOptions::parse(query, true)?;
    if options.fields.exact("metadata.name").is_none() && !call.info.name.is_empty() {
        // The deprecated form names the object in the path.
        let term = crate::selector::FieldTerm {
            field: "metadata.name".to_owned(),
            value: call.info.name.clone(),
            negated: false,
        };
        options.fields.terms.push(term);
    }
    let watcher = Watcher::start(call, &options, wanted.accepted, wanted.include).await?;
    let running = call.api.metrics().watch_started();
    use futures::StreamExt;
    let frames = watcher.frames().inspect(move |_| {
        let _ = &running;
    });
    Ok(watch_response(frames, wanted))
}

/// The answer to a GET: stored bytes where they can be sent as they are.
fn read_answer(kind: &Kind, kv: crate::store::KeyValue, wanted: Wanted) -> Result<Answer> {
    use crate::server::codec::{Format, View};
    let accepted = wanted.accepted;
    let plain = accepted.format == Format::Json && accepted.view == View::Object && !accepted.pretty;
    let object =
        if plain && kind.conversion.is_none() { Value::Null } else { parse(kind, &kv.value, kv.mod_revision)? };
    Ok(Answer { success: Success::Ok, object, stored: Some((kv.value, kv.mod_revision)) })
}

/// Kinds that list nothing (componentstatuses: there are no components to ask).
fn read_only(call: &Call, wanted: Wanted) -> Result<Response<Body>> {
    match call.info.verb.as_str() {
        "list" => {
            let list = table::list(call.kind(), serde_json::json!({}), Vec::new(), wanted.accepted.view);
            object_response(&list, Success::Ok, wanted)
        }
        "get" => Err(call.not_found(&call.info.name)),
        verb => Err(Status::method_not_allowed(call.kind().group, call.kind().plural, verb)),
    }
}

async fn delete_options(query: &crate::server::request::Query, request: http::Request<Body>) -> Result<DeleteOptions> {
    let (headers, body) = (request.headers().clone(), request.into_body());
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(query, &Value::Null);
    }
    let format = crate::server::codec::content_type(header(&headers, "content-type"))?;
    let decoded = crate::server::codec::decode_body(format, &bytes, ("", "v1", "DeleteOptions"))?;
    let kind = decoded.object.str_at(&["kind"]);
    if !matches!(kind, "" | "DeleteOptions") {
        let why = format!("decoded object cannot be converted to DeleteOptions: {kind}");
        return Err(Status::bad_request(why));
    }
    DeleteOptions::parse(query, &decoded.object)
}

/// The default field manager: the user agent up to its version, else the last part of the user's name
/// (`system:kube-scheduler`: components in this process send no user agent).
fn agent(headers: &HeaderMap, user: &UserInfo) -> String {
    let agent = header(headers, USER_AGENT.as_str()).unwrap_or("").split('/').next().unwrap_or("");
    let agent = if agent.is_empty() { user.name.rsplit(':').next().unwrap_or("") } else { agent };
    let mut name: String = agent.chars().filter(|c| !c.is_control()).collect();
    while name.len() > MAX_AGENT_BYTES {
        name.pop();
    }
    name
}
