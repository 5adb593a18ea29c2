//! The proxy subresources: nodes, pods, Services through the API server.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run, sh};

/// On 8080 a page and a redirect; on 8081 a protocol of its own; on 8082 every method is answered with what came.
const BACKEND: &str = r#"
mkdir -p /tmp/w/cgi-bin; cd /tmp/w
echo "<html><a href='/other'>o</a></html>" > page.html
printf '#!/bin/sh\necho Status: 302 Found; echo Location: /elsewhere/; echo\n' > cgi-bin/away
cat > /tmp/switch <<'E'
#!/bin/sh
while read -r line; do [ ${#line} -le 1 ] && break; done
printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n'
exec cat
E
cat > /tmp/echo <<'E'
#!/bin/sh
read -r method path rest
length=0; who=bare
while read -r line; do
  line=$(echo "$line" | tr -d '\r')
  case "$line" in
    "") break;;
    content-length:*) length=${line#*: };;
    x-forwarded-uri:*) uri=${line#*: };;
    authorization:*) who=$line;;
  esac
done
body=$(head -c "$length")
text="$method $path $uri $who $body"
printf 'HTTP/1.1 200 OK\r\nContent-Length: %s\r\nAccess-Control-Allow-Origin: *\r\n\r\n%s' ${#text} "$text"
E
chmod +x cgi-bin/away /tmp/switch /tmp/echo
nc -ll -p 8081 -e /tmp/switch &
nc -ll -p 8082 -e /tmp/echo &
exec httpd -f -p 8080 -h /tmp/w
"#;

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn proxies_of_nodes_pods_and_services() {
    let host = Host::ready();
    let script = BACKEND.replace('\n', "\n      ");
    host.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{app: p}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: {BUSYBOX}\n    ports: [{{name: web, containerPort: 8080}}, {{name: echo, containerPort: 8082}}]\n    command:\n    - sh\n    - -c\n    - |\n      {script}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{selector: {{app: p}}, ports: [{{name: a, port: 80, targetPort: web}}, {{name: e, port: 81, targetPort: echo}}]}}\n"
    ))
    .ok();
    host.k("wait --for=condition=Ready pod/p --timeout=60s").ok();
    for (field, file) in [("users[0].user.client-certificate-data", "c"), ("users[0].user.client-key-data", "k")] {
        let data = host.k(&format!("config view --raw -o jsonpath={{.{field}}}")).ok();
        std::fs::write(host.dir.join(format!("{file}64")), data).expect("write");
        sh(&format!("base64 -d < {0}/{file}64 > {0}/{file}", host.dir.display())).ok();
    }
    let api = "https://127.0.0.1:6443/api/v1";
    let curl = |args: &[&str], path: &str| {
        let mut command = host.inside("curl");
        let files = [host.dir.join("c").display().to_string(), host.dir.join("k").display().to_string()];
        command.args(["-sk", "--max-time", "10", "--cert", &files[0], "--key", &files[1]]);
        run(command.args(args).arg(format!("{api}/{path}"))).ok()
    };
    let (pod, service) = ("namespaces/default/pods", "namespaces/default/services");
    eventually("the Service has its endpoint", 20, || {
        let page = curl(&[], &format!("{service}/s:a/proxy/page.html"));
        if page.contains("<a ") { Ok(()) } else { Err(page) }
    });

    // Every method, by every name; the backend sees path, query and body, and no credential.
    for name in
        [format!("{pod}/p:8082"), format!("{pod}/http:p:echo"), format!("{service}/s:81"), format!("{service}/s:e")]
    {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let path = format!("{name}/proxy/x/../some%2Fpath/?a=b&dryRun=x");
            let seen =
                curl(&["-i", "--path-as-is", "-X", method, "-d", "body", "-H", "Authorization: Basic eA=="], &path);
            has(&seen, &format!("{method} /some%2Fpath/?a=b&dryRun=x /api/v1/{name}/proxy/some%2Fpath/ bare body"));
            assert!(!seen.contains("access-control-allow-origin"), "{seen}");
        }
    }

    // What comes back works behind the longer path.
    let page = curl(&[], &format!("{pod}/p/proxy/page.html"));
    has(&page, &format!("<a href='/api/v1/{pod}/p/proxy/other'>"));
    let head = curl(&["-i"], &format!("{pod}/p/proxy/cgi-bin/away"));
    has(&head.to_lowercase(), &format!("location: /api/v1/{pod}/p/proxy/elsewhere/"));
    let head = curl(&["-I"], &format!("{pod}/p/proxy?x=y"));
    has(&head, " 301");
    has(&head, &format!("location: /api/v1/{pod}/p/proxy/?x=y"));

    // Another protocol on the same connection.
    let request = format!(
        "printf 'GET /api/v1/{pod}/p:8081/proxy/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n'; sleep 1; echo ping; sleep 1"
    );
    let line = format!(
        "({request}) | timeout 10 openssl s_client -quiet -connect 127.0.0.1:6443 -cert {0}/c -key {0}/k",
        host.dir.display()
    );
    let answer = run(host.inside("sh").args(["-c", &line]));
    has(&answer.stdout, "101 Switching Protocols");
    has(&answer.stdout, "ping");

    // Refusals as upstream words them.
    for (path, text) in [
        (format!("{pod}/p:9/proxy/"), "error trying to reach service: dial tcp"),
        (format!("{pod}/none/proxy/"), "pods \\\"none\\\" not found"),
        (format!("{service}/s:83/proxy/"), "no service port 83 found for service \\\"s\\\""),
        (format!("{service}/s/proxy/"), "no endpoints available for service \\\"s\\\""),
        (format!("{service}/ftp:s:80/proxy/"), "invalid service request"),
        ("nodes/none/proxy/healthz".to_owned(), "nodes \\\"none\\\" not found"),
    ] {
        has(&curl(&[], &path), text);
    }

    // The kubelet, with and without its port.
    assert_eq!(curl(&[], "nodes/node-1/proxy/healthz"), "ok");
    has(&curl(&[], "nodes/node-1:10250/proxy/pods"), "\"PodList\"");

    // Each method needs its own right.
    host.k("create serviceaccount reader").ok();
    host.k("create role reader --verb=get --resource=pods/proxy").ok();
    host.k("create rolebinding reader --role=reader --serviceaccount=default:reader").ok();
    let token = host.k("create token reader").ok();
    let header = format!("Authorization: Bearer {}", token.trim());
    let by_token = |method: &str| {
        let mut command = host.inside("curl");
        command.args(["-sk", "-X", method, "-H", &header]);
        run(command.arg(format!("{api}/{pod}/p:8082/proxy/"))).ok()
    };
    eventually("the role is known", 10, || {
        let seen = by_token("GET");
        if seen.contains("bare") { Ok(()) } else { Err(seen) }
    });
    has(&by_token("POST"), "cannot create resource \\\"pods/proxy\\\"");
}
