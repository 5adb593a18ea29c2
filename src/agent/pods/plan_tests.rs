use super::*;
use crate::agent::observed::Sandbox;
use serde_json::{Value, json};

fn pod(policy: &str, init: Value, main: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": main}}))
    .unwrap()
}

fn sandbox(id: &str, ready: bool) -> Sandbox {
    Sandbox { id: id.into(), ready, attempt: 0, created: 1, ips: vec!["10.0.0.1".into()] }
}

/// `name state`: running, exit code, or created; in sandbox `s`.
fn container(text: &str) -> observed::Container {
    let (name, state) = text.split_once(' ').unwrap();
    let (state, exit_code) = match state {
        "running" => (State::Running, 0),
        "created" => (State::Created, 0),
        code => (State::Exited, code.parse().unwrap()),
    };
    observed::Container {
        id: format!("id-{name}"),
        name: name.into(),
        sandbox: "s".into(),
        attempt: 0,
        state,
        created: 1,
        started: 1_000_000_000,
        finished: 2_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_ref: String::new(),
        hash: String::new(),
        log_path: String::new(),
        mounts: Vec::new(),
        annotations: HashMap::new(),
        user: None,
    }
}

/// The plan as text: sandbox step, `+started`, `-stopped`, `~backing off`, `finished`.
fn summary(plan: &Plan) -> String {
    let mut words = Vec::new();
    match plan.sandbox {
        SandboxStep::Keep => {}
        SandboxStep::Create { attempt } => words.push(format!("create{attempt}")),
        SandboxStep::Replace { attempt } => words.push(format!("replace{attempt}")),
    }
    words.extend(plan.start.iter().map(|s| format!("+{}{}", s.name, s.attempt)));
    words.extend(plan.stop.iter().map(|s| format!("-{}", s.name)));
    words.extend(plan.crash_loops.iter().map(|(name, _)| format!("~{name}")));
    if plan.finished {
        words.push("finished".into());
    }
    words.join(" ")
}

#[test]
fn steps() {
    let now = Timestamp::from_second(3).unwrap();
    let none = json!([]);
    let one = json!([{"name": "a", "image": "i"}]);
    let two = json!([{"name": "a"}, {"name": "b"}]);
    let init = json!([{"name": "i1"}, {"name": "i2"}]);
    let side = json!([{"name": "s1", "restartPolicy": "Always"}, {"name": "i2"}]);
    let rules = json!([{"name": "a", "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]);
    // Policy, init, main, sandbox (ready, dead, none), containers, started containers; what comes out.
    type Case<'a> = (&'a str, &'a Value, &'a Value, &'a str, &'a [&'a str], &'a [&'a str], &'a str);
    let cases: &[Case] = &[
        ("Always", &none, &two, "none", &[], &[], "create0 +a0 +b0"),
        ("Always", &none, &two, "ready", &[], &[], "+a0 +b0"),
        ("Always", &none, &two, "ready", &["a running"], &[], "+b0"),
        ("Always", &none, &one, "ready", &["a 0"], &[], "+a1"),
        ("OnFailure", &none, &one, "ready", &["a 0"], &[], "finished"),
        ("OnFailure", &none, &one, "ready", &["a 1"], &[], "+a1"),
        ("Never", &none, &one, "ready", &["a 1"], &[], "finished"),
        ("Never", &none, &two, "ready", &["a 1", "b running"], &[], ""),
        ("Never", &none, &rules, "ready", &["a 42"], &[], "+a1"),
        ("Never", &none, &rules, "ready", &["a 1"], &[], "finished"),
        ("Always", &none, &one, "ready", &["a created"], &[], "+a1"),
        // Init containers one after the other, then the others together.
        ("Always", &init, &two, "none", &[], &[], "create0 +i10"),
        ("Always", &init, &two, "ready", &["i1 running"], &[], ""),
        ("Always", &init, &two, "ready", &["i1 0"], &[], "+i20"),
        ("Always", &init, &two, "ready", &["i1 0", "i2 0"], &[], "+a0 +b0"),
        ("Always", &init, &two, "ready", &["i1 1"], &[], "+i11"),
        ("Never", &init, &two, "ready", &["i1 1"], &[], "finished"),
        // Collected init containers are not run again.
        ("Always", &init, &one, "ready", &["a running"], &[], ""),
        // Sidecars hold up the rest until they have started, and are restarted even in pods that never restart.
        ("Always", &side, &one, "ready", &["s1 running"], &[], ""),
        ("Always", &side, &one, "ready", &["s1 running"], &["id-s1"], "+i20"),
        ("Never", &side, &one, "ready", &["s1 0", "i2 0", "a running"], &[], "+s11"),
        ("Never", &side, &one, "ready", &["s1 running", "i2 0", "a 0"], &["id-s1"], "finished"),
        // A sandbox that died.
        ("Always", &none, &one, "dead", &["a 137"], &[], "replace1 +a1"),
        ("OnFailure", &none, &one, "dead", &["a 137"], &[], "replace1 +a1"),
        ("OnFailure", &none, &one, "dead", &["a 0"], &[], "finished"),
        ("Never", &none, &one, "dead", &["a 137"], &[], "finished"),
        ("Never", &none, &one, "dead", &[], &[], "replace1 +a0"),
        ("Always", &init, &one, "dead", &["i1 0", "i2 0", "a 137"], &[], "replace1 +i11"),
    ];
    for (policy, init, main, state, containers, started, wanted) in cases {
        let pod = pod(policy, (*init).clone(), (*main).clone());
        let observed = Observed {
            sandboxes: match *state {
                "none" => Vec::new(),
                state => vec![sandbox("s", state == "ready")],
            },
            containers: containers.iter().map(|c| container(c)).collect(),
        };
        let memory = Memory { started: started.iter().map(|s| (*s).to_owned()).collect(), ..Default::default() };
        let plan = plan(&pod, &observed, &memory, now);
        assert_eq!(summary(&plan), *wanted, "{policy} {state} {containers:?}");
    }
}

#[test]
fn crashed_containers_wait() {
    let now = Timestamp::from_second(3).unwrap();
    let pod = pod("Always", json!([]), json!([{"name": "a"}]));
    let observed = Observed { sandboxes: vec![sandbox("s", true)], containers: vec![container("a 1")] };
    let mut memory = Memory::default();
    memory.backoff.insert("a".into(), Backoff::new(now));
    let waiting = plan(&pod, &observed, &memory, now);
    assert_eq!(summary(&waiting), "~a");
    let until = waiting.wake.unwrap();
    assert_eq!(until.as_second(), 12);
    assert_eq!(summary(&plan(&pod, &observed, &memory, until)), "+a1");
}

#[test]
fn changed_and_failing_containers_are_stopped() {
    let now = Timestamp::from_second(3).unwrap();
    let pod = pod("Always", json!([]), json!([{"name": "a", "image": "i:2"}]));
    let mut running = container("a running");
    running.hash = "older".into();
    let observed =
        |c: &observed::Container| Observed { sandboxes: vec![sandbox("s", true)], containers: vec![c.clone()] };
    let changed = plan(&pod, &observed(&running), &Memory::default(), now);
    assert_eq!(changed.stop[0].message, "Container a definition changed, will be restarted");
    running.hash = labels::hash(&pod.spec.as_ref().unwrap().containers[0]);
    assert_eq!(summary(&plan(&pod, &observed(&running), &Memory::default(), now)), "");
    let memory = Memory { failed_probes: HashMap::from([("id-a".into(), "liveness")]), ..Default::default() };
    let failed = plan(&pod, &observed(&running), &memory, now);
    assert_eq!(failed.stop[0].message, "Container a failed liveness probe, will be restarted");
    assert_eq!(failed.stop[0].probe, Some("liveness"));
}
