//! Nodes go on without their server, and come back to it: DESIGN D11.

use crate::agent::{Agent, server_url};
use crate::host::Host;
use crate::image::BUSYBOX;
use crate::machine::Machine;
use crate::run::{eventually, has, run, sh};
use std::time::Instant;

/// Pods on node-2 that use everything a pod may need from the API: a web server that crashes when it is told to, with
/// a ConfigMap in its environment, a Secret and a token in volumes, a probe, and a Service.
fn workload(mark: &str) -> String {
    let serve = format!(
        "mkdir -p /{mark}/cgi-bin; echo \"$GREETING $(cat /secret/key) $(wc -c < /var/run/secrets/kubernetes.io/serviceaccount/token)\" \
         > /{mark}/index.html; exec httpd -f -p 8080 -h /{mark}"
    );
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: words}}\ndata: {{greeting: hello}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\nstringData: {{key: sesame}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{app: web}}}}\nspec:\n  nodeName: node-2\n  terminationGracePeriodSeconds: 1\n\
         \x20 volumes: [{{name: keys, secret: {{secretName: keys}}}}]\n\
         \x20 containers:\n  - name: web\n    image: {BUSYBOX}\n    command: [sh, -c, '{serve}']\n\
         \x20   env: [{{name: GREETING, valueFrom: {{configMapKeyRef: {{name: words, key: greeting}}}}}}]\n\
         \x20   volumeMounts: [{{name: keys, mountPath: /secret}}]\n\
         \x20   readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: doomed}}\nspec:\n  nodeName: node-2\n  terminationGracePeriodSeconds: 1\n\
         \x20 containers:\n  - name: doomed\n    image: {BUSYBOX}\n    command: [sleep, '{}']\n\
         \x20   livenessProbe: {{exec: {{command: [test, '!', -e, /sick]}}, periodSeconds: 1, failureThreshold: 1}}\n",
        doomed(mark)
    )
}

/// Seconds that the doomed pod sleeps: nobody else on this machine sleeps for as long.
fn doomed(mark: &str) -> u64 {
    1_000_000 + mark.bytes().fold(0, |n, b| (n * 31 + u64::from(b)) % 1_000_000)
}

/// The Service as node-2 reaches it.
fn page(agent: &Agent, address: &str) -> Result<String, String> {
    run(agent.inside("curl").args(["-sS", "--max-time", "2", &format!("http://{address}/")])).result()
}

fn resolves(agent: &Agent, address: &str) {
    eventually("DNS answers", 20, || {
        let query = ["nslookup", "web.default.svc.cluster.local", "10.43.0.10"];
        let answer = run(agent.inside("busybox").args(query)).result()?;
        if answer.contains(address) { Ok(()) } else { Err(answer) }
    });
}

/// Ids of the containers that run on a host.
fn containers(machine: &Machine) -> String {
    let socket = machine.run_dir().join("containerd/containerd.sock");
    let list =
        run(machine.inside("ctr").args(["-a", &socket.display().to_string(), "-n", "k8s.io", "task", "ls"])).ok();
    let mut ids: Vec<_> = list.lines().filter(|l| l.contains("RUNNING")).map(|l| l.split(' ').next()).collect();
    ids.sort();
    format!("{ids:?}")
}

fn pids(pattern: &str) -> String {
    sh(&format!("pgrep -f '^{pattern}$' || true")).ok().trim().to_owned()
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_node_goes_on_and_starts_again_without_its_server() {
    let (host, mut second) = Host::and_second(&["--node-monitor-grace-period=10s"]);
    let mark = host.id().to_owned();
    host.apply(&workload(&mark)).ok();
    host.k("wait --for=condition=Ready pod/web pod/doomed --timeout=90s").ok();
    let address = host.k("get service web -o jsonpath={.spec.clusterIP}").ok();
    let content = eventually("the Service answers", 20, || page(&second, &address));
    has(&content, "hello sesame");
    resolves(&second, &address);
    let httpd = format!("httpd -f -p 8080 -h /{mark}");
    assert!(!pids(&httpd).is_empty());
    // What is known is written within seconds.
    std::thread::sleep(std::time::Duration::from_secs(15));

    // The link is cut: a crashed container starts again, as one whose probe fails; Service and DNS answer.
    host.cut(&second.ip);
    sh(&format!("kill -9 {}", pids(&httpd))).ok();
    let sleeps = format!("sleep {}", doomed(&mark));
    let healthy = pids(&sleeps);
    sh(&format!("touch /proc/{healthy}/root/sick")).ok();
    eventually("the container runs again", 60, || if pids(&httpd).is_empty() { Err("not yet".into()) } else { Ok(()) });
    eventually("the Service answers", 60, || page(&second, &address));
    eventually("the probe makes another container", 60, || {
        let found = pids(&sleeps);
        if found.is_empty() || found == healthy { Err(found) } else { Ok(()) }
    });
    resolves(&second, &address);
    host.k("delete pod doomed --wait=false").ok();

    // The host reboots meanwhile: its pods come back, with all that they had.
    second.reboot();
    assert!(pids(&httpd).is_empty());
    let began = Instant::now();
    second.start_again();
    eventually("the Service answers after the reboot", 90, || {
        let text = page(&second, &address)?;
        if text.contains("hello sesame") { Ok(()) } else { Err(text) }
    });
    eprintln!("pods of a node that started without its server answered after {:.1} s", began.elapsed().as_secs_f64());
    resolves(&second, &address);
    eventually("the other pod runs", 60, || if pids(&sleeps).is_empty() { Err("not yet".into()) } else { Ok(()) });
    let kept = second.data_dir().join("agent/kept");
    let secret = sh(&format!("grep -rlc -e sesame -e hello {} || true", kept.display())).ok();
    assert_eq!(secret.trim(), "", "what is kept is sealed");
    eventually("the server misses the node", 120, || {
        let ready = host.k(READY).result()?;
        if ready == "Unknown" { Ok(()) } else { Err(ready) }
    });
    let before = pids(&httpd);

    // The link is back: nothing restarts, statuses are brought up to date, and what was deleted meanwhile goes.
    host.mend(&second.ip);
    let began = Instant::now();
    host.wait_node("node-2");
    eprintln!("a node was Ready again {:.1} s after its link came back", began.elapsed().as_secs_f64());
    eventually("taints go", 30, || {
        let taints = host.k("get node node-2 -o jsonpath={.spec.taints}").result()?;
        if taints.is_empty() { Ok(()) } else { Err(taints) }
    });
    host.k("wait --for=delete pod/doomed --timeout=60s").ok();
    assert_eq!(pids(&sleeps), "");
    host.k("wait --for=condition=Ready pod/web --timeout=60s").ok();
    let restarts = host.k("get pod web -o jsonpath={.status.containerStatuses[0].restartCount}").ok();
    assert_eq!(restarts, "2", "one crash and one reboot");
    assert_eq!(pids(&httpd), before, "nothing restarts needlessly");
    has(&host.k("exec web -- cat /secret/key").ok(), "sesame");
    for log in [second.log(), host.log()] {
        assert!(!log.contains("panicked"), "{log}");
    }
}

const READY: &str = "get node node-2 -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_server_moves_to_another_address() {
    let (mut host, mut second) = Host::and_second(&[]);
    host.apply(&workload(host.id())).ok();
    host.k("wait --for=condition=Ready pod/web --timeout=90s").ok();
    let (ran, ran_second) = (containers(&host), containers(&second));

    // The new address comes first, then the server uses it, then the old one goes.
    let id = host.id().to_owned();
    sh(&format!(
        "ip netns exec {id} sysctl -qw net.ipv4.conf.all.promote_secondaries=1 net.ipv4.conf.eth0.promote_secondaries=1
         ip -n {id} addr add 10.99.0.3/24 dev eth0"
    ))
    .ok();
    host.kill();
    host.start(&["--node-ip=10.99.0.3"]);
    host.wait_ready();
    let endpoint = "get endpointslice kubernetes -o jsonpath={.endpoints[0].addresses[0]}";
    assert_eq!(host.k(endpoint).ok(), "10.99.0.3");
    host.k("--server=https://10.99.0.3:6443 get --raw /readyz").ok();
    eventually("the agent is back", 90, || host.k("exec web -- true").result());
    // What the agent learned is written within seconds.
    std::thread::sleep(std::time::Duration::from_secs(15));
    sh(&format!("ip -n {id} addr del 10.99.0.1/24 dev eth0; ip -n {id} route replace default via {}", Host::CLIENT_IP))
        .ok();
    assert_eq!(host.k("get nodes node-1 -o jsonpath={.status.addresses[0].address}").ok(), "10.99.0.3");
    eventually("the agent finds the server at its new address", 150, || host.k("exec web -- true").result());

    // Also after a restart with the address that is gone.
    second.kill();
    second.start(&[&format!("--server={}", server_url())]);
    eventually("the agent is back", 90, || host.k("exec web -- true").result());
    host.wait_node("node-2");
    assert_eq!((containers(&host), containers(&second)), (ran, ran_second), "nothing restarted");
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_server_starts_without_any_network() {
    let mut host = Host::new();
    let id = host.id().to_owned();
    host.import();
    sh(&format!("ip -n {id} addr flush dev eth0; ip -n {id} link set eth0 down")).ok();
    host.start(&[]);
    host.wait_ready();
    host.k(&format!("create deployment web --image={BUSYBOX}")).ok();
    host.k("expose deployment web --port=80 --target-port=8080").ok();
    host.k("rollout status deployment/web --timeout=90s").ok();
    let address = host.k("get service web -o jsonpath={.spec.clusterIP}").ok();
    let answers = |what: &str| {
        eventually(what, 30, || run(host.inside("curl").args(["-sS", "--max-time", "2", &address])).result());
        eventually("a pod reaches the API", 30, || {
            host.k("exec deploy/web -- sh -c nc${IFS}-w${IFS}3${IFS}10.43.0.1${IFS}443</dev/null").result()
        });
    };
    answers("the Service answers without network");
    let ran = containers(&host);
    assert_eq!(host.k("get nodes -o jsonpath={.items[0].status.addresses[0].address}").ok(), "192.0.0.8");

    // A cable is plugged in.
    sh(&format!(
        "ip -n {id} link set eth0 up; ip -n {id} addr add {}/24 dev eth0; ip -n {id} route add default via {}",
        Host::IP,
        Host::CLIENT_IP
    ))
    .ok();
    eventually("the node has the network's address", 60, || {
        let found = host.k("get nodes -o jsonpath={.items[0].status.addresses[0].address}").result()?;
        if found == Host::IP { Ok(()) } else { Err(found) }
    });
    host.wait_ready();
    answers("the Service answers with a network");
    assert_eq!(containers(&host), ran, "nothing restarted");
    assert!(!sh(&format!("ip -n {id} addr show dev lo")).ok().contains("192.0.0.8"));
}
