//! A node's life: drained within its budgets, tainted, deleted and back, and stopped with its machine.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has};

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_drain_waits_for_the_budget() {
    let host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=1")).ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    host.k("create poddisruptionbudget web --selector=app=web --min-available=1").ok();
    let budget = |allowed: u32| {
        let status = format!(
            r#"{{"status":{{"observedGeneration":1,"disruptionsAllowed":{allowed},"currentHealthy":1,"desiredHealthy":1,"expectedPods":1}}}}"#
        );
        host.kubectl(&["patch", "pdb", "web", "--subresource=status", "--type=merge", "-p", &status]).ok();
    };
    budget(0);
    let refused = host.k("drain node-1 --ignore-daemonsets --force --timeout=8s").fails();
    has(&refused, "Cannot evict pod as it would violate the pod's disruption budget.");
    host.k("wait --for=condition=Ready pod -l app=web --timeout=5s").ok();
    budget(1);
    has(&host.k("drain node-1 --ignore-daemonsets --force --timeout=60s").ok(), "drained");
    let left = host.k("get pdb web -o jsonpath={.status.disruptionsAllowed}{.status.disruptedPods}").ok();
    has(&left, "0{\"web-");
    host.k("uncordon node-1").ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn taints_drive_pods_away() {
    let host = Host::ready();
    let pod = |name: &str, tolerations: &str| {
        host.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  tolerations: [{tolerations}]\n  containers: [{{name: c, image: {BUSYBOX}}}]\n"
        ))
        .ok();
    };
    pod("plain", "");
    pod("brief", "{key: maintenance, operator: Exists, effect: NoExecute, tolerationSeconds: 5}");
    pod("stays", "{key: maintenance, operator: Exists}");
    host.k("wait --for=condition=Ready pod/plain pod/brief pod/stays --timeout=60s").ok();
    host.k("taint nodes node-1 maintenance=now:NoExecute").ok();
    host.k("wait --for=delete pod/plain --timeout=30s").ok();
    host.k("wait --for=delete pod/brief --timeout=30s").ok();
    host.k("taint nodes node-1 maintenance-").ok();
    has(&host.k("get pod stays").ok(), "Running");
    has(
        &host.k("get events --field-selector reason=TaintManagerEviction").ok(),
        "Marking for deletion Pod default/brief",
    );
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_deleted_node_comes_back_with_its_pods() {
    let host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=2")).ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    let pods = || {
        host.k("get pods -o jsonpath={range.items[*]}{.metadata.name}{.status.containerStatuses[*].containerID}{end}")
            .ok()
    };
    let (before, uid) = (pods(), host.k("get node node-1 -o jsonpath={.metadata.uid}").ok());
    host.k("delete node node-1").ok();
    eventually("another Node of that name", 20, || {
        match host.k("get node node-1 -o jsonpath={.metadata.uid}").result()? {
            same if same == uid || same.is_empty() => Err(same),
            _ => Ok(()),
        }
    });
    host.k("wait --for=condition=Ready node/node-1 --timeout=30s").ok();
    eventually("a lease of the new Node", 60, || {
        let owner =
            host.k("-n kube-node-lease get lease node-1 -o jsonpath={.metadata.ownerReferences[0].uid}").result()?;
        if owner == host.k("get node node-1 -o jsonpath={.metadata.uid}").ok() { Ok(()) } else { Err(owner) }
    });
    assert_eq!(pods(), before, "the pods went on");
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn pods_end_with_the_machine_and_start_with_it() {
    let mut host = Host::new();
    host.import();
    let notes = host.dir.join("notes");
    std::fs::create_dir_all(&notes).expect("notes");
    host.start(&["--shutdown-grace-period=10s", "--shutdown-grace-period-critical-pods=5s"]);
    host.wait_ready();
    let pod = |name: &str, class: &str| {
        host.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: kube-system}}
spec:
  priorityClassName: {class}
  volumes: [{{name: notes, hostPath: {{path: {}}}}}]
  containers:
  - name: c
    image: {BUSYBOX}
    volumeMounts: [{{name: notes, mountPath: /notes}}]
    command: [sh, -c, \"trap 'echo {name} >> /notes/ended; exit 0' TERM; echo {name} >> /notes/started; while true; do sleep 0.1; done\"]
",
            notes.display()
        ))
        .ok();
    };
    pod("critical", "system-node-critical");
    pod("plain", "\"\"");
    host.k("-n kube-system wait --for=condition=Ready pod/critical pod/plain --timeout=60s").ok();
    let noted = |file: &str| std::fs::read_to_string(notes.join(file)).unwrap_or_default();

    // kedge alone stops: nothing ends.
    host.stop();
    assert_eq!(noted("ended"), "");
    host.start_again();
    host.wait_ready();

    // The machine stops: the plain pod first.
    std::fs::write(host.run_dir().join("machine-stopping"), "").expect("marker");
    host.stop();
    assert_eq!(noted("ended"), "plain\ncritical\n");
    has(&host.log(), "the machine stops: ending pods");

    // And starts again: so do they.
    host.start_again();
    host.wait_ready();
    eventually("both again", 60, || {
        let started = noted("started");
        if started.lines().count() == 4 { Ok(()) } else { Err(started) }
    });
    host.k("-n kube-system wait --for=condition=Ready pod/critical pod/plain --timeout=60s").ok();
}
