//! M3: Services by name and address, NodePorts from outside, DNS.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run, sh};
use std::collections::BTreeSet;

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn services_are_reached_by_name_and_address() {
    let host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=3")).ok();
    host.k("expose deployment web --port=80 --target-port=8080 --type=NodePort").ok();
    host.k(&format!("run client --image={BUSYBOX} --command -- sleep 3600")).ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    host.k("wait --for=condition=Ready pod/client --timeout=60s").ok();
    let pods: BTreeSet<String> = host
        .k("get pods -l app=web -o jsonpath={.items[*].metadata.name}")
        .ok()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let address = host.k("get service web -o jsonpath={.spec.clusterIP}").ok();
    let node_port = host.k("get service web -o jsonpath={.spec.ports[0].nodePort}").ok();
    let in_pod = |script: &str| host.kubectl(&["exec", "client", "--", "sh", "-c", script]);

    // Balanced over all pods: from a pod by name, from the node by address, from outside by node port.
    let names = |output: String| output.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    eventually("all pods answer a pod", 20, || {
        let seen = names(in_pod("for i in $(seq 30); do wget -qO- http://web; done").result()?);
        if seen == pods { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    let curl = |url: &str| format!("for i in $(seq 30); do curl -s --max-time 5 {url}; done");
    assert_eq!(names(run(host.inside("sh").args(["-c", &curl(&format!("http://{address}/"))])).ok()), pods);
    assert_eq!(
        names(run(host.outside("sh").args(["-c", &curl(&format!("http://{}:{node_port}/", Host::IP))])).ok()),
        pods
    );

    // A pod reaches itself through its Service.
    let one = pods.iter().next().expect("a pod");
    let hairpin =
        host.kubectl(&["exec", one, "--", "sh", "-c", "for i in $(seq 12); do wget -qO- http://web; done"]).ok();
    assert!(names(hairpin).contains(one), "hairpin");

    // DNS.
    has(&in_pod("nslookup web.default.svc.cluster.local").ok(), &address);
    has(&in_pod("nslookup kubernetes.default.svc.cluster.local").ok(), "10.43.0.1");
    has(&in_pod(&format!("nslookup {address}")).ok(), "web.default.svc.cluster.local");
    in_pod("nslookup missing.default.svc.cluster.local").fails();
    host.apply("apiVersion: v1\nkind: Service\nmetadata: {name: heads}\nspec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}\n").ok();
    eventually("headless answers with pods", 20, || {
        let answer = in_pod("nslookup heads.default.svc.cluster.local").result()?;
        if answer.matches("10.42.0.").count() >= 3 { Ok(()) } else { Err(answer) }
    });

    // Without endpoints a connection is refused at once, not dropped.
    host.apply("apiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec: {selector: {app: nobody}, ports: [{port: 80}]}\n").ok();
    let empty = host.k("get service empty -o jsonpath={.spec.clusterIP}").ok();
    eventually("refused", 20, || {
        let outcome = run(host.inside("curl").args(["-sS", "--max-time", "5", &format!("http://{empty}/")]));
        if outcome.stderr.contains("refused")
            || outcome.stderr.contains("Failed to connect") && !outcome.stderr.contains("timed out")
        {
            Ok(())
        } else {
            Err(format!("{outcome:?}"))
        }
    });

    // Scaling to one leaves one answer; deleting the Service ends it.
    host.k("scale deployment web --replicas=1").ok();
    eventually("one pod answers", 30, || {
        let seen = names(run(host.inside("sh").args(["-c", &curl(&format!("http://{address}/"))])).result()?);
        if seen.len() == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
    });

    // A firewall reload that flushes everything is healed.
    run(host.inside("nft").args(["flush", "ruleset"])).ok();
    eventually("rules are back", 10, || {
        run(host.inside("curl").args(["-sS", "--max-time", "2", &format!("http://{address}/")])).result()
    });
    assert_eq!(sh("ls /proc/self/fd >/dev/null && echo ok").ok().trim(), "ok");
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn host_ports_and_pod_egress() {
    let host = Host::ready();
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: hp}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: {BUSYBOX}, ports: [{{containerPort: 8080, hostPort: 8888}}]}}\n"
    );
    host.apply(&pod).ok();
    host.k("wait --for=condition=Ready pod/hp --timeout=60s").ok();
    eventually("host port answers from outside", 20, || {
        run(host.outside("curl").args(["-sS", "--max-time", "3", &format!("http://{}:8888/", Host::IP)])).result()
    });
    // A pod's packets leave with the node's address: the client has no route to pods.
    let mut server = host.outside("busybox");
    server.args(["nc", "-l", "-p", "7070", "-e", "echo", "hello"]);
    let mut listening = server.stdout(std::process::Stdio::null()).spawn().expect("listener");
    let got = eventually("egress", 10, || {
        host.kubectl(&["exec", "hp", "--", "sh", "-c", &format!("nc {} 7070 </dev/null", Host::CLIENT_IP)]).result()
    });
    assert_eq!(got.trim(), "hello");
    let _ = listening.kill();
    let _ = listening.wait();
    host.k("delete pod hp --timeout=30s").ok();
    eventually("host port is closed", 10, || {
        let call = run(host.outside("curl").args(["-sS", "--max-time", "3", &format!("http://{}:8888/", Host::IP)]));
        if call.ok { Err("still answers".to_owned()) } else { Ok(()) }
    });
}
