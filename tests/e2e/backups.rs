//! A server's data: encrypted Secrets, a backup made while it runs, and the same cluster on another host.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::machine::{Machine, kedge};
use crate::run::{Outcome, eventually, has, run};

/// One of kedge's commands about this host's server.
fn command(machine: &Machine, words: &str) -> Outcome {
    let mut command = machine.inside(kedge());
    command.args(words.split_whitespace());
    command.arg(format!("--kubeconfig={}", machine.dir.join("kubeconfig.yaml").display()));
    if !words.starts_with("secrets-encrypt") {
        command.arg(format!("--data-dir={}", machine.data_dir().display()));
        command.arg(format!("--config={}", machine.dir.join("config.yaml").display()));
    }
    run(&mut command)
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_server_moves_to_another_host_by_its_backup() {
    let mut host = Host::ready();
    host.k("create configmap kept --from-literal=a=here").ok();
    host.k("create secret generic hidden --from-literal=word=xyzzy").ok();
    let passphrase = host.dir.join("passphrase");
    std::fs::write(&passphrase, "correct horse\n").expect("writes");
    let file = host.dir.join("moved.kedge-backup");
    let save = format!("backup save {} --passphrase-file={}", file.display(), passphrase.display());

    // At rest nobody reads the Secret; a new key takes over in the background.
    let stored = || command(&host, "store export --prefix=/registry/secrets/default/hidden").ok();
    let before = stored();
    has(&before, "\"base64\":\"azhzOmVuYzphZXNnY206djE6");
    assert_eq!(command(&host, "secrets-encrypt rotate").ok().matches("key  ").count(), 2);
    eventually("Secrets follow the new key", 30, || match stored() {
        now if now != before => Ok(()),
        same => Err(same),
    });
    assert_eq!(host.k("get secret hidden -o jsonpath={.data.word}").ok(), "eHl6enk=");

    // Saved while it runs; what comes later is not in it.
    has(&command(&host, &save).ok(), "revision");
    host.k("create configmap later").ok();
    has(&command(&host, "store check").ok(), "whole");
    has(&command(&host, "store compact").ok(), "compacted");
    let listed =
        command(&host, &format!("backup ls {} --passphrase-file={}", host.dir.display(), passphrase.display()));
    has(&listed.ok(), ", encrypted");
    host.stop();
    has(&command(&host, "store check").ok(), "whole");

    let mut other = host.beside(5);
    other.import();
    let restore = format!("backup restore {}", file.display());
    has(&command(&other, &restore).fails(), "--passphrase-file");
    let restore = format!("{restore} --passphrase-file={}", passphrase.display());
    has(&command(&other, &restore).ok(), "restored the server of ");
    has(&command(&other, &restore).fails(), "--force");
    let mut server = other.daemon("server");
    server.arg(format!("--write-kubeconfig={}", other.dir.join("kubeconfig.yaml").display())).arg("--node-name=node-5");
    other.spawn(server);
    let kubectl = |line: &str| {
        let mut command = other.inside("kubectl");
        command.arg(format!("--kubeconfig={}", other.dir.join("kubeconfig.yaml").display()));
        run(command.args(line.split_whitespace()).env("HOME", &other.dir).env_remove("KUBECONFIG"))
    };
    eventually("the new host is a node", 90, || kubectl("get node node-5").result());
    kubectl("wait --for=condition=Ready node/node-5 --timeout=90s").ok();
    assert_eq!(kubectl("get configmap kept -o jsonpath={.data.a}").ok(), "here");
    assert_eq!(kubectl("get secret hidden -o jsonpath={.data.word}").ok(), "eHl6enk=");
    has(&kubectl("get configmap later").fails(), "not found");
    eventually("the API's address is the new one", 30, || {
        match kubectl("get endpointslice -l kubernetes.io/service-name=kubernetes -o jsonpath={..addresses}").ok() {
            found if found == "[\"10.99.0.15\"]" => Ok(()),
            found => Err(found),
        }
    });
    let pin = r#"--overrides={"spec":{"nodeName":"node-5"}}"#;
    kubectl(&format!("run moved --image={BUSYBOX} {pin}")).ok();
    kubectl("wait --for=condition=Ready pod/moved --timeout=60s").ok();
}
