//! M1: kubectl against a server without an agent.

use crate::host::Host;
use crate::run::{eventually, has, run};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: example.test/web:1, ports: [{containerPort: 8080}]}
"#;

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn kubectl_works_without_an_agent() {
    let host = Host::api_only();
    has(&host.k("version").ok(), "Server Version: v1.37");
    let resources = host.k("api-resources --no-headers -o name").ok();
    assert_eq!(
        resources.lines().count(),
        71,
        "72 GA resources, one of them (autoscaling) in two versions:\n{resources}"
    );
    has(&host.k("get namespaces").ok(), "kube-node-lease");
    has(&host.k("get service kubernetes").ok(), "10.43.0.1");
    has(&host.k("get endpoints kubernetes").ok(), "10.99.0.1:6443");
    has(&host.k("get endpointslices").ok(), "10.99.0.1");
    has(&host.k("get priorityclasses").ok(), "system-node-critical");
    has(&host.k("get service -n kube-system kube-dns").ok(), "10.43.0.10");
    has(&host.k("get --raw /.well-known/openid-configuration").ok(), "https://kubernetes.default.svc.cluster.local");
    has(&host.k("get --raw /openid/v1/jwks").ok(), "\"keys\"");

    objects(&host);
    patches(&host);
    reads(&host);
    watches(&host);
    mistakes(&host);
    rights(&host);
}

fn objects(host: &Host) {
    // Protobuf bodies: `kubectl create` of typed kinds.
    has(&host.k("create deployment proto --image=example.test/x:1 --replicas=0").ok(), "created");
    has(&host.k("create configmap cm --from-literal=a=1").ok(), "created");
    has(&host.k("create secret generic s --from-literal=p=hidden").ok(), "created");
    has(&host.k("create quota q --hard=pods=10").ok(), "created");
    assert_eq!(host.k("get secret s -o jsonpath={.data.p}").ok(), "aGlkZGVu");
    has(&host.apply(DEPLOYMENT).ok(), "deployment.apps/web created");
    has(&host.apply(DEPLOYMENT).ok(), "deployment.apps/web unchanged");
    has(&host.apply(&DEPLOYMENT.replace("replicas: 2", "replicas: 3")).ok(), "deployment.apps/web configured");
    assert_eq!(host.k("get deployment web -o jsonpath={.spec.replicas}").ok(), "3");
    // Controllers run: the ReplicaSet and its pods appear although no node takes them.
    eventually("pods made", 30, || match host.k("get pods -l app=web -o name").ok().lines().count() {
        3 => Ok(()),
        n => Err(format!("{n} pods")),
    });
    let pods = host.k("get pods -l app=web").ok();
    has(&pods, "Pending");
    eventually("unschedulable event", 30, || {
        let events = host.k("get events").ok();
        if events.contains("no nodes available to schedule pods") || events.contains("0/0 nodes are available") {
            Ok(())
        } else {
            Err(events)
        }
    });
}

fn patches(host: &Host) {
    host.k("label deployment web tier=front").ok();
    host.k("annotate deployment web note=x").ok();
    host.k("scale deployment web --replicas=1").ok();
    assert_eq!(host.k("get deployment web -o jsonpath={.spec.replicas}").ok(), "1");
    host.k("set image deployment/web web=example.test/web:2").ok();
    has(&host.k("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}").ok(), "web:2");
    let json = r#"[{"op":"replace","path":"/spec/replicas","value":2}]"#;
    host.kubectl(&["patch", "deployment", "web", "--type=json", "-p", json]).ok();
    host.kubectl(&["patch", "deployment", "web", "--type=merge", "-p", r#"{"spec":{"paused":true}}"#]).ok();
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"b"}]}]}}}}"#;
    host.kubectl(&["patch", "deployment", "web", "-p", strategic]).ok();
    let web = host
        .k("get deployment web -o jsonpath={.spec.replicas}:{.spec.paused}:{.spec.template.spec.containers[0]}")
        .ok();
    has(&web, "2:true:");
    has(&web, "web:2");
    has(&web, r#""name":"A","value":"b""#);
    // Server-side apply: ownership and conflict.
    let cm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ssa}\ndata: {a: '1', b: '2'}\n";
    host.with_file(cm, &["apply", "--server-side", "--field-manager=one", "-f"]).ok();
    let other = cm.replace("'1'", "'9'");
    let refused = host.with_file(&other, &["apply", "--server-side", "--field-manager=two", "-f"]).fails();
    has(&refused, "conflict with \"one\": .data.a");
    host.with_file(&other, &["apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f"]).ok();
    assert_eq!(host.k("get cm ssa -o jsonpath={.data.a}").ok(), "9");
    has(&host.with_file(&cm.replace("'2'", "'3'"), &["diff", "-f"]).stdout, "+  b: \"3\"");
}

fn reads(host: &Host) {
    has(&host.k("get deployments -o wide").ok(), "CONTAINERS");
    has(&host.k("get all").ok(), "replicaset.apps/");
    has(&host.k("describe deployment web").ok(), "RollingUpdateStrategy");
    has(&host.k("explain pod.spec.containers.livenessProbe").ok(), "Periodic probe of container liveness");
    assert_eq!(host.k("get cm -l nothing=here -o name").ok(), "");
    has(&host.k("get cm --field-selector=metadata.name=cm -o name").ok(), "configmap/cm");
    has(&host.k("get pods --chunk-size=1").ok(), "Pending");
    has(&host.k("get deployment web -o yaml --show-managed-fields").ok(), "kubectl-client-side-apply");
    has(&host.k("get --raw /metrics").ok(), "apiserver_request_total");
}

fn watches(host: &Host) {
    host.k("create cm gone").ok();
    host.k("delete cm gone").ok();
    host.k("create deployment later --image=example.test/x:1 --replicas=0").ok();
    let mut waiting = host.kubectl_command(&[
        "wait",
        "--for=jsonpath={.metadata.labels.done}=yes",
        "deployment/later",
        "--timeout=20s",
    ]);
    let child = waiting
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl wait");
    host.k("label deployment later done=yes").ok();
    let done = child.wait_with_output().expect("kubectl wait");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    has(&host.k("rollout status deployment/later --timeout=20s").ok(), "successfully rolled out");
}

fn mistakes(host: &Host) {
    has(&host.k("get pod nope").fails(), r#"Error from server (NotFound): pods "nope" not found"#);
    has(&host.k("get nonsense").fails(), "the server doesn't have a resource type \"nonsense\"");
    let typo = DEPLOYMENT.replace("replicas:", "replicaz:");
    has(&host.apply(&typo).fails(), r#"strict decoding error: unknown field "spec.replicaz""#);
    has(&host.apply("kind: [broken").fails(), "error");
    let bad = DEPLOYMENT.replace("name: web, labels", "name: Web_1, labels");
    has(&host.apply(&bad).fails(), "a lowercase RFC 1123 subdomain must consist of");
    let empty = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n";
    has(&host.apply(empty).fails(), "spec.containers: Required value");
    has(&host.k("create deployment web --image=x").fails(), r#"deployments.apps "web" already exists"#);
    has(&host.k("delete namespace default").fails(), "forbidden");
    has(&host.k("-n nowhere create cm x").fails(), r#"namespaces "nowhere" not found"#);
}

fn rights(host: &Host) {
    host.k("create namespace team").ok();
    host.k("create serviceaccount bob -n team").ok();
    host.k("create rolebinding bob --clusterrole=view --serviceaccount=team:bob -n team").ok();
    let can = |what: &str| host.k(&format!("auth can-i {what} --as=system:serviceaccount:team:bob")).stdout;
    eventually("rolebinding seen", 5, || match can("list pods -n team").trim() {
        "yes" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(can("list secrets -n team").trim(), "no");
    assert_eq!(can("list pods -n default").trim(), "no");
    let token = host.k("create token bob -n team").ok();
    let refused = host.with_token(token.trim(), "get pods -n default").fails();
    has(&refused, "forbidden: User \"system:serviceaccount:team:bob\" cannot list resource \"pods\"");
    has(&host.k("auth whoami").ok(), "system:masters");
    host.k("delete namespace team --timeout=60s").ok();
    has(&host.k("get serviceaccount bob -n team").fails(), "not found");
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn parts_can_be_left_out() {
    let mut host = Host::new();
    host.start(&["--disable=scheduler,dns"]);
    host.wait_ready();
    host.k("run p --image=example.test/x:1").ok();
    // Nobody schedules: no event says that nothing fits, and no node is named.
    eventually("pod made", 10, || host.k("get pod p").result());
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(host.k("get pod p -o jsonpath={.spec.nodeName}").ok(), "");
    let port = run(host.inside("sh").args(["-c", "ss -lnu | grep -c 10.43.0.10:53 || true"])).ok();
    assert_eq!(port.trim(), "0", "nobody listens at the DNS address");
}
