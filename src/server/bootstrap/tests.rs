//! A whole API server in memory: bootstrap, then requests as various users.

use super::*;
use crate::object::ObjectExt;
use crate::pki::{Pki, PkiConfig};
use crate::server::api::{Api, Parts};
use crate::server::authn::service_account_user;
use crate::server::registry::Registry;
use crate::server::request::UserInfo;
use crate::server::security::Security;
use crate::task::Group;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use std::sync::Arc;

struct Cluster {
    api: Arc<Api>,
    group: Group,
    _dir: tempfile::TempDir,
}

fn config(address: &str) -> Config {
    Config {
        advertise_address: address.parse().unwrap(),
        servers: vec![address.parse().unwrap()],
        https_port: 6443,
        service_cidr: "10.43.0.0/16".into(),
        service_ip: "10.43.0.1".parse().unwrap(),
        cluster_dns: "10.43.0.10".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        cluster_cidr: "10.42.0.0/16".into(),
        server_ca: "server".into(),
        client_ca: "client".into(),
        request_header_ca: "front".into(),
    }
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = PkiConfig {
            node_name: "n1".into(),
            node_ips: vec![],
            service_ips: vec![],
            cluster_domain: "cluster.local".into(),
            tls_sans: vec![],
            life: crate::pki::LEAF_LIFE,
        };
        let pki = Pki::load_or_create(dir.path(), pki).unwrap();
        let group = Group::root();
        let registry = Registry::new(crate::store::memory::Memory::open());
        let security = Security::start(&registry, &pki, "cluster.local", "https://192.0.2.1:6443", &group);
        let mut parts = Parts::new(registry.clone());
        security.install(&mut parts);
        let api = Api::new(parts);
        security.synced().await;
        let cluster = Cluster { api, group, _dir: dir };
        run(&cluster.client(&master()), &config("192.0.2.1")).await.unwrap();
        let controller = service_account_user("kube-system", crate::server::authz::aggregate::CONTROLLER);
        security.start_aggregation(&registry, cluster.client(&controller), &cluster.group);
        cluster
    }

    fn client(&self, user: &UserInfo) -> kube::Client {
        crate::client::local(self.api.local(user.clone()))
    }

    /// Status code and body of one request, from a user or with a token.
    async fn send(&self, who: &Who<'_>, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if method == "PATCH" {
            request =
                Request::builder().method(method).uri(path).header("content-type", "application/merge-patch+json");
        }
        if let Who::Token(token) = who {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or(Body::empty(), |b| Body::from(b.to_string()));
        let request = request.body(body).unwrap();
        let response = match who {
            Who::User(user) => self.api.local((*user).clone())(request).await,
            _ => self.api.handle(request).await,
        };
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn ok(&self, who: &Who<'_>, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, value) = self.send(who, method, path, body).await;
        assert!(status < 300, "{method} {path}: {status} {value}");
        value
    }

    /// Repeat a request until it answers so: indexes follow the store with a little delay.
    async fn until(&self, who: &Who<'_>, method: &str, path: &str, wanted: u16) -> Value {
        for _ in 0..200 {
            let (status, value) = self.send(who, method, path, None).await;
            if status == wanted {
                return value;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{method} {path} never answered {wanted}");
    }
}

enum Who<'a> {
    User(&'a UserInfo),
    Token(&'a str),
    Nobody,
}

fn master() -> UserInfo {
    UserInfo::authenticated(USER, &[UserInfo::MASTERS])
}

#[tokio::test]
async fn everything_upstream_makes_is_there_and_a_second_start_writes_nothing() {
    let cluster = Cluster::start().await;
    let admin = master();
    let admin = Who::User(&admin);
    let there = [
        "/api/v1/namespaces/kube-node-lease",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/extension-apiserver-authentication-reader",
        "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    ];
    for path in there {
        cluster.ok(&admin, "GET", path, None).await;
    }
    let service = cluster.ok(&admin, "GET", "/api/v1/namespaces/default/services/kubernetes", None).await;
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    let service = cluster.ok(&admin, "GET", "/api/v1/namespaces/kube-system/services/kube-dns", None).await;
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.10");

    let revision = || cluster.api.registry().store().revision();
    // The aggregation controller may still be writing.
    let mut before = revision();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        if before == revision() {
            break;
        }
        before = revision();
    }
    run(&cluster.client(&master()), &config("192.0.2.1")).await.unwrap();
    assert_eq!(revision(), before);

    run(&cluster.client(&master()), &config("192.0.2.99")).await.unwrap();
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(cluster.ok(&admin, "GET", slice, None).await["endpoints"][0]["addresses"][0], "192.0.2.99");
    cluster.group.cancel();
}

#[tokio::test]
async fn rights_come_from_roles() {
    let cluster = Cluster::start().await;
    let admin = master();
    let jane = UserInfo::authenticated("jane", &[]);
    let pods = "/api/v1/namespaces/default/pods";
    let (status, answer) = cluster.send(&Who::User(&jane), "GET", pods, None).await;
    assert_eq!(status, 403);
    let message =
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(answer["message"], message);
    let (status, answer) = cluster.send(&Who::Nobody, "GET", "/metrics", None).await;
    assert_eq!(
        (status, &answer["message"]),
        (403, &json!("forbidden: User \"system:anonymous\" cannot get path \"/metrics\""))
    );
    assert_eq!(cluster.send(&Who::Nobody, "GET", "/version", None).await.0, 200);
    assert_eq!(cluster.send(&Who::Token("nonsense"), "GET", "/version", None).await.0, 401);

    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = |name: &str, role: &str, user: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
               "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]})
    };
    cluster.ok(&Who::User(&admin), "POST", bindings, Some(binding("jane", "admin", "jane"))).await;
    cluster.until(&Who::User(&jane), "GET", pods, 200).await;
    assert_eq!(cluster.send(&Who::User(&jane), "GET", "/api/v1/namespaces/kube-system/pods", None).await.0, 403);

    // Admin of a namespace may hand on what admin has, and no more.
    cluster.ok(&Who::User(&jane), "POST", bindings, Some(binding("joe", "view", "joe"))).await;
    let (status, answer) =
        cluster.send(&Who::User(&jane), "POST", bindings, Some(binding("eve", "cluster-admin", "eve"))).await;
    assert_eq!(status, 403);
    let start = "rolebindings.rbac.authorization.k8s.io \"eve\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) \
                 is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}";
    assert!(answer["message"].as_str().unwrap().starts_with(start), "{answer}");

    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "delete", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = cluster.ok(&Who::User(&jane), "POST", path, Some(review)).await;
    assert_eq!(answer["status"]["allowed"], true);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = cluster.ok(&Who::User(&jane), "POST", path, Some(review)).await;
    assert!(answer["status"]["resourceRules"].as_array().unwrap().len() > 20, "{answer}");
    cluster.group.cancel();
}

#[tokio::test]
async fn aggregated_roles_follow_their_parts() {
    let cluster = Cluster::start().await;
    let admin = master();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "crontabs", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["get"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    cluster.ok(&Who::User(&admin), "POST", roles, Some(role)).await;
    for name in ["view", "edit", "admin"] {
        let mut found = false;
        for _ in 0..300 {
            let role = cluster.ok(&Who::User(&admin), "GET", &format!("{roles}/{name}"), None).await;
            let rules = role["rules"].as_array().unwrap();
            found = rules.iter().any(|r| r["resources"] == json!(["crontabs"]));
            if found {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(found, "{name}");
    }
    cluster.group.cancel();
}

/// A pod's own token: issued, accepted, void when the pod is gone.
#[tokio::test]
async fn tokens_live_as_long_as_their_pod() {
    let cluster = Cluster::start().await;
    let admin = master();
    let admin = Who::User(&admin);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}});
    cluster.ok(&admin, "POST", "/api/v1/namespaces/default/serviceaccounts", Some(account)).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "app", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let pod = cluster.ok(&admin, "POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(pod["spec"]["priority"], 0);
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"];
    assert_eq!(mount, "/var/run/secrets/kubernetes.io/serviceaccount");

    let path = "/api/v1/namespaces/default/serviceaccounts/app/token";
    let request = |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod.uid()});
    let spec = json!({"expirationSeconds": 3607, "boundObjectRef": bound});
    let answer = cluster.ok(&admin, "POST", path, Some(request(spec.clone()))).await;
    let token = answer.str_at(&["status", "token"]).to_owned();
    let claims = crate::server::authn::token::claims_unverified(&token).unwrap();
    assert_eq!((claims.exp - claims.iat, claims.kubernetes.warnafter), (365 * 24 * 3600, Some(claims.iat + 3607)));
    assert_eq!(claims.kubernetes.pod.unwrap().uid, pod.uid());

    let who = Who::Token(&token);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = cluster.ok(&who, "POST", reviews, Some(review)).await["status"]["userInfo"].clone();
    assert_eq!(me["username"], "system:serviceaccount:default:app");
    assert_eq!(me["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(me["extra"]["authentication.kubernetes.io/node-name"], json!(["n1"]));
    let keys = cluster.ok(&who, "GET", "/openid/v1/jwks", None).await;
    assert_eq!(keys["keys"][0]["alg"], "ES256");

    let node = UserInfo::authenticated("system:node:n1", &["system:nodes"]);
    let other = UserInfo::authenticated("system:node:n2", &["system:nodes"]);
    cluster.until(&Who::User(&node), "GET", "/api/v1/namespaces/default/pods/p", 200).await;
    let mine = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1";
    assert_eq!(cluster.ok(&Who::User(&node), "GET", mine, None).await["items"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.send(&Who::User(&other), "GET", mine, None).await.0, 403);
    cluster.ok(&Who::User(&node), "POST", path, Some(request(spec.clone()))).await;
    assert_eq!(cluster.send(&Who::User(&other), "POST", path, Some(request(spec))).await.0, 403);
    let unbound = cluster.send(&Who::User(&node), "POST", path, Some(request(json!({})))).await;
    assert_eq!(unbound.0, 403, "{}", unbound.1);
    let short = cluster.send(&admin, "POST", path, Some(request(json!({"expirationSeconds": 599})))).await;
    assert_eq!(short.0, 422);

    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = cluster.ok(&admin, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(review)).await;
    assert_eq!(answer["status"]["authenticated"], true, "{answer}");

    let delete = "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0";
    cluster.ok(&admin, "DELETE", delete, None).await;
    cluster.until(&who, "GET", "/version", 401).await;
    cluster.group.cancel();
}

#[tokio::test]
async fn admission_refuses_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let admin = master();
    let admin = Who::User(&admin);
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let containers = json!([{"name": "c", "image": "i"}]);
    let cases = [
        (
            "DELETE",
            "/api/v1/namespaces/default",
            None,
            403,
            "namespaces \"default\" is forbidden: this namespace may not be deleted",
        ),
        (
            "POST",
            "/api/v1/namespaces/no-such/configmaps",
            Some(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})),
            404,
            "namespaces \"no-such\" not found",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/pods",
            Some(pod(json!({"serviceAccountName": "foo", "containers": containers}))),
            403,
            "pods \"p\" is forbidden: error looking up service account default/foo: serviceaccount \"foo\" not found",
        ),
    ];
    for (method, path, body, status, message) in cases {
        let (got, answer) = cluster.send(&admin, method, path, body).await;
        assert_eq!((got, answer["message"].as_str()), (status, Some(message)));
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.ok(&admin, "POST", "/api/v1/namespaces/default/serviceaccounts", Some(account)).await;
    let body = pod(json!({"priorityClassName": "none", "containers": containers}));
    let (_, answer) = cluster.send(&admin, "POST", "/api/v1/namespaces/default/pods", Some(body)).await;
    assert_eq!(answer["message"], "pods \"p\" is forbidden: no PriorityClass with name none was found");
    let body = pod(json!({"priorityClassName": "system-node-critical", "containers": containers}));
    let made = cluster.ok(&admin, "POST", "/api/v1/namespaces/default/pods", Some(body)).await;
    assert_eq!(made["spec"]["priority"], 2_000_001_000);

    let node = UserInfo::authenticated("system:node:n1", &["system:nodes"]);
    let node = Who::User(&node);
    let object = |name: &str, label: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {label: "x"}}});
    let nodes = "/api/v1/nodes";
    assert_eq!(cluster.send(&node, "POST", nodes, Some(object("n2", "rack"))).await.0, 403);
    assert_eq!(cluster.send(&node, "POST", nodes, Some(object("n1", "kubernetes.io/x"))).await.0, 403);
    let made = cluster.ok(&node, "POST", nodes, Some(object("n1", "rack"))).await;
    assert_eq!(made["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let taints = Some(json!({"spec": {"taints": null}}));
    let (status, answer) = cluster.send(&node, "PATCH", "/api/v1/nodes/n1", taints).await;
    assert_eq!(
        (status, &answer["message"]),
        (403, &json!("nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints"))
    );
    cluster.group.cancel();
}
