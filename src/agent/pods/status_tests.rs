use super::*;
use crate::agent::observed::Sandbox;
use serde_json::{Value, json};

fn seen(name: &str, state: &str, attempt: u32) -> Seen {
    let (state, exit_code) = match state {
        "running" => (State::Running, 0),
        "created" => (State::Created, 0),
        code => (State::Exited, code.parse().unwrap()),
    };
    Seen {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        sandbox: "s".into(),
        attempt,
        state,
        created: i64::from(attempt),
        started: 1_000_000_000,
        finished: 2_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "docker.io/library/i:1".into(),
        image_ref: "sha256:i".into(),
        hash: String::new(),
        log_path: String::new(),
        mounts: Vec::new(),
        annotations: HashMap::new(),
        user: None,
    }
}

struct Scene {
    pod: Pod,
    observed: Observed,
    waiting: HashMap<String, Failure>,
    started: HashSet<String>,
    ready: HashSet<String>,
    ended: bool,
    verdict: Option<Verdict>,
}

impl Scene {
    fn new(spec: Value, containers: &[(&str, &str, u32)]) -> Self {
        let object = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3}, "spec": spec});
        let mut list: Vec<Seen> = containers.iter().map(|(name, state, attempt)| seen(name, state, *attempt)).collect();
        list.sort_by_key(|c| std::cmp::Reverse(c.created));
        let sandbox = Sandbox { id: "s".into(), ready: true, ips: vec!["10.0.0.9".into()], ..Default::default() };
        Scene {
            pod: serde_json::from_value(object).unwrap(),
            started: list.iter().filter(|c| c.is_running()).map(|c| c.id.clone()).collect(),
            observed: Observed { sandboxes: vec![sandbox], containers: list },
            waiting: HashMap::new(),
            ready: HashSet::new(),
            ended: false,
            verdict: None,
        }
    }

    fn status(&self, old: Value) -> PodStatus {
        let old: PodStatus = serde_json::from_value(old).unwrap();
        status(&Facts {
            pod: &self.pod,
            old: &old,
            observed: &self.observed,
            waiting: &self.waiting,
            started: &self.started,
            ready: &self.ready,
            messages: &HashMap::new(),
            node_ip: "1.2.3.4",
            runtime: "containerd",
            ended: self.ended,
            verdict: self.verdict.as_ref(),
            now: Timestamp::from_second(100).unwrap(),
        })
    }
}

/// `Ready=True Initialized=False(Reason)` in the status' order.
fn conditions(status: &PodStatus) -> String {
    let one = |c: &PodCondition| match &c.reason {
        Some(reason) => format!("{}={}({reason})", c.type_, c.status),
        None => format!("{}={}", c.type_, c.status),
    };
    status.conditions.iter().flatten().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn phases() {
    let one = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
    let two = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}]});
    let init = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let side = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
    type Case<'a> = (Value, &'a [(&'a str, &'a str, u32)], bool, &'a str);
    let cases: &[Case] = &[
        (one("Always"), &[], false, "Pending"),
        (one("Always"), &[("a", "running", 0)], false, "Running"),
        (one("Always"), &[("a", "1", 0)], false, "Running"),
        (one("Never"), &[("a", "0", 0)], true, "Succeeded"),
        (one("Never"), &[("a", "1", 0)], true, "Failed"),
        (one("OnFailure"), &[("a", "1", 0)], false, "Running"),
        (one("Always"), &[("a", "0", 0)], true, "Succeeded"),
        (two.clone(), &[("a", "0", 0), ("b", "running", 0)], false, "Running"),
        (two.clone(), &[("a", "0", 0)], false, "Pending"),
        (two, &[("a", "0", 0), ("b", "0", 0)], true, "Succeeded"),
        (init.clone(), &[("i", "running", 0)], false, "Pending"),
        (init.clone(), &[("i", "0", 0)], false, "Pending"),
        (init.clone(), &[("i", "1", 0)], true, "Failed"),
        (init, &[("i", "0", 0), ("a", "running", 0)], false, "Running"),
        (side.clone(), &[("s", "running", 0)], false, "Pending"),
        (side, &[("s", "running", 0), ("a", "running", 0)], false, "Running"),
    ];
    for (spec, containers, ended, wanted) in cases {
        let scene = Scene { ended: *ended, ..Scene::new(spec.clone(), containers) };
        assert_eq!(scene.status(json!({})).phase.as_deref(), Some(*wanted), "{spec} {containers:?}");
    }
}

#[test]
fn a_running_pod() {
    let spec = json!({"containers": [{"name": "a", "readinessProbe": {}}, {"name": "b"}]});
    let mut scene = Scene::new(spec, &[("a", "running", 0), ("b", "running", 2), ("b", "7", 1)]);
    let status = scene.status(json!({}));
    assert_eq!(
        conditions(&status),
        "PodReadyToStartContainers=True Initialized=True Ready=False(ContainersNotReady) \
         ContainersReady=False(ContainersNotReady) PodScheduled=True"
    );
    let message = status.conditions.as_ref().unwrap()[2].message.clone();
    assert_eq!(message.as_deref(), Some("containers with unready status: [a]"));
    let b = &status.container_statuses.as_ref().unwrap()[1];
    assert_eq!((b.restart_count, b.ready, b.started), (2, true, Some(true)));
    assert_eq!(b.container_id.as_deref(), Some("containerd://b-2"));
    assert_eq!(b.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 7);
    assert_eq!((status.pod_ip.as_deref(), status.observed_generation), (Some("10.0.0.9"), Some(3)));

    scene.ready.insert("a-0".into());
    let old = serde_json::to_value(&status).unwrap();
    let next = scene.status(old);
    assert!(conditions(&next).contains(" Ready=True ContainersReady=True "));
    // What did not change keeps its time: nothing to tell the API a second time.
    let again = scene.status(serde_json::to_value(&next).unwrap());
    assert_eq!(again, next);
}

#[test]
fn waiting_containers() {
    let spec = json!({"containers": [{"name": "a", "image": "i"}]});
    let state = |scene: &Scene| {
        let status = scene.status(json!({}));
        let container = status.container_statuses.unwrap().remove(0);
        let waiting = container.state.unwrap().waiting.map(|w| w.reason.unwrap_or_default());
        (waiting, container.last_state.unwrap().terminated.map(|t| t.exit_code))
    };
    let fresh = Scene::new(spec.clone(), &[]);
    assert_eq!(state(&fresh), (Some("ContainerCreating".into()), None));
    let mut crashed = Scene::new(spec, &[("a", "3", 0)]);
    assert_eq!(state(&crashed), (None, None));
    crashed.waiting.insert("a".into(), Failure { reason: "CrashLoopBackOff", message: String::new() });
    assert_eq!(state(&crashed), (Some("CrashLoopBackOff".into()), Some(3)));
}

#[test]
fn ends() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
    let done = Scene { ended: true, ..Scene::new(spec.clone(), &[("a", "0", 0)]) };
    assert!(conditions(&done.status(json!({}))).contains("Ready=False(PodCompleted)"));
    let verdict = Verdict { reason: "DeadlineExceeded".into(), message: "late".into() };
    let late = Scene { ended: true, verdict: Some(verdict), ..Scene::new(spec.clone(), &[("a", "0", 0)]) };
    let status = late.status(json!({}));
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    // Phases do not go back.
    let gone = Scene { ended: true, ..Scene::new(spec, &[]) };
    assert_eq!(gone.status(json!({"phase": "Succeeded"})).phase.as_deref(), Some("Succeeded"));
    // A container that ran and of which nothing is left.
    let running = json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true,
        "restartCount": 1, "state": {"running": {}}}]});
    let lost = gone.status(running).container_statuses.unwrap().remove(0);
    let terminated = lost.state.unwrap().terminated.unwrap();
    assert_eq!((terminated.exit_code, terminated.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
}
