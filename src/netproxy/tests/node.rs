//! The whole network part of a node, with the CNI plugin's own request over the socket.

use super::lab::{
    FakeApi, NODES, Namespace, PATIENCE, Running, SERVICES, SLICES, config, node, root, service, slice, until,
};
use crate::netproxy::{Config, cleanup, netns};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::time::Instant;

/// A node with an uplink that leads nowhere; None without root.
fn lone_node() -> Option<Namespace> {
    if !root() {
        return None;
    }
    let here = Namespace::new();
    here.ip("link add uplink type veth peer name far");
    here.ip("address add 192.0.2.1/24 dev uplink");
    here.ip("link set uplink up");
    Some(here)
}

/// As `kedge uninstall` does.
fn clean(here: &Namespace, config: &Config) {
    netns::within(&here.path(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(cleanup(&config.run_dir)).map_err(std::io::Error::other)
    })
    .unwrap();
}

#[test]
fn pods_get_addresses_services_and_names() {
    let Some(here) = lone_node() else { return };
    let dir = tempfile::tempdir().unwrap();
    let api = FakeApi::new();
    api.put(NODES, node("here", "192.0.2.1", "10.42.3.0/24"));
    api.put(SERVICES, service("web", "10.43.0.80"));
    let running = Running::start(&api, &here, config("here", "192.0.2.1", dir.path()));

    let (web, client) = (Namespace::new(), Namespace::new());
    let ports = json!([{ "hostPort": 8000, "containerPort": 8080, "protocol": "tcp", "hostIP": "" }]);
    let made = running.cni("ADD", "web", &web.path(), ports).unwrap();
    assert_eq!(made["ips"][0]["address"], "10.42.3.2/32");
    assert_eq!(made["interfaces"][1]["name"], "eth0");
    running.cni("ADD", "client", &client.path(), json!([])).unwrap();
    running.cni("CHECK", "web", &web.path(), json!([])).unwrap();
    assert_eq!(running.cni("CHECK", "nobody", &web.path(), json!([])).unwrap_err()["code"], 3);
    web.serve("web", 8080);
    assert_eq!(here.call("192.0.2.1:8000").unwrap(), "web 192.0.2.1");
    client.refused("10.43.0.80:80");

    api.put(SLICES, slice("web", &["10.42.3.2@here"]));
    until("the Service is served", || client.call("10.43.0.80:80").is_ok());
    let looked_up = netns::within(&client.path(), || lookup("web.default.svc.cluster.local")).unwrap();
    assert_eq!(looked_up, "10.43.0.80");

    // Another program flushes everything.
    here.run("nft", "flush ruleset");
    let broken = Instant::now();
    until("healed", || client.call("10.43.0.80:80").is_ok() && here.call("192.0.2.1:8000").is_ok());
    println!("healed after {:?}", broken.elapsed());

    running.cni("DEL", "web", &web.path(), json!([])).unwrap();
    running.cni("DEL", "web", &web.path(), json!([])).unwrap();
    assert!(!web.ip("link").contains("eth0"));
    here.refused("192.0.2.1:8000");

    let config = running.stop();
    clean(&here, &config);
    assert_eq!(here.run("nft", "list ruleset"), "");
    assert!(
        !here.ip("link").contains("kdg")
            && !here.ip("route").contains("10.43")
            && !here.ip("address").contains("10.43")
    );
    assert_eq!(std::fs::read_dir(&config.cni_bin_dir).unwrap().count(), 0);
    clean(&here, &config);
}

#[test]
fn a_restart_keeps_what_runs() {
    let Some(here) = lone_node() else { return };
    let dir = tempfile::tempdir().unwrap();
    let api = FakeApi::new();
    api.put(NODES, node("here", "192.0.2.1", "10.42.3.0/24"));
    api.put(SERVICES, service("web", "10.43.0.80"));
    api.put(SLICES, slice("web", &["10.42.3.2@here"]));
    let running = Running::start(&api, &here, config("here", "192.0.2.1", dir.path()));
    let (web, gone) = (Namespace::new(), Namespace::new());
    running.cni("ADD", "web", &web.path(), json!([])).unwrap();
    // A name of its own, since numbers of descriptors come again.
    let name = dir.path().join("gone");
    symlink(gone.path(), &name).unwrap();
    let leaked = running.cni("ADD", "gone", &name, json!([])).unwrap();
    assert_eq!(leaked["ips"][0]["address"], "10.42.3.3/32");
    web.serve("web", 8080);
    until("served", || here.call("10.43.0.80:80").is_ok());
    running.stop();
    assert!(here.call("10.43.0.80:80").is_ok(), "while nobody keeps the rules");
    drop(gone);
    std::fs::remove_file(&name).unwrap();

    // The Service is another one now, and one pod ended unseen.
    api.put(SERVICES, service("web", "10.43.0.81"));
    let running = Running::start(&api, &here, config("here", "192.0.2.1", dir.path()));
    until("the new address is served", || here.call("10.43.0.81:80").is_ok());
    here.refused("10.43.0.80:80");
    let next = Namespace::new();
    let made = running.cni("ADD", "next", &next.path(), json!([])).unwrap();
    assert_eq!(made["ips"][0]["address"], "10.42.3.3/32", "the leaked address came back, the living pod's did not");
    assert_eq!(here.ip("route").matches("dev kdg").count(), 2);
    running.stop();
}

/// Ask the cluster DNS address for an A record with a question of our own making.
fn lookup(name: &str) -> std::io::Result<String> {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), RecordType::A));
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&message.to_vec().unwrap(), "10.43.0.10:53")?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(Message::from_vec(&buffer[..length]).unwrap().answers[0].data.to_string())
}
