use super::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

#[tokio::test]
async fn addresses_are_given_and_taken_back() {
    let server = Server::ready().await;
    let made = server.post(SERVICES, service("a", json!({}))).await.expect(201);
    let address = made.body["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.43."), "{address}");
    assert_eq!(made.body["spec"]["clusterIPs"], json!([address]));
    let object = server.get(&format!("/apis/networking.k8s.io/v1/ipaddresses/{address}")).await.expect(200);
    assert_eq!(object.body["spec"]["parentRef"]["name"], "a");
    // The same address again is refused, another one outside the range too.
    let taken = server.post(SERVICES, service("b", json!({"clusterIP": address}))).await.expect(422);
    assert!(taken.message().contains("provided IP is already allocated"), "{}", taken.message());
    let outside = server.post(SERVICES, service("b", json!({"clusterIP": "10.44.0.1"}))).await.expect(422);
    assert!(outside.message().contains("not in the valid range"), "{}", outside.message());
    // A PUT without it keeps it.
    let put = server.put(&format!("{SERVICES}/a"), service("a", json!({"ports": [{"port": 81}]}))).await.expect(200);
    assert_eq!(put.body["spec"]["clusterIP"], address.as_str());
    server.delete(&format!("{SERVICES}/a"), json!({})).await.expect(200);
    server.get(&format!("/apis/networking.k8s.io/v1/ipaddresses/{address}")).await.expect(404);
    server.post(SERVICES, service("b", json!({"clusterIP": address}))).await.expect(201);
}

#[tokio::test]
async fn no_address_where_none_is_wanted() {
    let server = Server::ready().await;
    let headless = server.post(SERVICES, service("h", json!({"clusterIP": "None"}))).await.expect(201);
    assert_eq!(headless.body["spec"]["clusterIPs"], json!(["None"]));
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let external = server.post(SERVICES, service("e", external)).await.expect(201);
    assert!(external.body["spec"].get("clusterIP").is_none());
    let list = server.get("/apis/networking.k8s.io/v1/ipaddresses").await;
    assert!(list.names().is_empty());
}

#[tokio::test]
async fn one_family_is_configured() {
    let server = Server::ready().await;
    for (spec, field) in [
        (json!({"ipFamilyPolicy": "RequireDualStack"}), "spec.ipFamilyPolicy"),
        (json!({"ipFamilies": ["IPv6"]}), "spec.ipFamilies[0]"),
    ] {
        let refused = server.post(SERVICES, service("a", spec)).await.expect(422);
        assert!(refused.message().contains(field), "{}", refused.message());
    }
    let either = server.post(SERVICES, service("a", json!({"ipFamilyPolicy": "PreferDualStack"}))).await.expect(201);
    assert_eq!(either.body["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[tokio::test]
async fn node_ports() {
    let server = Server::ready().await;
    let spec = json!({"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]});
    let made = server.post(SERVICES, service("a", spec)).await.expect(201);
    let port = |a: &Answer, i: usize| a.body["spec"]["ports"][i]["nodePort"].as_u64().unwrap_or(0);
    let (first, second) = (port(&made, 0), port(&made, 1));
    assert!(first != second && (30_000..=32_767).contains(&first) && (30_000..=32_767).contains(&second));
    let same = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": first}]});
    let taken = server.post(SERVICES, service("b", same.clone())).await.expect(422);
    assert!(taken.message().contains("provided port is already allocated"), "{}", taken.message());
    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    let outside = server.post(SERVICES, service("b", outside)).await.expect(422);
    assert!(outside.message().contains("30000-32767"), "{}", outside.message());
    // An update that does not name the ports keeps them; back to ClusterIP frees them.
    let spec = json!({"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]});
    let put = server.put(&format!("{SERVICES}/a"), service("a", spec)).await.expect(200);
    assert_eq!((port(&put, 0), port(&put, 1)), (first, second));
    let patch = json!({"spec": {"type": "ClusterIP"}});
    let plain = server.patch(&format!("{SERVICES}/a"), "merge-patch+json", patch).await.expect(200);
    assert_eq!(port(&plain, 0), 0);
    server.post(SERVICES, service("b", same)).await.expect(201);
}

#[tokio::test]
async fn everything_is_given_once() {
    let registry = Registry::new(Memory::open());
    let mut parts = Parts::new(registry);
    parts.network.service_cidr = (std::net::Ipv4Addr::new(10, 0, 0, 0), 28);
    parts.network.node_ports = (30_000, 30_009);
    let server = Server { api: Api::new(parts) };
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await.expect(201);
    let create = |i: usize| {
        let name = format!("s{i}");
        let server = &server;
        async move { server.post(SERVICES, service(&name, json!({"type": "NodePort"}))).await }
    };
    let made = futures::future::join_all((0..10).map(create)).await;
    let mut addresses: Vec<String> = Vec::new();
    let mut ports: Vec<u64> = Vec::new();
    for answer in made {
        let answer = answer.expect(201);
        addresses.push(answer.body["spec"]["clusterIP"].as_str().unwrap().to_owned());
        ports.push(answer.body["spec"]["ports"][0]["nodePort"].as_u64().unwrap());
    }
    addresses.sort();
    addresses.dedup();
    ports.sort();
    ports.dedup();
    assert_eq!((addresses.len(), ports.len()), (10, 10));
    let full = create(10).await.expect(500);
    assert!(full.message().contains("range is full"), "{}", full.message());
    assert_eq!(server.get("/apis/networking.k8s.io/v1/ipaddresses").await.names().len(), 10);
}
