//! A second host joins with one command, and only when it may.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has};

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_second_node_joins() {
    let host = Host::ready();
    let mut second = host.beside(2);
    second.import();
    second.join(&host, &["--node-label=site=attic", "--node-external-ip=203.0.113.7"]);
    host.wait_node("node-2");
    let wide = host.k("get nodes -o wide").ok();
    has(&wide, "10.99.0.12");
    has(&wide, "203.0.113.7");
    has(&host.k("get nodes -l site=attic").ok(), "node-2");

    // It runs pods.
    let spec = r#"{"spec":{"nodeName":"node-2"}}"#;
    host.kubectl(&["run", "far", &format!("--image={BUSYBOX}"), "--overrides", spec]).ok();
    host.k("wait --for=condition=Ready pod/far --timeout=60s").ok();

    // Started again, also without a token, it is the same node.
    let uid = host.k("get node node-2 -o jsonpath={.metadata.uid}").ok();
    let pod = host.k("get pod far -o jsonpath={.status.containerStatuses[0].containerID}").ok();
    second.kill();
    second.start(&[&format!("--server={}", crate::agent::server_url())]);
    eventually("the agent is back", 30, || match second.log().matches("the node's parts run").count() {
        2 => Ok(()),
        n => Err(format!("{n}")),
    });
    host.wait_node("node-2");
    assert_eq!(host.k("get node node-2 -o jsonpath={.metadata.uid}").ok(), uid);
    assert_eq!(host.k("get pod far -o jsonpath={.status.containerStatuses[0].containerID}").ok(), pod);
}
