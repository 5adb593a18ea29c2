//! What belongs together goes together: owner references, propagation policies, namespaces with pods in them; and
//! the everyday verbs that no other story uses.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run, sh};

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn what_is_owned_goes_with_its_owner() {
    let host = Host::ready();
    let count = |what: &str| host.k(&format!("get {what} -o name")).ok().lines().count();
    let gone = |what: &str| {
        eventually(what, 60, || match host.k(&format!("get {what} -o name")).ok() {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        });
    };
    // Background (the default), foreground, orphan.
    for policy in ["background", "foreground"] {
        host.k(&format!("create deployment d --image={BUSYBOX} --replicas=2")).ok();
        host.k("rollout status deployment/d --timeout=60s").ok();
        host.k(&format!("delete deployment d --cascade={policy} --timeout=60s")).ok();
        gone("rs,pods -l app=d");
    }
    host.k(&format!("create deployment o --image={BUSYBOX} --replicas=1")).ok();
    host.k("rollout status deployment/o --timeout=60s").ok();
    host.k("delete deployment o --cascade=orphan --timeout=60s").ok();
    assert_eq!((count("rs -l app=o"), count("pods -l app=o")), (1, 1), "orphans stay");
    assert_eq!(host.k("get rs -l app=o -o jsonpath={.items[*].metadata.ownerReferences}").ok(), "");
    host.k("delete rs -l app=o --timeout=60s").ok();
    gone("pods -l app=o");

    // A namespace takes everything in it along.
    host.k("create namespace team").ok();
    host.k(&format!("-n team create deployment w --image={BUSYBOX} --replicas=2")).ok();
    host.k("-n team create configmap c --from-literal=a=b").ok();
    host.k("-n team rollout status deployment/w --timeout=60s").ok();
    host.k("delete namespace team --timeout=90s").ok();
    has(&host.k("-n team get configmap c").fails(), "not found");
    gone("pods -A -l app=w");
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn everyday_verbs() {
    let host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX}")).ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    // edit through $EDITOR, as a person would.
    let editor = host.dir.join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/^  replicas: 1/  replicas: 2/' \"$1\"\n").expect("editor");
    sh(&format!("chmod +x {}", editor.display())).ok();
    let edited = run(host.kubectl_command(&["edit", "deployment", "web"]).env("EDITOR", &editor));
    has(&edited.ok(), "edited");
    host.k("wait --for=jsonpath={.status.readyReplicas}=2 deployment/web --timeout=60s").ok();
    host.k("rollout restart deployment/web").ok();
    host.k("rollout status deployment/web --timeout=90s").ok();
    host.k("rollout pause deployment/web").ok();
    host.k("rollout resume deployment/web").ok();
    host.k("annotate pods -l app=web note=hello").ok();
    has(&host.k("get pods -l app=web -o jsonpath={.items[*].metadata.annotations.note}").ok(), "hello");
    has(&host.k("explain deployment.spec.strategy").ok(), "rollingUpdate");
    has(&host.k("describe node node-1").ok(), "Allocated resources");
    has(&host.k("get events --field-selector reason=Scheduled").ok(), "Successfully assigned");
    // cordon, taint: nothing new is placed; drain evicts.
    host.k("cordon node-1").ok();
    host.k("scale deployment web --replicas=3").ok();
    eventually("one pod waits", 30, || {
        let text = host.k("get pods -l app=web").ok();
        if text.contains("Pending") { Ok(()) } else { Err(text) }
    });
    host.k("uncordon node-1").ok();
    host.k("wait --for=jsonpath={.status.readyReplicas}=3 deployment/web --timeout=60s").ok();
    has(&host.k("drain node-1 --ignore-daemonsets --delete-emptydir-data --force --timeout=90s").ok(), "drained");
    host.k("uncordon node-1").ok();
    host.k("rollout status deployment/web --timeout=90s").ok();
    // A pod that ends well, and one that is debugged with an ephemeral container.
    has(&host.k(&format!("run once --image={BUSYBOX} --restart=Never --command -- echo done")).ok(), "created");
    host.k("wait --for=jsonpath={.status.phase}=Succeeded pod/once --timeout=60s").ok();
    assert_eq!(host.k("logs once").ok(), "done\n");
    has(&host.k("get pod once").ok(), "Completed");
}
