//! An agent behind NAT with no way in: everything that the server wants of it goes through the agent's own connection.

use crate::agent::Agent;
use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run, sh};
use std::io::Read;
use std::process::Stdio;

/// Two nodes: the server's own, and one behind a router that lets nothing in, with a web server and a shell on it.
fn far(host: &Host) -> Agent {
    let mut agent = host.behind_nat(2);
    agent.import();
    agent.join(host, &[]);
    host.wait_node("node-2");
    host.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: far, labels: {{app: far}}}}\nspec:\n  nodeName: node-2\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: {BUSYBOX}, stdin: true, ports: [{{name: web, containerPort: 8080}}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: far}}\nspec: {{selector: {{app: far}}, ports: [{{name: a, port: 80, targetPort: web}}]}}\n"
    ))
    .ok();
    host.k("wait --for=condition=Ready pod/far --timeout=90s").ok();
    // Nothing gets in the ordinary way.
    run(host.inside("curl").args(["-sk", "--max-time", "2", &format!("https://{}:10250/healthz", agent.ip)])).fails();
    agent
}

fn tunnels(host: &Host) -> String {
    host.k("get --raw /v1-kedge/tunnel").ok()
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn everything_works_behind_nat() {
    let host = Host::ready();
    let agent = far(&host);
    has(&tunnels(&host), "\"node-2\"");
    // The server's own node needs none; the router's address is what the server sees.
    let status = host.kedge_with_config(&["status", &host.instance_flags()[0]]).ok();
    let lines: Vec<&str> = status.lines().filter(|l| l.starts_with("node ")).collect();
    assert!(lines[0].contains("node-1 Ready") && !lines[0].contains("tunnel"), "{status}");
    assert!(lines[1].contains("node-2 Ready") && lines[1].contains(", tunnel from 10.99.0.22:"), "{status}");
    // One connection carries all of it.
    let connections = run(agent.inside("ss").args(["-Htn", "state", "established", "dport", "=", ":6443"])).ok();
    assert_eq!(connections.lines().count(), 1, "{connections}");

    // exec, with streams apart and an exit code; logs; attach; cp both ways.
    let outcome = host.kubectl(&["exec", "far", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((outcome.stdout.as_str(), outcome.ok), ("out\n", false));
    has(&outcome.stderr, "exit code 7");
    host.kubectl(&["exec", "far", "--", "sh", "-c", "echo logged > /proc/1/fd/1"]).ok();
    eventually("logs", 10, || {
        let text = host.k("logs far").result()?;
        if text.contains("logged") { Ok(()) } else { Err(text) }
    });
    let file = host.dir.join("blob");
    std::fs::write(&file, vec![b'x'; 5 << 20]).expect("write");
    host.kubectl(&["cp", &file.display().to_string(), "far:/tmp/blob"]).ok();
    let back = host.dir.join("back");
    host.kubectl(&["cp", "far:/tmp/blob", &back.display().to_string()]).ok();
    assert_eq!(std::fs::read(&back).expect("copied back"), vec![b'x'; 5 << 20]);
    let mut attached =
        host.kubectl_command(&["attach", "far"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("attach");
    std::thread::sleep(std::time::Duration::from_secs(1));
    host.kubectl(&["exec", "far", "--", "sh", "-c", "echo attached > /proc/1/fd/1"]).ok();
    let mut seen = [0u8; 8];
    attached.stdout.as_mut().expect("stdout").read_exact(&mut seen).expect("read");
    assert_eq!(&seen, b"attached");
    attached.kill().expect("kill");
    attached.wait().expect("wait");

    // port-forward, while another forwarded connection is stalled with full windows.
    let mut forward = host
        .kubectl_command(&["port-forward", "pod/far", "18080:8080"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("port-forward");
    let mut stalled = host
        .kubectl_command(&["exec", "far", "--", "cat", "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a reader that does not read");
    eventually("forwarded", 20, || {
        run(host.inside("curl").args(["-sS", "--max-time", "3", "http://127.0.0.1:18080/"])).result()
    });
    let many = "for i in $(seq 50); do curl -s --max-time 20 http://127.0.0.1:18080/ & done; wait";
    assert_eq!(run(host.inside("sh").args(["-c", many])).ok().matches("far").count(), 50);
    for child in [&mut forward, &mut stalled] {
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    // Proxies of node, pod and Service; the kubelet's own figures.
    assert_eq!(host.k("get --raw /api/v1/nodes/node-2/proxy/healthz").ok(), "ok");
    has(&host.k("get --raw /api/v1/nodes/node-2/proxy/stats/summary").ok(), "\"name\":\"far\"");
    has(&host.k("get --raw /api/v1/nodes/node-2/proxy/metrics/resource").ok(), "container_cpu_usage_seconds_total{");
    has(&host.k("get --raw /api/v1/nodes/node-2/proxy/configz").ok(), "kubeletconfig");
    has(&host.k("get --raw /api/v1/namespaces/default/pods/far:8080/proxy/").ok(), "far");
    has(&host.k("get --raw /api/v1/namespaces/default/services/far:a/proxy/").ok(), "far");
    assert!(
        run(agent.inside("ss").args(["-Htn", "state", "established", "dport", "=", ":6443"])).ok().lines().count() == 1
    );
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn the_tunnel_comes_back() {
    let mut host = Host::ready();
    let agent = far(&host);

    // The link is cut: a stream ends with an error, and when the link is back so is the tunnel, by itself.
    let mut stream = host
        .kubectl_command(&["exec", "far", "--", "sleep", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl exec");
    eventually("the stream is open", 20, || {
        let text = tunnels(&host);
        if text.contains("\"streams\":1") { Ok(()) } else { Err(text) }
    });
    sh(&format!("ip -n {} link set eth0 down", agent.id())).ok();
    eventually("the dead tunnel is found", 90, || {
        let text = tunnels(&host);
        if text.contains("node-2") { Err(text) } else { Ok(()) }
    });
    assert!(!stream.wait().expect("wait").success());
    let gateway = agent.ip.trim_end_matches('2').to_owned() + "1";
    sh(&format!("ip -n {0} link set eth0 up; ip -n {0} route replace default via {gateway}", agent.id())).ok();
    let works = |host: &Host| {
        eventually("exec works again", 90, || host.kubectl(&["exec", "far", "--", "echo", "back"]).result());
    };
    works(&host);

    // The server is killed and started again.
    host.kill();
    host.start_again();
    host.wait_api();
    works(&host);
}

/// A server, a host beside it and one behind NAT, which join at the same moment.
#[test]
#[ignore = "end to end on three real nodes, as root: ./test.sh"]
fn three_hosts_join_at_once() {
    let host = Host::ready();
    let mut near = host.beside(3);
    let mut far = host.behind_nat(2);
    for agent in [&mut near, &mut far] {
        agent.import();
        agent.join(&host, &[]);
    }
    host.wait_node("node-2");
    host.wait_node("node-3");
    for node in 1..=3 {
        let spec = format!(r#"{{"spec":{{"nodeName":"node-{node}","terminationGracePeriodSeconds":0}}}}"#);
        let (name, image) = (format!("on-{node}"), format!("--image={BUSYBOX}"));
        host.kubectl(&["run", &name, &image, "--port=8080", "--expose", "--overrides", &spec]).ok();
    }
    host.k("wait --for=condition=Ready pod --all --timeout=90s").ok();
    let ask = |from: &str, url: &str| {
        eventually(&format!("{url} from {from}"), 30, || {
            host.kubectl(&["exec", from, "--", "timeout", "3", "wget", "-qO-", url]).result()
        })
    };
    // By name and Service over the overlay, in both directions; behind NAT at home.
    has(&ask("on-1", "http://on-3:8080"), "on-3");
    has(&ask("on-3", "http://on-1:8080"), "on-1");
    has(&ask("on-2", "http://on-2:8080"), "on-2");
    // The API by its Service address from behind NAT.
    let from_far =
        ["exec", "on-2", "--", "sh", "-c", "nc -w 3 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null"];
    eventually("the API from behind NAT", 30, || host.kubectl(&from_far).result());
    for node in 1..=3 {
        assert_eq!(host.k(&format!("exec on-{node} -- hostname")).ok(), format!("on-{node}\n"));
        assert_eq!(host.k(&format!("get --raw /api/v1/nodes/node-{node}/proxy/healthz")).ok(), "ok");
    }
    let seen = tunnels(&host);
    assert!(seen.contains("node-2") && seen.contains("node-3") && !seen.contains("node-1"), "{seen}");
}
