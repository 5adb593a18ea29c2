use super::*;
use crate::controllers::conditions::get;
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::sync::Arc;

/// A Deployment and its ReplicaSets, with a server and pods as simple as possible.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    /// Pods of these images never become available.
    broken: Vec<&'static str>,
    /// Most pods and fewest available pods seen.
    most: i32,
    least: i32,
}

fn image(set: &ReplicaSet) -> String {
    let template = set.spec.template.clone().unwrap();
    template.spec.unwrap().containers[0].image.clone().unwrap()
}

impl World {
    fn new(replicas: i32, strategy: Value) -> Self {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1,
                "annotations": {"kubernetes.io/change-cause": "first"}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600,
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
        });
        World {
            deployment: serde_json::from_value(deployment).unwrap(),
            sets: Vec::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            broken: Vec::new(),
            most: 0,
            least: i32::MAX,
        }
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Deployment)) {
        edit(&mut self.deployment);
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn set_image(&mut self, to: &str) {
        self.edit(|d| d.spec.template.spec.as_mut().unwrap().containers[0].image = Some(to.into()));
    }

    fn pass(&mut self) -> Plan {
        let shared: Vec<_> = self.sets.iter().cloned().map(Arc::new).collect();
        plan(&self.deployment, &shared, &[], self.now)
    }

    /// Apply one plan; did it change anything?
    fn step(&mut self) -> bool {
        let plan = self.pass();
        let before = (self.sets.clone(), self.deployment.clone());
        for (_, new) in plan.update {
            let held = self.sets.iter_mut().find(|s| s.metadata.uid == new.metadata.uid).unwrap();
            *held = new;
        }
        if let Some(mut set) = plan.create {
            set.metadata.uid = set.metadata.name.clone();
            self.now += jiff::SignedDuration::from_secs(1);
            set.metadata.creation_timestamp = Some(Time(self.now));
            self.sets.push(set);
        }
        self.sets.retain(|s| !plan.delete.iter().any(|gone| gone.metadata.uid == s.metadata.uid));
        self.deployment.status = Some(plan.status);
        if let Some(revision) = plan.revision {
            self.deployment.metadata.annotations.get_or_insert_default().insert(revision::REVISION.into(), revision);
        }
        before != (self.sets.clone(), self.deployment.clone())
    }

    /// Pods follow the sizes; one more pod of each set becomes available per call.
    fn run_pods(&mut self) -> bool {
        let before = self.sets.clone();
        for set in &mut self.sets {
            let (size, broken) = (size::size(set), self.broken.contains(&image(set).as_str()));
            let available = if broken { 0 } else { size.min(size::available(set) + 1) };
            set.status = Some(ReplicaSetStatus {
                replicas: size,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                observed_generation: set.metadata.generation,
                ..Default::default()
            });
        }
        self.most = self.most.max(self.sets.iter().map(size::size).sum());
        self.least = self.least.min(self.sets.iter().map(size::available).sum());
        before != self.sets
    }

    fn settle(&mut self) -> &mut Self {
        for _ in 0..500 {
            let (planned, moved) = (self.step(), self.run_pods());
            if !planned && !moved {
                return self;
            }
        }
        panic!("does not settle: {:?}", self.sizes());
    }

    fn sizes(&self) -> Vec<(String, i32)> {
        self.sets.iter().map(|s| (image(s), size::size(s))).collect()
    }

    fn progress(&self) -> (String, String) {
        let status = self.deployment.status.as_ref().unwrap();
        let condition = get(&status.conditions, "Progressing").unwrap();
        (condition.reason.clone().unwrap(), condition.message.clone().unwrap())
    }

    fn revisions(&self) -> Vec<(String, i64)> {
        self.sets.iter().map(|s| (image(s), revision::number(s))).collect()
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn rolling_updates_keep_their_bounds() {
    let cases = [
        (10, json!("25%"), json!("25%"), 13, 8),
        (10, json!(1), json!(0), 11, 10),
        (10, json!(0), json!(1), 10, 9),
        (3, json!("25%"), json!("25%"), 4, 3),
        (1, json!(0), json!(0), 1, 0),
        (10, json!("100%"), json!(0), 20, 10),
        (5, json!(0), json!("100%"), 5, 0),
    ];
    for (replicas, surge, unavailable, most, least) in cases {
        let mut world = World::new(replicas, rolling(surge.clone(), unavailable.clone()));
        world.settle();
        assert_eq!(world.sizes(), [("v1".to_owned(), replicas)]);
        (world.most, world.least) = (0, i32::MAX);
        world.set_image("v2");
        world.settle();
        let name = format!("{replicas} {surge} {unavailable}");
        assert_eq!(world.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), replicas)], "{name}");
        assert!(world.most <= most, "{name}: {} pods", world.most);
        assert!(world.least >= least, "{name}: {} available", world.least);
        let (reason, message) = world.progress();
        assert_eq!(reason, "NewReplicaSetAvailable");
        let current = world.sets.iter().find(|s| image(s) == "v2").unwrap();
        let name = current.metadata.name.as_deref().unwrap();
        assert_eq!(message, format!("ReplicaSet \"{name}\" has successfully progressed."));
    }
}

#[test]
fn a_broken_image_stops_the_rollout_and_times_out() {
    let mut world = World::new(4, rolling(json!("25%"), json!("25%")));
    world.settle();
    world.broken.push("v2");
    world.set_image("v2");
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 3), ("v2".to_owned(), 2)]);
    assert_eq!(world.pass().after, Some(Duration::from_secs(601)));
    world.now += jiff::SignedDuration::from_secs(601);
    world.settle();
    let (reason, message) = world.progress();
    assert_eq!(reason, "ProgressDeadlineExceeded");
    assert!(message.ends_with("has timed out progressing."), "{message}");
    world.set_image("v1");
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 4), ("v2".to_owned(), 0)]);
    assert_eq!(world.progress().0, "NewReplicaSetAvailable");
}

#[test]
fn revisions_rise_return_and_are_forgotten() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.settle();
    for version in ["v2", "v3"] {
        world.set_image(version);
        world.settle();
    }
    let numbered = |list: &[(&str, i64)]| list.iter().map(|(i, n)| ((*i).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(world.revisions(), numbered(&[("v1", 1), ("v2", 2), ("v3", 3)]));
    world.edit(|d| {
        d.spec.template.spec.as_mut().unwrap().containers[0].image = Some("v1".into());
        d.metadata.annotations.as_mut().unwrap().insert("kubernetes.io/change-cause".into(), "back".into());
    });
    world.settle();
    assert_eq!(world.revisions(), numbered(&[("v1", 4), ("v2", 2), ("v3", 3)]));
    let annotations = world.sets[0].metadata.annotations.clone().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(annotations["kubernetes.io/change-cause"], "back");
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[revision::REVISION], "4");
    for version in ["v4", "v5"] {
        world.set_image(version);
        world.settle();
    }
    assert_eq!(world.revisions(), numbered(&[("v1", 4), ("v4", 5), ("v5", 6)]), "two old ones are kept");
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut world = World::new(3, json!({"type": "Recreate"}));
    world.settle();
    world.set_image("v2");
    world.step();
    assert_eq!(world.sizes(), [("v1".to_owned(), 0)]);
    world.step();
    assert_eq!(world.sizes().len(), 1, "status still counts old pods");
    world.run_pods();
    let shared: Vec<_> = world.sets.iter().cloned().map(Arc::new).collect();
    let uid = shared[0].metadata.uid.clone().unwrap();
    assert!(plan(&world.deployment, &shared, &[uid], world.now).create.is_none(), "an old pod still terminates");
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), 3)]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(3, rolling(json!(1), json!(0)));
    world.settle();
    world.edit(|d| d.spec.paused = Some(true));
    world.set_image("v2");
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 3)]);
    assert_eq!(world.progress().0, "DeploymentPaused");
    world.edit(|d| d.spec.replicas = Some(5));
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 5)]);
    world.edit(|d| d.spec.paused = None);
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), 5)]);
}

#[test]
fn scaling_in_mid_rollout_is_proportional() {
    let mut world = World::new(10, rolling(json!(3), json!(2)));
    world.settle();
    world.broken.push("v2");
    world.set_image("v2");
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 8), ("v2".to_owned(), 5)]);
    world.edit(|d| d.spec.replicas = Some(15));
    world.step();
    assert_eq!(world.sizes(), [("v1".to_owned(), 11), ("v2".to_owned(), 7)], "the documentation's example");
    world.edit(|d| d.spec.replicas = Some(0));
    world.settle();
    assert_eq!(world.sizes().iter().map(|(_, n)| n).sum::<i32>(), 0);
}

#[test]
fn the_status_counts() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    let plan = world.pass();
    let set = plan.create.unwrap();
    let name = set.metadata.name.clone().unwrap();
    assert_eq!(size::size(&set), 2);
    assert!(name.starts_with("web-"));
    let hash = set.metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
    assert_eq!(set.spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    world.settle();
    let status = world.deployment.status.clone().unwrap();
    let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
    assert_eq!(counts, [Some(2); 4]);
    assert_eq!((status.unavailable_replicas, status.observed_generation), (None, Some(1)));
    let available = get(&status.conditions, "Available").unwrap();
    assert_eq!(available.message.as_deref(), Some("Deployment has minimum availability."));
    assert_eq!(world.pass().after, None);
}
