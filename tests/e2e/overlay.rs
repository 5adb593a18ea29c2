//! Pods on two real nodes reach each other by address, Service and name, and nodes' ports lead to them.

use crate::agent::Agent;
use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{Outcome, eventually, has, run};

/// A server and an agent with these flags for the server, both Ready, and pods "near" and "far" on them.
fn two_nodes(flags: &[&str]) -> (Host, Agent) {
    let (host, second) = Host::and_second(flags);
    for (name, node) in [("near", "node-1"), ("far", "node-2")] {
        let spec = format!(r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":0}}}}"#);
        let image = format!("--image={BUSYBOX}");
        host.kubectl(&["run", name, &image, &format!("--labels=app=web,pod={name}"), "--overrides", &spec]).ok();
    }
    host.k("wait --for=condition=Ready pod/near pod/far --timeout=90s").ok();
    (host, second)
}

fn address(host: &Host, pod: &str) -> String {
    host.k(&format!("get pod {pod} -o jsonpath={{.status.podIP}}")).ok()
}

/// What a pod gets from a URL.
fn fetch(host: &Host, pod: &str, url: &str) -> Outcome {
    host.kubectl(&["exec", pod, "--", "timeout", "3", "wget", "-qO-", url])
}

#[track_caller]
fn fetches(host: &Host, pod: &str, url: &str, expected: &str) {
    eventually(&format!("{pod} fetches {url}"), 30, || {
        let got = fetch(host, pod, url).result()?;
        if plain(&got) == expected { Ok(()) } else { Err(got) }
    });
}

/// The web server of the test image writes IPv4 addresses as `[::ffff:192.0.2.1]`.
fn plain(answer: &str) -> &str {
    answer.trim().trim_start_matches("[::ffff:").trim_end_matches(']')
}

fn pods_reach_each_other(host: &Host) {
    let (near, far) = (address(host, "near"), address(host, "far"));
    fetches(host, "near", &format!("http://{far}:8080/"), "far");
    fetches(host, "far", &format!("http://{near}:8080/"), "near");
    fetches(host, "near", &format!("http://{far}:8080/cgi-bin/ip"), &near);
}

#[test]
#[ignore = "end to end on two real nodes, as root: ./test.sh"]
fn pods_of_two_nodes_reach_each_other() {
    let (host, second) = two_nodes(&[]);
    pods_reach_each_other(&host);
    let (near, far) = (address(&host, "near"), address(&host, "far"));

    // By Service and by name, with the caller's address kept.
    host.k("expose pod far --name=web --port=80 --target-port=8080 --type=NodePort").ok();
    let cluster_ip = host.k("get service web -o jsonpath={.spec.clusterIP}").ok();
    fetches(&host, "near", &format!("http://{cluster_ip}/cgi-bin/ip"), &near);
    fetches(&host, "near", "http://web/", "far");
    fetches(&host, "far", "http://web.default.svc.cluster.local/", "far");

    // From outside through either node; through the pod's own the caller keeps its address.
    let port = host.k("get service web -o jsonpath={.spec.ports[0].nodePort}").ok();
    let call = |node: &str| {
        run(host.outside("curl").args(["-sS", "--max-time", "3", &format!("http://{node}:{port}/cgi-bin/ip")])).result()
    };
    let through_first = eventually("node port of the other node", 20, || call(Host::IP));
    assert_ne!(plain(&through_first), Host::CLIENT_IP);
    assert_eq!(plain(&call(&second.ip).unwrap()), Host::CLIENT_IP);
    host.k("patch service web -p {\"spec\":{\"externalTrafficPolicy\":\"Local\"}}").ok();
    eventually("no endpoint there", 20, || call(Host::IP).err().ok_or_else(|| "answers".to_owned()));
    assert_eq!(plain(&call(&second.ip).unwrap()), Host::CLIENT_IP);

    // Large answers arrive, and the interface comes back when somebody removes it.
    host.kubectl(&["exec", "far", "--", "sh", "-c", "dd if=/dev/zero of=/tmp/www/large bs=1M count=20 2>/dev/null"])
        .ok();
    let size = format!("timeout 10 wget -qO- http://{far}:8080/large | wc -c");
    let got = host.kubectl(&["exec", "near", "--", "sh", "-c", &size]).ok();
    assert_eq!(got.trim(), (20 << 20).to_string());
    run(host.inside("ip").args(["link", "delete", "kdg-vxlan"])).ok();
    pods_reach_each_other(&host);

    // A node that goes leaves no way behind; uninstall leaves nothing.
    drop(second);
    host.k("delete node node-2").ok();
    eventually("alone again", 20, || {
        let links = run(host.inside("ip").args(["link"])).result()?;
        if links.contains("kdg-vxlan") { Err(links) } else { Ok(()) }
    });
}

#[test]
#[ignore = "end to end on two real nodes, as root: ./test.sh"]
fn agents_take_the_overlay_from_the_server() {
    let (host, second) = two_nodes(&["--flannel-backend=host-gw"]);
    pods_reach_each_other(&host);
    let routes = run(second.inside("ip").args(["route"])).ok();
    has(&routes, &format!("10.42.0.0/24 via {} dev eth0 proto 107", Host::IP));
}
