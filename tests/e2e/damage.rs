//! A store whose files are not what they were: what was lost is said everywhere that somebody looks, and without a way
//! back the server does not start.

use crate::host::Host;
use crate::run::{eventually, has, run, sh};

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn what_a_damaged_store_has_lost_is_said() {
    let mut host = Host::api_only();
    host.k("create configmap kept --from-literal=a=here").ok();
    let revision = host.k("get configmap kept -o jsonpath={.metadata.resourceVersion}").ok();
    let store = host.data_dir().join("server/db");
    let (files, aside) = (store.join("log"), host.dir.join("aside"));

    // The disk gives back what was on it some time ago.
    host.stop();
    sh(&format!("cp -a {} {}", files.display(), aside.display())).ok();
    host.start_again();
    host.wait_api();
    host.k("create configmap lost").ok();
    host.stop();
    sh(&format!("rm -r {0} && mv {1} {0}", files.display(), aside.display())).ok();
    host.start_again();
    host.wait_api();
    assert_eq!(host.k("get configmap kept -o jsonpath={.data.a}").ok(), "here");
    has(&host.k("get configmap lost").fails(), "NotFound");
    eventually("an Event tells of it", 20, || {
        host.k("get events --field-selector=reason=StoreDataLost -o jsonpath={..message}")
            .result()
            .and_then(|text| if text.contains("the store's files end at revision") { Ok(()) } else { Err(text) })
    });
    // It fails, as there is no node.
    has(&host.kedge_with_config(&["status"]).stdout, "DATA LOST");
    has(&std::fs::read_to_string(store.join("losses.json")).expect("is on record"), "what was left of them");
    has(&host.log(), "THE STORE WAS DAMAGED");
    // Who watched before starts over: old revisions are not taken for new ones.
    let watch = format!("/api/v1/configmaps?watch=1&timeoutSeconds=2&resourceVersion={revision}");
    has(&host.kubectl(&["get", "--raw", &watch]).fails(), "Expired");
    host.k("create configmap after").ok();

    // Nothing to repair it from.
    host.stop();
    std::fs::write(files.join("000001.seg"), vec![7; 1 << 20]).expect("damages");
    sh(&format!("rm -rf {}", store.join("snapshots").display())).ok();
    let start = host.server_command(&["--disable-agent"]);
    let mut limited = std::process::Command::new("timeout");
    limited.arg("30").arg(start.get_program()).args(start.get_args());
    has(&run(&mut limited).fails(), "kedge backup restore");
}
