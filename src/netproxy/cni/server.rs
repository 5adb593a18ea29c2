//! The agent's side of CNI: one request, one answer on a unix socket.

use super::ipam::{self, Id, Ipam, Lease};
use super::veth::{self, Attachment};
use super::wire::{self, Answer, Failure, MAX_MESSAGE_BYTES, Made, NetConf, PortMapping, Request, VERSIONS};
use crate::netproxy::link::Links;
use crate::netproxy::net::Family;
use crate::netproxy::plan::{self, HostPort};
use crate::netproxy::proxy::{Proxy, RunningPod};
use crate::netproxy::{Shared, host};
use crate::task::Group;
use anyhow::Context;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{info, warn};

/// Requests worked on at once; more wait in the socket's queue.
const MAX_AT_ONCE: usize = 32;
/// How often the ways to pods are looked at.
const MEND_INTERVAL: Duration = Duration::from_secs(10);
/// A plugin sends its whole request at once.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// The pod network of this node.
pub struct Server {
    shared: Arc<Shared>,
    proxy: Proxy,
    ipam: Arc<Mutex<Ipam>>,
}

impl Server {
    /// Read the leases and release what died meanwhile.
    pub async fn open(
        shared: Arc<Shared>,
        pools: Vec<crate::netproxy::net::Cidr>,
        proxy: Proxy,
    ) -> anyhow::Result<Self> {
        let (dir, prefix) = (leases_dir(&shared.config.dir), shared.config.interface_prefix.clone());
        let opened = Group::blocking(move || -> anyhow::Result<Ipam> {
            let (ipam, gone) =
                Ipam::open(&dir, pools).with_context(|| format!("read the leases in {}", dir.display()))?;
            for lease in gone {
                veth::disconnect(&prefix, &lease.container_id, &lease.ifname)?;
            }
            remove_orphans(&ipam, &prefix)?;
            Ok(ipam)
        });
        let ipam = opened.await??;
        Ok(Server { shared, proxy, ipam: Arc::new(Mutex::new(ipam)) })
    }

    /// The node got another part of the pod networks. Pods that run keep what they have.
    pub fn replace_pools(&self, pools: Vec<crate::netproxy::net::Cidr>) {
        let stranded = self.ipam.lock().replace_pools(pools);
        for lease in stranded {
            warn!(
                pod = lease.pod, addresses = ?lease.addresses,
                "the node's pod network changed: other nodes no longer reach this pod; delete it, so that it starts anew"
            );
        }
    }

    /// Put back what others remove of the ways to pods, again and again.
    pub fn keep_mended(self: Arc<Self>) {
        let group = self.shared.group.clone();
        group.spawn("cni-mend", async move {
            loop {
                let server = self.clone();
                let mended = Group::blocking(move || server.mend()).await;
                match mended.and_then(|result| result.map_err(Into::into)) {
                    Ok(0) => (),
                    Ok(count) => info!(count, "ways to pods were gone; put back"),
                    Err(error) => warn!(error = format!("{error:#}"), "ways to pods cannot be looked at"),
                }
                tokio::time::sleep(MEND_INTERVAL).await;
            }
        });
    }

    fn mend(&self) -> io::Result<usize> {
        let leases: Vec<Lease> = self.ipam.lock().leases().cloned().collect();
        let node = self.shared.node_addresses();
        let mut kernel = Links::open()?;
        let links = kernel.list()?;
        let mut routes = kernel.routes(Family::V4)?;
        routes.extend(kernel.routes(Family::V6)?);
        let mut count = 0;
        for lease in &leases {
            let attachment = attachment(&self.shared, lease, &lease.netns, &node, 0);
            count += usize::from(attachment.mend(&mut kernel, &links, &routes)?);
        }
        Ok(count)
    }

    /// Answer at `socket` until the group ends.
    pub fn listen(self: Arc<Self>, socket: &Path) -> anyhow::Result<()> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("remove the old CNI socket");
            }
            _ => (),
        }
        let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        let group = self.shared.group.clone();
        group.clone().spawn("cni", async move {
            let slots = Arc::new(Semaphore::new(MAX_AT_ONCE));
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let server = self.clone();
                        group.spawn("cni-request", async move {
                            server.serve(stream).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "CNI socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }

    async fn serve(&self, mut stream: UnixStream) {
        let mut text = Vec::new();
        let (reader, mut writer) = stream.split();
        let mut limited = reader.take(MAX_MESSAGE_BYTES);
        match tokio::time::timeout(READ_PATIENCE, limited.read_to_end(&mut text)).await {
            Ok(Ok(_)) => (),
            // The plugin went away; it asks again.
            _ => return,
        }
        let answer = match serde_json::from_slice::<Request>(&text) {
            Ok(request) => self.answer(&request).await,
            Err(error) => {
                Err(Failure::new(wire::DECODE_FAILURE, format!("the plugin's request cannot be read: {error}")))
            }
        };
        let answer = answer.map_or_else(Answer::Failed, Answer::Done);
        // The plugin may have been killed; then the runtime sends DEL.
        let _ = writer.write_all(&serde_json::to_vec(&answer).unwrap_or_default()).await;
        let _ = writer.shutdown().await;
    }

    async fn answer(&self, request: &Request) -> Result<Value, Failure> {
        let conf: NetConf = serde_json::from_value(request.config.clone()).map_err(|e| {
            Failure::new(wire::INVALID_CONFIG, format!("the network configuration cannot be read: {e}"))
        })?;
        if !VERSIONS.contains(&conf.cni_version.as_str()) {
            let text = format!("cniVersion {:?} is not one of {}", conf.cni_version, VERSIONS.join(", "));
            return Err(Failure::new(wire::INCOMPATIBLE_VERSION, text));
        }
        let result = match request.command.as_str() {
            "ADD" => self.add(request, conf).await,
            "DEL" => self.del(&id(request)).await.map(|()| Value::Null),
            "CHECK" => self.check(request).await.map(|()| Value::Null),
            "STATUS" => Ok(Value::Null),
            "GC" => self.collect(&conf).await.map(|()| Value::Null),
            other => Err(Failure::new(wire::INVALID_ENVIRONMENT, format!("CNI_COMMAND {other:?} is not known"))),
        };
        if let Err(failure) = &result {
            warn!(command = request.command, container = request.container_id, error = failure.msg, "CNI");
        }
        result
    }

    async fn add(&self, request: &Request, conf: NetConf) -> Result<Value, Failure> {
        let ports = conf.runtime_config.port_mappings;
        let id = id(request);
        let netns = PathBuf::from(&request.netns);
        let lease = self.lease(&id, &netns, &pod_name(&request.args), ports)?;
        let shared = self.shared.clone();
        let (for_link, link_netns) = (lease.clone(), netns.clone());
        let connected = Group::blocking(move || connect(&shared, &for_link, &link_netns)).await;
        let made = match connected.and_then(|result| result.map_err(Into::into)) {
            Ok(made) => made,
            Err(error) => {
                // Nothing of a failed ADD stays; the runtime may or may not send DEL.
                let _ = self.del(&id).await;
                let text = format!("connect {} to the pod network: {error:#}", request.netns);
                return Err(Failure::new(wire::NETWORK_FAILURE, text));
            }
        };
        self.proxy.pod(&id.container_id, &lease.addresses, &host_ports(&lease.ports)).await;
        info!(pod = lease.pod, addresses = ?lease.addresses, interface = made.host_interface, "pod connected");
        let made = Made {
            host_interface: &made.host_interface,
            host_mac: made.host_mac,
            interface: &request.ifname,
            mac: made.mac,
            netns: &request.netns,
            addresses: &lease.addresses,
        };
        Ok(wire::result(&conf.cni_version, &made, veth::gateway))
    }

    fn lease(&self, id: &Id, netns: &Path, pod: &str, ports: Vec<PortMapping>) -> Result<Lease, Failure> {
        if netns.as_os_str().is_empty() {
            return Err(Failure::new(wire::INVALID_ENVIRONMENT, "CNI_NETNS is empty"));
        }
        self.ipam.lock().lease(id, netns, pod, ports).map_err(failure)
    }

    /// Remove what the attachment has; fine when it has nothing, or its namespace is gone.
    async fn del(&self, id: &Id) -> Result<(), Failure> {
        let (prefix, gone) = (self.shared.config.interface_prefix.clone(), id.clone());
        let disconnected = Group::blocking(move || veth::disconnect(&prefix, &gone.container_id, &gone.ifname)).await;
        disconnected
            .and_then(|result| result.map_err(Into::into))
            .map_err(|error| Failure::new(wire::NETWORK_FAILURE, format!("remove the pod's interface: {error:#}")))?;
        self.proxy.pod(&id.container_id, &[], &[]).await;
        // Last, so that nobody gets an address that still leads somewhere.
        self.ipam.lock().release(id).map_err(failure)?;
        Ok(())
    }

    async fn check(&self, request: &Request) -> Result<(), Failure> {
        let lease = self.ipam.lock().get(&id(request)).cloned();
        let lease = lease.ok_or_else(|| Failure::new(wire::UNKNOWN_CONTAINER, "this container has no address here"))?;
        let (shared, netns) = (self.shared.clone(), PathBuf::from(&request.netns));
        let checked =
            Group::blocking(move || attachment(&shared, &lease, &netns, &shared.node_addresses(), 0).check()).await;
        checked.and_then(|r| r.map_err(Into::into)).map_err(|e| Failure::new(wire::NETWORK_FAILURE, format!("{e:#}")))
    }

    /// GC (CNI 1.1): release every attachment that the runtime does not list.
    async fn collect(&self, conf: &NetConf) -> Result<(), Failure> {
        let valid: BTreeSet<Id> = conf
            .valid_attachments
            .iter()
            .map(|a| Id { container_id: a.container_id.clone(), ifname: a.ifname.clone() })
            .collect();
        let stale: Vec<Id> = self.ipam.lock().leases().map(Lease::id).filter(|id| !valid.contains(id)).collect();
        for id in stale {
            self.del(&id).await?;
        }
        Ok(())
    }
}

fn leases_dir(dir: &Path) -> PathBuf {
    dir.join("leases")
}

/// The pods that are connected already, from the files in the network part's directory.
pub fn running(dir: &Path) -> Vec<RunningPod> {
    let of = |l: ipam::Lease| RunningPod {
        host_ports: host_ports(&l.ports),
        container_id: l.container_id,
        addresses: l.addresses,
    };
    ipam::living(&leases_dir(dir)).into_iter().map(of).collect()
}

/// Interfaces of ours that no lease explains: a crash came between the interface's end and its lease's.
fn remove_orphans(ipam: &Ipam, prefix: &str) -> io::Result<()> {
    let known: BTreeSet<String> = ipam.leases().map(|l| veth::host_name(prefix, &l.container_id, &l.ifname)).collect();
    veth::disconnect_all_but(prefix, &known)
}

/// What [`wire::result`] wants to know of the link.
struct Connected {
    host_interface: String,
    host_mac: crate::netproxy::link::Mac,
    mac: crate::netproxy::link::Mac,
}

fn connect(shared: &Shared, lease: &Lease, netns: &Path) -> io::Result<Connected> {
    let node = shared.node_addresses();
    let attachment = attachment(shared, lease, netns, &node, pod_mtu(&shared.config)?);
    attachment.connect()?;
    let host_interface = attachment.host_interface();
    Ok(Connected { host_interface, host_mac: attachment.host_mac(), mac: attachment.mac_of_pod() })
}

fn pod_mtu(config: &crate::netproxy::Config) -> io::Result<u32> {
    Ok(config.overlay.pod_mtu(host::mtu(config.node_ip)?, config.node_ip))
}

fn attachment<'a>(
    shared: &'a Shared,
    lease: &'a Lease,
    netns: &'a Path,
    node: &'a [IpAddr],
    mtu: u32,
) -> Attachment<'a> {
    Attachment {
        prefix: &shared.config.interface_prefix,
        container_id: &lease.container_id,
        netns,
        ifname: &lease.ifname,
        addresses: &lease.addresses,
        node,
        mtu,
    }
}

fn id(request: &Request) -> Id {
    Id { container_id: request.container_id.clone(), ifname: request.ifname.clone() }
}

/// "namespace/name" from CNI_ARGS.
fn pod_name(args: &str) -> String {
    let value =
        |name: &str| args.split(';').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    format!("{}/{}", value("K8S_POD_NAMESPACE"), value("K8S_POD_NAME"))
}

fn host_ports(ports: &[PortMapping]) -> Vec<HostPort> {
    let of = |port: &PortMapping| {
        Some(HostPort {
            host_ip: port.host_ip.parse().ok(),
            host_port: Some(port.host_port).filter(|p| *p > 0)?,
            container_port: port.container_port,
            protocol: plan::protocol(Some(&port.protocol).filter(|p| !p.is_empty()).map(String::as_str))?,
        })
    };
    ports.iter().filter_map(of).collect()
}

fn failure(error: ipam::Error) -> Failure {
    let code = match &error {
        ipam::Error::Full(_) => wire::NO_ADDRESS,
        ipam::Error::Write(..) => wire::IO_FAILURE,
        ipam::Error::Name(_) => wire::INVALID_ENVIRONMENT,
    };
    Failure::new(code, format!("{:#}", anyhow::Error::from(error)))
}

/// The configuration that the runtime reads; it appears when the network is ready.
pub fn conflist(socket: &Path) -> Value {
    json!({
        "cniVersion": wire::CONFIG_VERSION,
        "name": "kedge",
        "plugins": [{ "type": "kedge-cni", "socket": socket, "capabilities": { "portMappings": true } }],
    })
}
