use super::*;
use crate::server::schema::builtin;
use serde_json::json;

fn typed(group: &str, version: &str, kind: &str) -> Typed<'static> {
    Typed { schema: builtin(), ty: builtin().of(group, version, kind).expect("a built-in kind") }
}

#[test]
fn unknown_fields_are_named_and_removed() {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"a": "b"}, "foo": 1},
        "spec": {"replicaz": 1, "template": {"spec": {"containers": [{"name": "c"}, {"name": "d", "imagee": "x"}]}}},
        "bar": null,
    });
    let unknown = check(&mut object, typed("apps", "v1", "Deployment")).unwrap();
    let want = [
        r#"unknown field "bar""#,
        r#"unknown field "metadata.foo""#,
        r#"unknown field "spec.replicaz""#,
        r#"unknown field "spec.template.spec.containers[1].imagee""#,
    ];
    assert_eq!(unknown, want);
    assert_eq!(object["spec"]["template"]["spec"]["containers"][1], json!({"name": "d"}));
    assert!(object.get("bar").is_none() && object["spec"].get("replicaz").is_none());
}

#[test]
fn field_validation() {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "dada": {}, "data": {"a": "b"}});
    let run = |mode| {
        let mut object = body.clone();
        let result = admit(&mut object, typed("", "v1", "ConfigMap"), vec!["duplicate field \"data.a\"".into()], mode);
        result.map_err(|s| (s.code(), s.message))
    };
    assert_eq!(run(FieldValidation::Ignore), Ok(vec![]));
    let both = vec!["unknown field \"dada\"".to_owned(), "duplicate field \"data.a\"".to_owned()];
    assert_eq!(run(FieldValidation::Warn), Ok(both));
    let text = r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dada", duplicate field "data.a""#;
    assert_eq!(run(FieldValidation::Strict), Err((400, text.to_owned())));
}

#[test]
fn wrong_types_speak_as_go_does() {
    let container = |field: Value| json!({"spec": {"template": {"spec": {"containers": [field]}}}});
    for (object, want) in [
        (
            json!({"spec": {"replicas": "3"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 3_000_000_000u64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": []}),
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            container(json!({"env": [{"name": "A", "value": 8080}]})),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            container(json!({"imagePullPolicy": true})),
            "json: cannot unmarshal bool into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            container(json!({"args": "x"})),
            "json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.args of type []string",
        ),
        (container(json!({"resources": {"limits": {"cpu": "1x"}}})), "unable to parse quantity's suffix"),
        (
            container(json!({"resources": {"limits": {"cpu": "x"}}})),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"port": 1.5}}})),
            "json: cannot unmarshal number 1.5 into Go struct field HTTPGetAction.spec.template.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
        (
            json!({"metadata": {"creationTimestamp": "yesterday"}}),
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
        ),
        (json!("x"), "json: cannot unmarshal string into Go value of type Deployment"),
    ] {
        let mut object = object;
        assert_eq!(check(&mut object, typed("apps", "v1", "Deployment")), Err(want.to_owned()));
    }
    let mut secret = json!({"data": {"a": "!!!!"}});
    assert_eq!(check(&mut secret, typed("", "v1", "Secret")), Err("illegal base64 data at input byte 0".to_owned()));
}

#[test]
fn canonical_form() {
    for (kind, object, want) in [
        (
            ("", "v1", "Service"),
            json!({"metadata": {"name": "x", "labels": {}, "creationTimestamp": null}, "spec": {"ports": [{"port": 80, "nodePort": 0, "name": ""}], "clusterIP": "", "externalIPs": []}}),
            json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80, "targetPort": 0}]}, "status": {"loadBalancer": {}}}),
        ),
        (
            ("apps", "v1", "Deployment"),
            json!({"metadata": {}, "spec": {"replicas": 0, "paused": false, "template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": ""}], "resources": {"limits": {"cpu": 1, "memory": "64Mi"}}}]}}}}),
            json!({"metadata": {}, "spec": {"replicas": 0, "selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "env": [{"name": "A"}], "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]}}}, "status": {}}),
        ),
        (
            ("", "v1", "Event"),
            json!({"eventTime": "2026-01-02T03:04:05.1+02:00", "firstTimestamp": "2026-01-02T03:04:05.9+02:00"}),
            json!({"metadata": {}, "involvedObject": {}, "source": {}, "eventTime": "2026-01-02T01:04:05.100000Z", "firstTimestamp": "2026-01-02T01:04:05Z", "reportingComponent": "", "reportingInstance": ""}),
        ),
        (
            ("", "v1", "Secret"),
            json!({"data": {"a": "YWJj\nZGU=", "b": null}, "immutable": false}),
            json!({"metadata": {}, "data": {"a": "YWJjZGU=", "b": ""}, "immutable": false}),
        ),
        (
            ("policy", "v1", "PodDisruptionBudget"),
            json!({"spec": {"minAvailable": 0}}),
            json!({"metadata": {}, "spec": {"minAvailable": 0}, "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}}),
        ),
    ] {
        let typed = typed(kind.0, kind.1, kind.2);
        let (mut object, mut want) = (object, want);
        check(&mut object, typed).unwrap();
        canonicalize(&mut object, typed);
        // `null` in the expectation: the field must be absent.
        check(&mut want, typed).unwrap();
        assert_eq!(object, want, "{kind:?}");
        let once = object.clone();
        canonicalize(&mut object, typed);
        assert_eq!(object, once, "{kind:?}: idempotent");
    }
}

#[test]
fn schemas_of_custom_resources() {
    let mut crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"a": {"type": "array", "items": {"type": "string", "nope": 1}},
        "b": {"additionalProperties": true, "default": {"x": [1]}, "enum": [1, "a", null]}}}}}]}});
    let unknown = check(&mut crd, typed("apiextensions.k8s.io", "v1", "CustomResourceDefinition")).unwrap();
    assert_eq!(unknown, Vec::<String>::new());
    let properties = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert_eq!(properties["a"]["items"], json!({"type": "string"}));
    assert_eq!(properties["b"]["enum"], json!([1, "a", null]));
}

#[test]
fn durations() {
    for (text, printed) in [
        ("0", "0s"),
        ("1m", "1m0s"),
        ("90s", "1m30s"),
        ("1h", "1h0m0s"),
        ("1.5s", "1.5s"),
        ("300ms", "300ms"),
        ("-1.5h", "-1h30m0s"),
        ("1us", "1µs"),
        ("1h1ns", "1h0m0.000000001s"),
        (".5m", "30s"),
    ] {
        assert_eq!(canonical::parse_duration(text).map(canonical::print_duration), Ok(printed.to_owned()), "{text}");
    }
    for text in ["", "x", "1", "1x", "-", "1.2.3s", "99999999999h", "."] {
        assert!(canonical::parse_duration(text).is_err(), "{text}");
    }
}

/// Protobuf does not tell an empty list from none.
fn drop_empty_lists(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| v.as_array().is_none_or(|items| !items.is_empty()));
            map.values_mut().for_each(drop_empty_lists);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty_lists),
        _ => {}
    }
}

/// What Go's decoder says of many objects: `KEDGE_GO_DECODED=<file> cargo test go_decodes -- --ignored`. Lines of
/// `{"in": object, "out": what a round trip leaves, "pb": the same in protobuf, "strict": [problems], "err": text}`.
#[test]
#[ignore = "needs a file made with Go"]
fn go_decodes_the_same() {
    let file = std::env::var("KEDGE_GO_DECODED").expect("KEDGE_GO_DECODED names the file");
    let text = std::fs::read_to_string(file).expect("a readable file");
    let (mut seen, mut wrong) = (0, Vec::new());
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let mut got = case["in"].clone();
        let api_version = got["apiVersion"].as_str().unwrap().to_owned();
        let (group, version) = crate::object::split_api_version(&api_version);
        let Some(ty) = builtin().of(group, version, got["kind"].as_str().unwrap()) else { continue };
        seen += 1;
        let typed = Typed { schema: builtin(), ty };
        let result = check(&mut got, typed).map(|mut unknown| {
            unknown.sort();
            canonicalize(&mut got, typed);
            unknown
        });
        let want = match case["err"].as_str() {
            Some(why) => Err(why.to_owned()),
            None => {
                let strict = case["strict"].as_array().into_iter().flatten();
                let mut strict: Vec<String> = strict.map(|v| v.as_str().unwrap().to_owned()).collect();
                strict.sort();
                Ok(strict)
            }
        };
        if result != want {
            wrong.push(format!("want {want:?}\n got  {result:?}\n"));
        } else if result.is_ok() {
            let mut want = case["out"].clone();
            check(&mut want, typed).unwrap();
            if got != want {
                wrong.push(format!("want {want}\n got  {got}\n"));
            }
            let pb = crate::server::schema::unbase64(case["pb"].as_str().unwrap_or("")).unwrap();
            let protobuf = crate::server::codec::Format::Protobuf;
            let decoded = crate::server::codec::decode_body(protobuf, &pb, ("", "", "")).map(|d| d.object);
            drop_empty_lists(&mut got);
            if !pb.is_empty() && decoded.as_ref() != Ok(&got) {
                wrong.push(format!("protobuf:\nwant {got}\n got  {decoded:?}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {seen} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
