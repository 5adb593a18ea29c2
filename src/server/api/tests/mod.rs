//! The API in process on the memory store: requests in, Status and objects out.

mod crud;
mod deletes;
mod lists;
mod services;
mod subresources;
mod watches;

use super::{Api, Parts};
use crate::object::Object;
use crate::server::authn::LocalIdentity;
use crate::server::registry::Registry;
use crate::server::request::UserInfo;
use crate::store::memory::Memory;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// A server, and an administrator's way to it.
struct Server {
    api: Arc<Api>,
}

/// An answer, read to its end.
struct Answer {
    code: u16,
    headers: http::HeaderMap,
    body: Value,
    text: String,
}

impl Server {
    fn new() -> Self {
        let registry = Registry::new(Memory::open());
        Server { api: Api::new(Parts::new(registry)) }
    }

    /// With the namespace `default`.
    async fn ready() -> Self {
        let server = Self::new();
        let made = server.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
        assert_eq!(made.code, 201, "{}", made.text);
        server
    }

    /// A request by an administrator; `headers` as `name: value`.
    async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
        let admin = UserInfo::authenticated("admin", &[UserInfo::MASTERS]);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(LocalIdentity(admin));
        self.api.handle(request).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        read(self.raw(method, path, headers, body).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    async fn post(&self, path: &str, object: Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], object.to_string()).await
    }

    async fn put(&self, path: &str, object: Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], object.to_string()).await
    }

    /// `kind`: json-patch+json, merge-patch+json, strategic-merge-patch+json, apply-patch+yaml.
    async fn patch(&self, path: &str, kind: &str, patch: Value) -> Answer {
        let kind = format!("application/{kind}");
        self.send("PATCH", path, &[("content-type", &kind)], patch.to_string()).await
    }

    async fn delete(&self, path: &str, options: Value) -> Answer {
        let body = if options.is_null() { String::new() } else { options.to_string() };
        self.send("DELETE", path, &[("content-type", "application/json")], body).await
    }

    /// A ConfigMap in `default` with one key.
    async fn config_map(&self, name: &str, value: &str) -> Answer {
        let object = json!({"metadata": {"name": name}, "data": {"v": value}});
        self.post("/api/v1/namespaces/default/configmaps", object).await.expect(201)
    }
}

async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { code: parts.status.as_u16(), headers: parts.headers, body, text }
}

impl Answer {
    /// The answer itself, if its code is this one.
    #[track_caller]
    fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    fn revision(&self) -> u64 {
        self.body["metadata"]["resourceVersion"].as_str().unwrap_or("0").parse().unwrap_or(0)
    }

    fn names(&self) -> Vec<&str> {
        let items = self.body["items"].as_array().into_iter().flatten();
        items.filter_map(|i| i["metadata"]["name"].as_str()).collect()
    }

    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or("")
    }
}

/// A Deployment as users write it.
fn deployment(name: &str) -> Object {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

fn pod(name: &str) -> Object {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
