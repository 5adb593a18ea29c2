use super::*;
use serde_json::json;

fn round_trip(object: &Value) -> Value {
    let bytes = encode(object).expect("encodes");
    decode(&bytes, ("", "", "")).expect("decodes")
}

#[test]
fn objects_survive_a_round_trip() {
    let canonical = |mut object: Value| {
        let (group, version) = object::split_api_version(object["apiVersion"].as_str().unwrap()).to_owned();
        let ty = builtin().of(group, version, object["kind"].as_str().unwrap()).expect("a built-in kind");
        canonicalize(&mut object, Typed { schema: builtin(), ty });
        object
    };
    for object in [
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"x": "", "y": "z"}, "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "hostPath": {"path": "/x", "type": ""}}],
            "containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": "web"}, "periodSeconds": 5},
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "100m"}},
            "securityContext": {"runAsUser": 0, "privileged": false}}], "priority": -5,
            "tolerations": [{"key": "k", "tolerationSeconds": 0}]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0, "strategy": {"rollingUpdate":
            {"maxSurge": "25%", "maxUnavailable": 1}}, "template": {}}}),
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "AAEC", "b": ""}, "type": "x"}),
        json!({"apiVersion": "v1", "kind": "Event", "eventTime": "2026-01-02T03:04:05.000006Z", "count": 3}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "spec":
            {"matchConstraints": {"resourceRules": [{"resourceNames": ["r"], "operations": ["CREATE"], "apiGroups": ["g"]}]}}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"extra": {"k": ["a", "b"], "l": []}}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "status": {"disruptedPods": {"p": "2026-01-02T03:04:05Z"}}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": [{"name":
            "v1", "schema": {"openAPIV3Schema": {"type": "object", "maximum": 1.5, "default": {"a": [1, "x"]},
            "additionalProperties": false, "items": {"type": "string"}, "enum": ["a", 1, null],
            "properties": {"p": {"additionalProperties": {"type": "integer"}, "items": [{"type": "string"}],
            "dependencies": {"d": ["a"], "e": {"type": "null"}}}}}}}]}}),
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "x"}}]}),
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 404, "details": {"causes": [{"field": "f"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}}),
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "x"}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {}, "ingress": [{}]}}),
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "spec": {"type": "Exempt", "exempt": {"lendablePercent": 0}}}),
    ] {
        let want = canonical(object);
        assert_eq!(round_trip(&want), want);
    }
}

/// `Verbs` is a message with repeated `items` (generated.proto of meta/v1), unlike other lists of strings.
#[test]
fn verbs_are_a_message() {
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
        "resources": [{"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]}]});
    assert_eq!(round_trip(&list), list);
    let bytes = encode(&list).unwrap();
    let verbs = b"\x22\x0b\x0a\x03get\x0a\x04list";
    assert!(bytes.windows(verbs.len()).any(|w| w == verbs), "{bytes:?}");
}

#[test]
fn envelope() {
    // What Go writes for a ConfigMap {metadata: {name: "a"}, data: {"k": "v"}}.
    let mut body = MAGIC.to_vec();
    body.extend(b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x12\x0a\x08\x0a\x01a\x12\x00\x1a\x01n\x12\x06\x0a\x01k\x12\x01v\x1a\x00\x22\x00");
    let object = decode(&body, ("", "v1", "ConfigMap")).unwrap();
    let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {"k": "v"}});
    assert_eq!(object, want);
    // Without a kind the expected one is taken.
    let mut bare = MAGIC.to_vec();
    bare.extend(b"\x12\x12\x0a\x08\x0a\x01a\x12\x00\x1a\x01n\x12\x06\x0a\x01k\x12\x01v");
    assert_eq!(decode(&bare, ("", "v1", "ConfigMap")).unwrap(), want);
}

#[test]
fn damaged_bodies_are_errors_and_never_panic() {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}], "priority": 7}});
    let bytes = encode(&object).unwrap();
    for cut in 0..bytes.len() {
        let _ = decode(&bytes[..cut], ("", "v1", "Pod"));
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[cut] ^= 1 << bit;
            let _ = decode(&damaged, ("", "v1", "Pod"));
        }
    }
    assert!(decode(b"{}", ("", "v1", "Pod")).is_err());
    let unknown = json!({"apiVersion": "example.com/v1", "kind": "Foo"});
    assert_eq!(encode(&unknown).map_err(|s| s.code()), Err(406));
    assert_eq!(encode(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"})).map_err(|s| s.code()), Err(406));
}

#[test]
fn watch_frames() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let frame = watch_frame(EventType::Added, &object).unwrap();
    let (length, body) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, body.len());
    let fields: Vec<_> = wire::fields(body).collect::<std::result::Result<_, _>>().unwrap();
    assert_eq!(fields[0], (1, wire::Value::Bytes(b"ADDED")));
    let (2, wire::Value::Bytes(extension)) = fields[1] else { panic!("no object") };
    let Some(Ok((1, wire::Value::Bytes(raw)))) = wire::fields(extension).next() else { panic!("no raw") };
    assert_eq!(decode(raw, ("", "", "")).unwrap(), object);
}

/// Upstream's own fixtures: `KEDGE_API_FIXTURES=<k8s.io/api module>/testdata/HEAD cargo test fixtures -- --ignored`.
/// With `KEDGE_API_WRITTEN` set, what we encode is left in that folder for Go to read.
#[test]
#[ignore = "needs the testdata folder of the Go module k8s.io/api"]
fn upstream_fixtures() {
    let folder = std::env::var("KEDGE_API_FIXTURES").expect("KEDGE_API_FIXTURES names the folder");
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let text = |key: &str| json[key].as_str().unwrap_or("").to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = object::split_api_version(&api_version);
        let Some(ty) = builtin().of(group, version, &kind) else { continue };
        seen += 1;
        let typed = Typed { schema: builtin(), ty };
        let mut want = json.clone();
        let unknown = crate::server::schema::check::check(&mut want, typed);
        canonicalize(&mut want, typed);
        let pb = std::fs::read(path.with_extension("pb")).unwrap();
        let got = decode(&pb, ("", "", ""));
        if let (Ok(folder), Ok(object)) = (std::env::var("KEDGE_API_WRITTEN"), &got) {
            let file = std::path::Path::new(&folder).join(path.file_name().unwrap());
            std::fs::write(file.with_extension("pb"), encode(object).unwrap()).unwrap();
            std::fs::write(file.with_extension("watch"), watch_frame(EventType::Modified, object).unwrap()).unwrap();
        }
        let again = got.clone().and_then(|o| decode(&encode(&o).unwrap(), ("", "", "")));
        if unknown != Ok(vec![]) || got.as_ref() != Ok(&want) || again != got {
            wrong.push(format!("{}: {unknown:?}\n  want {want}\n  got  {got:?}\n  again {again:?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} of {seen} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 70, "only {seen} fixtures of known kinds");
}
