//! M2: from a Deployment to running containers, and what pods can be told.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run};
use std::process::Stdio;

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_deployment_runs_scales_and_rolls() {
    let host = Host::ready();
    has(&host.k("get nodes -o wide").ok(), "containerd://");
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=3")).ok();
    has(&host.k("rollout status deployment/web --timeout=60s").ok(), "successfully rolled out");
    let pods = host.k("get pods -o wide").ok();
    assert_eq!(pods.matches("1/1").count(), 3, "{pods}");
    assert_eq!(pods.matches("10.42.0.").count(), 3, "{pods}");
    has(&host.k("get all -o wide").ok(), "deployment.apps/web");
    let described = host.k("describe pods -l app=web").ok();
    for part in ["Scheduled", "Started", "QoS Class:", "kube-api-access"] {
        has(&described, part);
    }
    has(&host.k("get events").ok(), "SuccessfulCreate");

    host.k("scale deployment web --replicas=1").ok();
    eventually("scaled down", 40, || match host.k("get pods -o name").ok().lines().count() {
        1 => Ok(()),
        n => Err(format!("{n} pods")),
    });
    host.kubectl(&["set", "env", "deployment/web", "PORT=9090"]).ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    has(&host.k("rollout history deployment/web").ok(), "2");
    let pod = only_pod(&host, "app=web");
    has(&host.k(&format!("get pod {pod} -o jsonpath={{.spec.containers[0].env}}")).ok(), "9090");
    host.k("rollout undo deployment/web").ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    eventually("one old pod again", 30, || {
        let pods = host.k("get pods -o jsonpath={.items[*].spec.containers[0].env}").ok();
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    host.k("delete deployment web --timeout=60s").ok();
    eventually("pods gone", 60, || match host.k("get pods,rs -o name").ok() {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}

/// Name of the one pod with this label.
pub fn only_pod(host: &Host, selector: &str) -> String {
    eventually("one pod", 40, || {
        let names = host.k(&format!("get pods -l {selector} -o jsonpath={{.items[*].metadata.name}}")).ok();
        match names.split_whitespace().collect::<Vec<_>>().as_slice() {
            [one] => Ok((*one).to_owned()),
            many => Err(format!("{many:?}")),
        }
    })
}

const PLAIN: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: green, mode: fast}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {word: hidden}
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full}, annotations: {note: hello}}
spec:
  terminationGracePeriodSeconds: 1
  hostAliases: [{ip: 10.9.8.7, hostnames: [far]}]
  securityContext: {fsGroup: 2000}
  initContainers:
  - {name: first, image: IMAGE, command: [sh, -c, "echo made by init > /shared/init"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "echo out; echo err >&2; sleep 3600"]
    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {memory: 64Mi}}
    env:
    - {name: PLAIN, value: "x$(COLOR)"}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: AFTER, value: "$(COLOR)-$(PLAIN)"}
    - {name: WORD, valueFrom: {secretKeyRef: {name: key, key: word}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    envFrom: [{configMapRef: {name: settings}, prefix: CM_}]
    readinessProbe: {exec: {command: [test, -f, /shared/init]}, periodSeconds: 1}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: memory, mountPath: /memory}
    - {name: settings, mountPath: /settings}
    - {name: key, mountPath: /key, readOnly: true}
    - {name: info, mountPath: /info}
    - {name: host, mountPath: /host, readOnly: true}
  - name: limited
    image: IMAGE
    command: [sleep, "3600"]
    securityContext: {runAsUser: 1000, runAsGroup: 1000, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: shared, mountPath: /shared}]
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key, defaultMode: 0400}}
  - name: info
    projected:
      sources:
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
      - configMap: {name: settings, items: [{key: mode, path: deep/mode}]}
  - {name: host, hostPath: {path: /etc, type: Directory}}
"#;

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_pod_gets_what_its_spec_says() {
    let host = Host::ready();
    host.apply(&PLAIN.replace("IMAGE", BUSYBOX)).ok();
    host.k("wait --for=condition=Ready pod/full --timeout=60s").ok();
    let sh = |script: &str| host.kubectl(&["exec", "full", "-c", "main", "--", "sh", "-c", script]).ok();
    assert_eq!(sh("cat /shared/init").trim(), "made by init");
    assert_eq!(
        sh("echo $PLAIN,$AFTER,$WORD,$NODE,$LIMIT,$CM_mode").trim(),
        "x$(COLOR),green-x$(COLOR),hidden,node-1,67108864,fast"
    );
    assert_eq!(sh("echo $POD_IP").trim(), host.k("get pod full -o jsonpath={.status.podIP}").ok());
    assert_eq!(sh("hostname").trim(), "full");
    has(&sh("cat /etc/hosts"), "10.9.8.7\tfar");
    has(&sh("cat /etc/resolv.conf"), "nameserver 10.43.0.10");
    has(&sh("mount | grep ' /memory '"), "tmpfs");
    assert_eq!(sh("cat /key/word; stat -c %a -L /key/word").trim(), "hidden400".replace("400", "440"));
    has(&sh("cat /info/labels"), "app=\"full\"");
    assert_eq!(sh("cat /info/deep/mode"), "fast");
    assert!(!sh("ls /host").is_empty());
    has(&sh("ls /var/run/secrets/kubernetes.io/serviceaccount"), "token");
    let limited = |script: &str| host.kubectl(&["exec", "full", "-c", "limited", "--", "sh", "-c", script]);
    assert_eq!(limited("id -u; id -g; id -G").ok().split_whitespace().collect::<Vec<_>>()[..2], ["1000", "1000"]);
    has(&limited("id -G").ok(), "2000");
    limited("touch /x").fails();
    limited("touch /shared/from-user").ok();
    has(&limited("grep CapEff /proc/self/status").ok(), "0000000000000000");
    // Output of both streams, in order; and timestamps.
    let logs = host.k("logs full -c main").ok();
    assert!(logs.contains("out\n") && logs.contains("err\n"), "{logs}");
    assert_eq!(host.k("get pod full -o jsonpath={.status.qosClass}").ok(), "Burstable");
    // A changed ConfigMap reaches the volume without a restart.
    host.kubectl(&["patch", "cm", "settings", "-p", r#"{"data":{"color":"blue"}}"#]).ok();
    eventually("volume updated", 90, || match sh("cat /settings/color").as_str() {
        "blue" => Ok(()),
        other => Err(other.to_owned()),
    });
    host.k("delete pod full --timeout=30s").ok();
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn logs_follow_and_previous() {
    let host = Host::ready();
    let pod = |name: &str, policy: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  \
             terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: {BUSYBOX}\n    \
             command: [sh, -c, 'i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); sleep 0.5; done; exit 3']\n"
        )
    };
    host.apply(&pod("count", "Never")).ok();
    eventually("started", 40, || host.k("logs count").result().and_then(|l| if l.is_empty() { Err(l) } else { Ok(l) }));
    let followed = run(host.kubectl_command(&["logs", "-f", "count"]).stdin(Stdio::null())).ok();
    assert_eq!(followed.lines().collect::<Vec<_>>(), ["line 0", "line 1", "line 2", "line 3", "line 4"]);
    assert_eq!(host.k("logs count --tail=1").ok().trim(), "line 4");
    has(&host.k("logs count --timestamps --tail=1").ok(), "Z line 4");
    eventually("pod failed", 20, || match host.k("get pod count -o jsonpath={.status.phase}").ok() {
        phase if phase == "Failed" => Ok(()),
        phase => Err(phase),
    });
    host.apply(&pod("again", "Always")).ok();
    eventually("previous container's log", 60, || {
        host.k("logs again --previous").result().and_then(|l| if l.contains("line 4") { Ok(()) } else { Err(l) })
    });
    has(&host.k("get pod again -o jsonpath={.status.containerStatuses[0].lastState}").ok(), "\"exitCode\":3");
}
