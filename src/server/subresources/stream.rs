//! Streams: logs, exec, attach, port-forward of pods through their node's kubelet. Requests arrive
//! here authorized. After the kubelet has switched protocols the bytes are joined without being looked at.

use crate::object::{Object, ObjectExt};
use crate::server::api::Incoming;
use crate::server::kubelet::Kubelets;
use crate::server::registry::{Call, key_of, parse};
use crate::server::request::RequestInfo;
use crate::status::{Result, Status};
use crate::store::{KeyRange, RangeRequest};
use crate::wire::query::Query;
use crate::wire::upgrade::{self, Answer};
use axum::body::Body;
use http::{Method, Request, Response};
use serde_json::Value;
use std::sync::Arc;

/// Connect a client with a pod.
pub async fn connect(call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let Incoming { info, query, request, .. } = incoming;
    // A WebSocket handshake is a GET, but a stream into a container changes it: `create` is needed whatever the method.
    if matches!(info.subresource.as_str(), "exec" | "attach" | "portforward") && info.verb != "create" {
        call.api.require(&call.user, &RequestInfo { verb: "create".into(), ..(*info).clone() }).await?;
    }
    let kubelets = call.api.kubelets().cloned().ok_or_else(|| Status::unavailable("this server cannot reach nodes"))?;
    let (_, object) = call.load(&info.name).await?;
    let path = match (call.kind().plural, info.subresource.as_str()) {
        ("pods", "log") => log_path(&object, &query)?,
        ("pods", "exec") => stream_path("exec", &object, &query)?,
        ("pods", "attach") => stream_path("attach", &object, &query)?,
        ("pods", "portforward") => portforward_path(&object, &query),
        (plural, subresource) => {
            return Err(Status::unavailable(format!("{plural}/{subresource} is not available on this server yet")));
        }
    };
    let node = node_of(&call, &object).await?;
    let method = if info.subresource == "log" { Method::GET } else { request.method().clone() };
    relay(&kubelets, &node, method, &path, request).await
}

/// The Node a pod is bound to.
async fn node_of(call: &Call, pod: &Object) -> Result<Object> {
    let name = pod.str_at(&["spec", "nodeName"]);
    if name.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name())));
    }
    let registry = call.api.registry();
    let kind = registry.kind_of("", "nodes").ok_or_else(Status::no_such_path)?;
    let range = RangeRequest::of(KeyRange::key(key_of(kind, "", name)));
    let found = registry.store().range(range).await.map_err(crate::server::registry::store_error)?;
    let kv = found.kvs.first().ok_or_else(|| Status::not_found("", "nodes", name))?;
    parse(kind, &kv.value, kv.mod_revision)
}

/// Send the request on, and join the streams if the kubelet switches protocols.
async fn relay(
    kubelets: &Arc<Kubelets>,
    node: &Object,
    method: Method,
    path: &str,
    mut request: Request<Body>,
) -> Result<Response<Body>> {
    let wants_upgrade = upgrade::is_upgrade(&request);
    let headers = request.headers().clone();
    let body = if wants_upgrade { Body::empty() } else { std::mem::take(request.body_mut()) };
    match kubelets.request(node, method, path, &headers, body).await? {
        Answer::Plain(response) => Ok(response.map(Body::new)),
        Answer::Switched(headers, io) => Ok(upgrade::relay(request, headers, *io, kubelets.group())),
    }
}

fn log_path(pod: &Object, query: &Query) -> Result<String> {
    let container = chosen(pod, query)?;
    let passed = ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
    let pairs: Vec<(&str, &str)> = passed.iter().filter_map(|n| query.find(n).map(|v| (*n, v))).collect();
    Ok(format!("/containerLogs/{}/{}/{container}{}", pod.namespace(), pod.name(), encoded(&pairs)))
}

fn stream_path(verb: &str, pod: &Object, query: &Query) -> Result<String> {
    let phase = pod.str_at(&["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Status::bad_request(format!(
            "cannot {verb} in or attach to a container in a completed pod; current phase is {phase}"
        )));
    }
    let container = chosen(pod, query)?;
    let mut pairs: Vec<(&str, &str)> = query.all("command").map(|c| ("command", c)).collect();
    // The kubelet's names of the same switches.
    for (name, kubelet) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(name) {
            pairs.push((kubelet, "1"));
        }
    }
    Ok(format!("/{verb}/{}/{}/{container}{}", pod.namespace(), pod.name(), encoded(&pairs)))
}

fn portforward_path(pod: &Object, query: &Query) -> String {
    let pairs: Vec<(&str, &str)> = query.all("ports").chain(query.all("port")).map(|p| ("port", p)).collect();
    format!("/portForward/{}/{}{}", pod.namespace(), pod.name(), encoded(&pairs))
}

/// The container that is meant: the one named, the default one, the only one. Upstream's texts.
fn chosen(pod: &Object, query: &Query) -> Result<String> {
    let names = |field: &str| {
        let list = pod.at(&["spec", field]).and_then(Value::as_array);
        list.into_iter().flatten().map(|c| c.str_at(&["name"]).to_owned()).collect::<Vec<_>>()
    };
    let (containers, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let wanted = query.get("container");
    if !wanted.is_empty() {
        let known = [&containers, &init, &ephemeral].iter().any(|l| l.iter().any(|n| n == wanted));
        let text = || format!("container {wanted} is not valid for pod {}", pod.name());
        return if known { Ok(wanted.to_owned()) } else { Err(Status::bad_request(text())) };
    }
    match containers.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {}", pod.name()))),
        many => {
            let default = pod.annotations().and_then(|a| a.get("kubectl.kubernetes.io/default-container"));
            if let Some(name) = default.and_then(Value::as_str).filter(|n| many.iter().any(|m| m == n)) {
                return Ok(name.to_owned());
            }
            let mut text = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                many.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(text))
        }
    }
}

/// `?a=b&c=d`, percent-encoded; empty without pairs.
fn encoded(pairs: &[(&str, &str)]) -> String {
    let text = |s: &str| -> String {
        let one = |b: u8| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (b as char).to_string(),
            other => format!("%{other:02X}"),
        };
        s.bytes().map(one).collect()
    };
    let all: Vec<String> = pairs.iter().map(|(n, v)| format!("{}={}", text(n), text(v))).collect();
    if all.is_empty() { String::new() } else { format!("?{}", all.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Object {
        json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}})
    }

    #[test]
    fn paths_of_the_kubelet() {
        let query = Query::parse("container=a&command=echo&command=a%20b%26&stdout=true&stderr=true&tty=false");
        assert_eq!(
            stream_path("exec", &pod(), &query).unwrap(),
            "/exec/n/p/a?command=echo&command=a%20b%26&output=1&error=1"
        );
        let query = Query::parse("container=i&follow=true&tailLines=3&other=x");
        assert_eq!(log_path(&pod(), &query).unwrap(), "/containerLogs/n/p/i?follow=true&tailLines=3");
    }

    #[test]
    fn containers_are_chosen_as_upstream_does() {
        let text = |query: &str| chosen(&pod(), &Query::parse(query)).map_err(|s| s.message);
        assert_eq!(text("container=b"), Ok("b".to_owned()));
        assert_eq!(text("container=x"), Err("container x is not valid for pod p".to_owned()));
        let many =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(text(""), Err(many.to_owned()));
        let mut annotated = pod();
        annotated.set_at(&["metadata", "annotations", "kubectl.kubernetes.io/default-container"], json!("b"));
        assert_eq!(chosen(&annotated, &Query::parse("")), Ok("b".to_owned()));
    }
}
