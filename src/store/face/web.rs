//! What etcd answers to plain HTTP: health, version, metrics. Not its v2 API, nor its JSON gateway.

use super::{Face, HttpResponse, VERSION};
use crate::status::{Reason, Status};
use crate::wire::http::{probe_response, status_response};
use axum::body::Body;
use http::Request;
use std::fmt::Write;

pub fn answer(face: &Face, request: &Request<Body>) -> HttpResponse {
    match request.uri().path() {
        "/health" | "/livez" | "/readyz" => {
            let reason = face.store.alarm().map_or("", |_| "ALARM NOSPACE");
            let health = format!("{{\"health\":\"{}\",\"reason\":\"{reason}\"}}\n", reason.is_empty());
            probe_response(reason.is_empty(), health)
        }
        "/version" => json(format!("{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"3.5.0\"}}")),
        "/metrics" => HttpResponse::new(Body::from(metrics(face))),
        path if path.starts_with("/v2/") => refuse("etcd's v2 API is not served: use the v3 API (ETCDCTL_API=3)"),
        path if path.starts_with("/v3/") => {
            refuse("the v3 API is served by gRPC, not as JSON: use etcdctl or a client")
        }
        _ => refuse("404 page not found: this is etcd's v3 API"),
    }
}

fn json(text: String) -> HttpResponse {
    probe_response(true, text)
}

fn refuse(why: &str) -> HttpResponse {
    status_response(&Status::new(Reason::NotFound, why))
}

/// A few of etcd's metrics, under its names.
fn metrics(face: &Face) -> String {
    let store = &face.store;
    let rows = [
        ("etcd_server_has_leader", 1),
        ("etcd_server_quota_backend_bytes", store.quota_bytes()),
        ("etcd_mvcc_db_total_size_in_bytes", store.disk_bytes()),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", store.disk_bytes().saturating_sub(store.history_bytes())),
        ("etcd_debugging_mvcc_current_revision", store.revision().0),
        ("etcd_debugging_mvcc_compact_revision", store.compacted().0),
    ];
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "# TYPE {name} gauge\n{name} {value}");
    }
    let _ = writeln!(out, "# TYPE etcd_server_version gauge\netcd_server_version{{server_version=\"{VERSION}\"}} 1");
    out
}
