use super::*;
use crate::server::kinds::TABLE;
use std::collections::HashSet;

fn get(path: &str, query: &str) -> Document {
    serve(Asked { path, query, accept: Some("application/json"), if_none_match: None }, TABLE)
        .expect("an OpenAPI path")
        .unwrap_or_else(|status| panic!("{path}: {status}"))
}

fn body(path: &str, query: &str) -> (Body, Value) {
    let Document::Body(body) = get(path, query) else { panic!("{path}: no body") };
    let value = serde_json::from_slice(&body.bytes).unwrap();
    (body, value)
}

#[test]
fn index_hashes_and_caching() {
    let (_, index) = body("/openapi/v3", "");
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let (path, query) = url.split_once('?').unwrap();
    let (first, _) = body(path, query);
    assert_eq!(first.cache_control, Some(FOREVER));
    let Document::Moved { location } = get(path, "hash=OLD") else { panic!("a stale hash is redirected") };
    assert_eq!(location, url);
    let asked = Asked { path, query, accept: None, if_none_match: first.etag.as_deref() };
    assert!(matches!(serve(asked, TABLE), Some(Ok(Document::NotModified { .. }))));
    for (path, accept, code) in [
        ("/openapi/v2", "application/json", 406),
        ("/openapi/v3", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf", 406),
        ("/openapi/v3/apis/nothing.example.com/v1", "*/*", 404),
        ("/openapi/v3/x", "*/*", 404),
    ] {
        let asked = Asked { path, accept: Some(accept), ..Default::default() };
        assert_eq!(serve(asked, TABLE).unwrap().map_err(|s| s.code()).err(), Some(code), "{path}");
    }
}

#[test]
fn what_kubectl_looks_for() {
    let (_, core) = body("/openapi/v3/api/v1", "");
    let pod = &core["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    let gvk = json!({"group": "", "version": "v1", "kind": "Pod"});
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([gvk]));
    let spec = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    let containers = &spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert!(containers["description"].as_str().unwrap().starts_with("List of containers belonging to the pod."));
    assert_eq!(spec["required"], json!(["containers"]));
    let patch = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    for name in ["dryRun", "fieldManager", "fieldValidation", "force"] {
        assert!(names.contains(&name), "{name}");
    }
}

/// Every kind is there, every type but list types is described, and no reference dangles.
#[test]
fn documents_are_complete() {
    fn references<'a>(value: &'a Value, found: &mut HashSet<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|v| references(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let (_, index) = body("/openapi/v3", "");
    let mut operations = 0;
    for name in index["paths"].as_object().unwrap().keys() {
        let (_, document) = body(&format!("/openapi/v3/{name}"), "");
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut found = HashSet::new();
        references(&document, &mut found);
        for reference in found {
            let target = reference.rsplit('/').next().unwrap();
            assert!(schemas.contains_key(target), "{name}: {reference}");
        }
        for item in document["paths"].as_object().unwrap().values() {
            operations += item.as_object().unwrap().keys().filter(|k| *k != "parameters").count();
        }
    }
    for kind in TABLE {
        let (_, document) = body(&format!("/openapi/v3/{}", name_of(kind.group, kind.version)), "");
        let name = schemas::name_of(kind.group, kind.version, kind.kind).unwrap();
        let schema = &document["components"]["schemas"][name];
        assert!(schema["description"].is_string(), "{name} is described");
        // Upstream leaves some `metadata` without a word of its own.
        let unexplained = |(field, value): (&String, &Value)| {
            (value.get("description").is_none() && field != "metadata").then(|| field.clone())
        };
        let missing: Vec<String> = schema["properties"].as_object().unwrap().iter().filter_map(unexplained).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
    assert!(operations > 600, "{operations} operations");
}
