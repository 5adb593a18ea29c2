//! Controllers and scheduler against a whole API server in memory, each with its own identity and role; pods are run
//! by a stand-in for the kubelet.

#[path = "controllers/certificates.rs"]
mod certificates;
#[path = "controllers/cluster.rs"]
mod cluster;

use cluster::{Cluster, settles};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};

fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "100m"}}}]}}}})
}

fn selected(app: &str) -> ListParams {
    ListParams::default().labels(&format!("app={app}"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_runs_rolls_scales_and_goes() {
    let cluster = Cluster::start(1).await;
    cluster.create("default", deployment("web", 3, "v1")).await;
    let (deployments, pods) = (cluster.api::<Deployment>("default"), cluster.api::<Pod>("default"));
    let available = async |wanted: i32| {
        let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
        status.available_replicas == Some(wanted)
            && status.updated_replicas == Some(wanted)
            && status.replicas == Some(wanted)
    };
    settles("three pods", async || available(3).await).await;
    let listed = pods.list(&selected("web")).await.unwrap().items;
    assert!(listed.iter().all(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some("n1")), "scheduled");

    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let patch = async |change: Value| {
        deployments.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await.unwrap();
    };
    patch(image("v2")).await;
    settles("the new image", async || {
        let now = pods.list(&selected("web")).await.unwrap().items;
        now.len() == 3
            && now.iter().all(|p| is_ready(p) && p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v2"))
    })
    .await;
    settles("complete", async || {
        let status = deployments.get("web").await.unwrap().status.unwrap();
        let done = status.conditions.iter().flatten();
        done.into_iter()
            .any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable") && c.status.as_deref() == Some("True"))
    })
    .await;
    let sets = cluster.api::<ReplicaSet>("default").list(&selected("web")).await.unwrap().items;
    let mut revisions: Vec<_> = sets
        .iter()
        .map(|s| {
            (s.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone(), s.spec.replicas)
        })
        .collect();
    revisions.sort();
    assert_eq!(revisions, [("1".to_owned(), Some(0)), ("2".to_owned(), Some(3))]);

    patch(json!({"spec": {"replicas": 5}})).await;
    settles("five pods", async || available(5).await).await;
    let events = cluster.api::<Event>("default").list(&ListParams::default()).await.unwrap().items;
    let reasons: std::collections::BTreeSet<_> = events.iter().filter_map(|e| e.reason.as_deref()).collect();
    assert!(reasons.is_superset(&["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"].into()), "{reasons:?}");
    let scheduled = events.iter().find(|e| e.reason.as_deref() == Some("Scheduled")).unwrap();
    assert!(scheduled.message.as_deref().unwrap().starts_with("Successfully assigned default/web-"), "{scheduled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_follows_its_pods() {
    let cluster = Cluster::start(1).await;
    cluster.create("default", deployment("web", 2, "v1")).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    cluster.create("default", service).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    settles("two ready endpoints", async || {
        let listed = slices.list(&of_web).await.unwrap().items;
        let endpoints: Vec<_> = listed.iter().flat_map(|s| s.endpoints.iter().flatten()).collect();
        endpoints.len() == 2 && endpoints.iter().all(|e| e.conditions.as_ref().unwrap().ready == Some(true))
    })
    .await;
    let endpoints = cluster.api::<Endpoints>("default");
    settles("the same in Endpoints", async || {
        let Ok(found) = endpoints.get("web").await else { return false };
        found.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten()).count() == 2
    })
    .await;
    cluster
        .api::<k8s_openapi::api::core::v1::Service>("default")
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    settles("no Endpoints", async || endpoints.get_opt("web").await.unwrap().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_furnished_and_cleared() {
    let cluster = Cluster::start(1).await;
    cluster.create("", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await;
    let (accounts, maps) = (cluster.api::<ServiceAccount>("team"), cluster.api::<ConfigMap>("team"));
    settles("the default account", async || accounts.get_opt("default").await.unwrap().is_some()).await;
    settles("the root CA", async || maps.get_opt("kube-root-ca.crt").await.unwrap().is_some()).await;
    assert_eq!(maps.get("kube-root-ca.crt").await.unwrap().data.unwrap()["ca.crt"], "a CA");
    cluster.create("team", deployment("web", 2, "v1")).await;
    let pods = cluster.api::<Pod>("team");
    settles("pods", async || {
        pods.list(&selected("web")).await.unwrap().items.iter().filter(|p| is_ready(p)).count() == 2
    })
    .await;
    let namespaces = cluster.all::<Namespace>();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    settles("gone", async || namespaces.get_opt("team").await.unwrap().is_none()).await;
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_waits_and_says_why() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big"}, "spec": {"containers": [
        {"name": "c", "image": "v1", "resources": {"requests": {"cpu": "6"}}}]}});
    cluster.create("default", pod).await;
    let pods = cluster.api::<Pod>("default");
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    settles("the condition", async || {
        let pod = pods.get("big").await.unwrap();
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let mut told = conditions.into_iter().filter(|c| c.type_ == "PodScheduled" && c.status == "False");
        told.any(|c| {
            c.reason.as_deref() == Some("Unschedulable") && c.message.as_deref().is_some_and(|m| m.starts_with(message))
        })
    })
    .await;
    let events = cluster.api::<Event>("default");
    settles("the event", async || {
        let listed = events.list(&ListParams::default()).await.unwrap().items;
        // Before the node was ready there may have been another one, about its taint.
        let mut failed = listed.iter().filter(|e| e.reason.as_deref() == Some("FailedScheduling"));
        failed.any(|e| {
            e.message.as_deref().is_some_and(|m| m.starts_with(message)) && e.type_.as_deref() == Some("Warning")
        })
    })
    .await;
    cluster.add_node("n2", "8").await;
    settles("a node with room", async || is_ready(&pods.get("big").await.unwrap())).await;
    let nodes = cluster.all::<Node>();
    settles("two networks", async || {
        let listed = nodes.list(&ListParams::default()).await.unwrap().items;
        let mut cidrs: Vec<_> = listed.iter().filter_map(|n| n.spec.as_ref()?.pod_cidr.clone()).collect();
        cidrs.sort();
        cidrs == ["10.42.0.0/24", "10.42.1.0/24"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owned_goes_with_its_owner() {
    let cluster = Cluster::start(1).await;
    let (deployments, sets) = (cluster.api::<Deployment>("default"), cluster.api::<ReplicaSet>("default"));
    let pods = cluster.api::<Pod>("default");
    for name in ["background", "foreground", "orphan"] {
        cluster.create("default", deployment(name, 2, "v1")).await;
    }
    for name in ["background", "foreground", "orphan"] {
        let two = async || pods.list(&selected(name)).await.unwrap().items.iter().filter(|p| is_ready(p)).count() == 2;
        settles("pods", two).await;
    }
    let policy = |policy| DeleteParams { propagation_policy: Some(policy), ..Default::default() };
    deployments.delete("background", &policy(PropagationPolicy::Background)).await.unwrap();
    deployments.delete("foreground", &policy(PropagationPolicy::Foreground)).await.unwrap();
    deployments.delete("orphan", &policy(PropagationPolicy::Orphan)).await.unwrap();
    for name in ["background", "foreground"] {
        settles("everything gone", async || {
            deployments.get_opt(name).await.unwrap().is_none()
                && sets.list(&selected(name)).await.unwrap().items.is_empty()
                && pods.list(&selected(name)).await.unwrap().items.is_empty()
        })
        .await;
    }
    settles("the owner gone", async || deployments.get_opt("orphan").await.unwrap().is_none()).await;
    let left = sets.list(&selected("orphan")).await.unwrap().items;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].metadata.owner_references, None);
    assert_eq!(pods.list(&selected("orphan")).await.unwrap().items.len(), 2);
    // A new Deployment of that name takes the orphans over.
    cluster.create("default", deployment("orphan", 2, "v1")).await;
    settles("adoption", async || {
        sets.list(&selected("orphan")).await.unwrap().items[0].metadata.owner_references.is_some()
    })
    .await;
    assert_eq!(sets.list(&selected("orphan")).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_taint_nodes_and_taints_evict() {
    let cluster = Cluster::start(2).await;
    let nodes = cluster.all::<Node>();
    let taints = async |name: &str| {
        let taints = nodes.get(name).await.unwrap().spec.unwrap_or_default().taints.unwrap_or_default();
        taints.into_iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>()
    };
    settles("no taints", async || taints("n1").await.is_empty() && taints("n2").await.is_empty()).await;
    let pods = cluster.api::<Pod>("default");
    let pod = |name: &str, seconds: Option<u32>| {
        let toleration = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeSelector": {"own": "n2"},
            "tolerations": [toleration], "containers": [{"name": "c", "image": "v1"}]}})
    };
    nodes
        .patch("n2", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"own": "n2"}}})))
        .await
        .unwrap();
    cluster.create("default", pod("leaves", Some(0))).await;
    cluster.create("default", pod("stays", None)).await;
    let ready = async |name: &str| pods.get(name).await.is_ok_and(|p| is_ready(&p));
    settles("both run", async || ready("leaves").await && ready("stays").await).await;
    let condition = json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "test",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "2026-01-01T00:00:01Z"});
    let status = json!({"status": {"conditions": [condition]}});
    nodes.patch_status("n2", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    settles("taints", async || {
        taints("n2").await == ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]
    })
    .await;
    settles("eviction", async || pods.get_opt("leaves").await.unwrap().is_none()).await;
    settles("out of Services", async || !is_ready(&pods.get("stays").await.unwrap())).await;
}
