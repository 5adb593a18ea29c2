//! install.sh as a user runs it: from a file, through a pipe from a web server, again; and the other commands.

use crate::host::{Host, kedge};
use crate::run::{eventually, has, run, sh};
use std::path::Path;
use std::process::Command;

/// install.sh works on the host itself (fixed paths), so these tests leave a machine alone that already runs kedge.
fn is_free(test: &str) -> bool {
    if Path::new("/etc/kedge").exists() || Path::new("/run/kedge/kedge.pid").exists() {
        assert!(std::env::var_os("CI").is_none(), "CI starts on a host without kedge");
        eprintln!("SKIPPED {test}: kedge is installed on this host");
        return false;
    }
    true
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh");

fn nothing_is_left() {
    for path in ["/etc/kedge", "/usr/local/bin/kedge", "/run/kedge", "/var/lib/kedge", "/var/log/kedge.log"] {
        assert!(!Path::new(path).exists(), "{path} is left");
    }
}

/// The line that the server prints, given to install.sh on another host; and again, as an upgrade.
#[test]
#[ignore = "end to end on two real nodes, as root: ./test.sh"]
fn install_makes_a_host_a_node() {
    if !is_free("install_makes_a_host_a_node") {
        return;
    }
    let host = Host::ready();
    let second = host.beside(2);
    let printed = host.kedge_with_config(&["token", "create", "--print-join-command"]).ok();
    let words = printed.split_whitespace().skip(1);
    let server = format!("--server={}", crate::agent::server_url());
    let checked = second.kedge(&["check", &server]);
    assert!(!checked.stdout.contains("cannot reach"), "{}", checked.stdout);
    let install = |command: &mut Command| run(command.arg(SCRIPT).env("KEDGE_BINARY", kedge())).ok();
    let mut first = second.inside("sh");
    first.arg(SCRIPT).args(words).args(["--node-name", "attic", "--node-ip", &second.ip]);
    has(&run(first.env("KEDGE_BINARY", kedge())).ok(), "This host is a node of the cluster now");
    host.wait_node("attic");
    let uid = host.k("get node attic -o jsonpath={.metadata.uid}").ok();

    // Without words it stays what it is; the variables of `curl | sh` say the same as the flags.
    has(&install(&mut second.inside("sh")), "This host is a node");
    let mut piped = second.inside("sh");
    piped.env("KEDGE_SERVER", crate::agent::server_url()).env("KEDGE_TOKEN", host.token());
    has(&install(piped.env("KEDGE_NODE_NAME", "attic")), "This host is a node");
    let kept = std::fs::read_to_string("/etc/kedge/config.yaml.d/50-install.yaml").expect("kept flags");
    has(&kept, "server: \"https://10.99.0.1:6443\"");
    has(&second.kedge(&["status", "--wait"]).ok(), "attic Ready");
    assert_eq!(host.k("get node attic -o jsonpath={.metadata.uid}").ok(), uid);

    has(&second.kedge(&["uninstall"]).ok(), "kedge is gone");
    nothing_is_left();
    host.k("delete node attic").ok();
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn install_status_check_uninstall() {
    if !is_free("install_status_check_uninstall") {
        return;
    }
    let host = Host::new();
    let install = |flags: &[&str]| {
        let mut command = host.inside("sh");
        command.arg(SCRIPT).args(flags).env("KEDGE_BINARY", kedge());
        run(&mut command)
    };
    let first = install(&["--node-name", "box", "--node-label=site=attic"]).ok();
    has(&first, "What to type next");
    let node = run(host.inside("kubectl").args([
        "--kubeconfig=/etc/kedge/kubeconfig.yaml",
        "get",
        "node",
        "box",
        "--show-labels",
    ]))
    .ok();
    has(&node, "Ready");
    has(&node, "site=attic");
    has(&host.kedge(&["kubectl", "get", "nodes"]).ok(), "box");
    has(&host.kedge(&["status", "--wait"]).ok(), "box Ready");
    has(&host.kedge(&["check"]).stdout, "ok    nftables");
    has(&host.kedge(&["version"]).ok(), "v1.37");

    // Again without flags: they are kept, the node stays.
    has(&install(&[]).ok(), "up to date");
    has(&run(host.inside("kubectl").args(["--kubeconfig=/etc/kedge/kubeconfig.yaml", "get", "nodes"])).ok(), "box");
    has(&host.kedge(&["uninstall"]).ok(), "kedge is gone");
    nothing_is_left();

    through_a_pipe(&host);
}

/// `curl | sh` from a loopback web server, with a release URL; a wrong checksum is refused.
fn through_a_pipe(host: &Host) {
    let www = host.dir.join("www");
    let arch = sh("uname -m").ok().trim().to_owned();
    sh(&format!(
        "mkdir -p {0}; cp {1} {0}/kedge-linux-{arch}; cp {2} {0}/install.sh; cd {0}; sha256sum kedge-linux-{arch} > kedge-linux-{arch}.sha256",
        www.display(), kedge().display(), SCRIPT,
    ))
    .ok();
    let mut server = host
        .inside("busybox")
        .args(["httpd", "-f", "-p", "127.0.0.1:8099", "-h", &www.display().to_string()])
        .spawn()
        .expect("httpd");
    let piped = || {
        let mut command: Command = host.inside("sh");
        command.args(["-c", "curl -sfL http://127.0.0.1:8099/install.sh | KEDGE_RELEASE_URL=http://127.0.0.1:8099 KEDGE_SKIP_START=1 sh -s -"]);
        run(&mut command)
    };
    eventually("web server", 5, || run(host.inside("curl").args(["-sf", "http://127.0.0.1:8099/install.sh"])).result());
    has(&piped().ok(), "installed /usr/local/bin/kedge");
    has(&sh("/usr/local/bin/kedge version").ok(), "v1.37");
    std::fs::write(www.join(format!("kedge-linux-{arch}.sha256")), "0000  kedge\n").expect("checksum");
    has(&piped().fails(), "checksum");
    let _ = server.kill();
    let _ = server.wait();
    has(&host.kedge(&["uninstall"]).stdout, "");
    sh("rm -rf /usr/local/bin/kedge /etc/kedge").ok();
}
