//! Every flag of `kedge server` and `kedge agent`, once. The long name is also the key in `/etc/kedge/config.yaml`, and
//! `KEDGE_` with the name in capitals the environment variable. Precedence: flag, variable, file, default.

use crate::store::local::engine::Kind;
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

/// A boolean that reads `--flag`, `--flag=false`, `KEDGE_FLAG=true` and `flag: true` alike.
macro_rules! switch {
    () => {
        clap::ArgAction::Set
    };
}

/// Where flags come from besides the command line.
#[derive(Args, Clone, Debug)]
pub struct File {
    /// Configuration file; also every *.yaml in the folder of the same name with `.d`, in alphabetical order.
    #[arg(long, env = "KEDGE_CONFIG", value_name = "FILE", default_value = crate::config::CONFIG_FILE)]
    pub config: PathBuf,
}

/// Where a program keeps its things, and how it speaks.
#[derive(Args, Clone, Debug)]
pub struct Host {
    /// Where everything is kept.
    #[arg(long, env = "KEDGE_DATA_DIR", value_name = "DIR", default_value = crate::config::DATA_DIR)]
    pub data_dir: PathBuf,

    /// Sockets, pid file and mounts of the running program.
    #[arg(long, env = "KEDGE_RUN_DIR", value_name = "DIR", default_value = crate::config::RUN_DIR)]
    pub run_dir: PathBuf,

    #[command(flatten)]
    pub log: Log,
}

/// What is told of the running program.
#[derive(Args, Clone, Debug)]
pub struct Log {
    /// error, warn, info, debug, trace; or a filter such as `info,kedge::agent=debug`.
    #[arg(long, env = "KEDGE_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// text or json.
    #[arg(long, env = "KEDGE_LOG_FORMAT", value_name = "FORMAT", default_value = "text",
          value_parser = ["text", "json"])]
    pub log_format: String,
}

/// A host as a node: the same for a server's own node and an agent's.
#[derive(Args, Clone, Debug)]
pub struct Node {
    /// Name of this node [default: the host name, kept from the first start on].
    #[arg(long, env = "KEDGE_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Address of this node [default: that of the default route].
    #[arg(long, env = "KEDGE_NODE_IP", value_name = "IP")]
    pub node_ip: Option<IpAddr>,

    /// Address at which this node is reached from outside, if that is another one.
    #[arg(long, env = "KEDGE_NODE_EXTERNAL_IP", value_name = "IP")]
    pub node_external_ip: Option<IpAddr>,

    /// Labels for this node.
    #[arg(long, env = "KEDGE_NODE_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub node_label: Vec<String>,

    /// Parts to leave out; on a server: scheduler, controllers, kubelet, proxy, dns; on an agent: kubelet,
    /// proxy, dns.
    #[arg(long, env = "KEDGE_DISABLE", value_name = "PART", value_delimiter = ',')]
    pub disable: Vec<String>,

    /// Socket of a container runtime to use instead of our own containerd.
    #[arg(long, env = "KEDGE_CONTAINER_RUNTIME_ENDPOINT", value_name = "unix:///PATH")]
    pub container_runtime_endpoint: Option<String>,

    /// Resolver file that pods inherit [default: the host's real one].
    #[arg(long, env = "KEDGE_RESOLV_CONF", value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,

    /// Port of the kubelet's API.
    #[arg(long, env = "KEDGE_KUBELET_PORT", value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,

    /// Where pods' logs are kept.
    #[arg(long, env = "KEDGE_POD_LOG_DIR", value_name = "DIR", default_value = "/var/log")]
    pub pod_log_dir: PathBuf,

    /// Parent of the pods' cgroups.
    #[arg(long, env = "KEDGE_CGROUP_ROOT", value_name = "PATH", default_value = "/")]
    pub cgroup_root: String,

    /// Pods this node takes at most.
    #[arg(long, env = "KEDGE_MAX_PODS", value_name = "N", default_value_t = 110)]
    pub max_pods: u32,

    /// Time that pods have to end in when the machine stops.
    #[arg(long, env = "KEDGE_SHUTDOWN_GRACE_PERIOD", value_name = "DURATION", default_value = "30s")]
    pub shutdown_grace_period: String,

    /// Part of it that is kept for critical pods, which end last.
    #[arg(long, env = "KEDGE_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS", value_name = "DURATION", default_value = "10s")]
    pub shutdown_grace_period_critical_pods: String,
}

/// Backups that a server makes by itself.
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// Make a backup this often: 24h [default: never].
    #[arg(long, env = "KEDGE_BACKUP_INTERVAL", value_name = "DURATION")]
    pub backup_interval: Option<String>,

    /// Where those backups go [default: DATA-DIR/server/backups]; another disk is better.
    #[arg(long, env = "KEDGE_BACKUP_DIR", value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,

    /// How many of them stay.
    #[arg(long, env = "KEDGE_BACKUP_KEEP", value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub backup_keep: u16,

    /// File whose first line encrypts them.
    #[arg(long, env = "KEDGE_BACKUP_PASSPHRASE_FILE", value_name = "FILE")]
    pub backup_passphrase_file: Option<PathBuf>,
}

/// Networks and names of the cluster: a server's agents have them from the server, parts that run alone are told.
#[derive(Args, Clone, Debug)]
pub struct Networks {
    /// Addresses of pods.
    #[arg(long, env = "KEDGE_CLUSTER_CIDR", value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub cluster_cidr: String,

    /// Length of each node's part of the pod addresses.
    #[arg(long, env = "KEDGE_NODE_CIDR_MASK_SIZE", value_name = "BITS", default_value_t = 24)]
    pub node_cidr_mask_size: u8,

    /// Addresses of Services.
    #[arg(long, env = "KEDGE_SERVICE_CIDR", value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub service_cidr: String,

    /// Address of the cluster's DNS [default: the tenth of the Service addresses].
    #[arg(long, env = "KEDGE_CLUSTER_DNS", value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,

    /// Domain of Services and pods.
    #[arg(long, env = "KEDGE_CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// How pods of different nodes reach each other: vxlan, host-gw, wireguard; none for another CNI plugin.
    #[arg(long, env = "KEDGE_OVERLAY", value_name = "KIND", default_value_t, alias = "flannel-backend")]
    pub overlay: crate::netproxy::overlay::Backend,

    /// Ports for Services of type NodePort.
    #[arg(long, env = "KEDGE_SERVICE_NODE_PORT_RANGE", value_name = "FROM-TO", default_value = "30000-32767")]
    pub service_node_port_range: String,
}

/// When a node is given up.
#[derive(Args, Clone, Debug)]
pub struct Monitor {
    /// A node silent for this long is lost: 40s, 2m.
    #[arg(long, env = "KEDGE_NODE_MONITOR_GRACE_PERIOD", value_name = "DURATION", default_value = "40s")]
    pub node_monitor_grace_period: String,
}

/// The secret that lets a node in.
#[derive(Args, Clone, Debug, Default)]
pub struct Token {
    /// Secret of the cluster. On a server: what nodes join with [default: made at the first start, kept in
    /// DATA-DIR/server/node-token]. On an agent: K10…::node:SECRET (pins the server), ID.SECRET, or the bare secret.
    #[arg(long, env = "KEDGE_TOKEN", value_name = "TOKEN", hide_env_values = true, alias = "agent-token")]
    pub token: Option<String>,

    /// File with the token (other users of this host can read command lines, not this file).
    #[arg(long, env = "KEDGE_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
}

/// An etcd cluster in place of the server's own store.
#[derive(Args, Clone, Debug)]
pub struct Datastore {
    /// Keep everything in this etcd cluster: https://HOST:2379, one for each member. Several servers may share it.
    #[arg(long, env = "KEDGE_DATASTORE_ENDPOINT", value_name = "URL", value_delimiter = ',')]
    pub datastore_endpoint: Vec<String>,

    /// CA of its certificates.
    #[arg(long, env = "KEDGE_DATASTORE_CAFILE", value_name = "FILE")]
    pub datastore_cafile: Option<PathBuf>,

    /// Client certificate for it.
    #[arg(long, env = "KEDGE_DATASTORE_CERTFILE", value_name = "FILE", requires = "datastore_keyfile")]
    pub datastore_certfile: Option<PathBuf>,

    /// Key of that.
    #[arg(long, env = "KEDGE_DATASTORE_KEYFILE", value_name = "FILE", requires = "datastore_certfile")]
    pub datastore_keyfile: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub struct Server {
    #[command(flatten)]
    pub file: File,

    #[command(flatten)]
    pub host: Host,

    #[command(flatten)]
    pub token: Token,

    /// Address the API listens on.
    #[arg(long, env = "KEDGE_BIND_ADDRESS", value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Port of the API.
    #[arg(long, env = "KEDGE_HTTPS_LISTEN_PORT", value_name = "PORT", default_value_t = 6443)]
    pub https_listen_port: u16,

    /// Address that pods and other nodes reach the API at [default: the node's address].
    #[arg(long, env = "KEDGE_ADVERTISE_ADDRESS", value_name = "IP")]
    pub advertise_address: Option<IpAddr>,

    /// Where the store is served as etcd, for etcdctl and others; off for nowhere [default: 127.0.0.1:2379, unless
    /// that is taken].
    #[arg(long, env = "KEDGE_ETCD_LISTEN", value_name = "IP:PORT|off")]
    pub etcd_listen: Option<String>,

    /// Serve it without TLS and client certificates, to everybody on this host (a loopback address only).
    #[arg(long, env = "KEDGE_ETCD_INSECURE", action = switch!(), num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true")]
    pub etcd_insecure: bool,

    /// How often its watches that asked for it, and had no event, hear how far they are: 10m, 5s.
    #[arg(long, env = "KEDGE_ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL", value_name = "DURATION", default_value = "10m")]
    pub etcd_watch_progress_notify_interval: String,

    #[command(flatten)]
    pub datastore: Datastore,

    /// What keeps the store's records: log, or sled as in earlier versions. A store that is there is made anew for it.
    #[arg(long, env = "KEDGE_STORE_ENGINE", value_name = "ENGINE", default_value = "log")]
    pub store_engine: Kind,

    /// Bytes on disk at which the store refuses to grow: 8Gi; 0 for no limit but the disk's.
    #[arg(long, env = "KEDGE_STORE_QUOTA", value_name = "BYTES", default_value = "8Gi")]
    pub store_quota: String,

    /// Further names and addresses for the API's certificate.
    #[arg(long, env = "KEDGE_TLS_SAN", value_name = "NAME|IP", value_delimiter = ',')]
    pub tls_san: Vec<String>,

    #[command(flatten)]
    pub networks: Networks,

    /// Run no node on this host.
    #[arg(long, env = "KEDGE_DISABLE_AGENT", action = switch!(), num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true")]
    pub disable_agent: bool,

    #[command(flatten)]
    pub monitor: Monitor,

    /// Seconds that pods stay on a node that is not ready, unless they say so themselves.
    #[arg(long, env = "KEDGE_DEFAULT_NOT_READY_TOLERATION_SECONDS", value_name = "SECONDS", default_value_t = 300)]
    pub default_not_ready_toleration_seconds: u32,

    /// Seconds that pods stay on a node that is lost, unless they say so themselves.
    #[arg(long, env = "KEDGE_DEFAULT_UNREACHABLE_TOLERATION_SECONDS", value_name = "SECONDS", default_value_t = 300)]
    pub default_unreachable_toleration_seconds: u32,

    #[command(flatten)]
    pub backup: Backup,

    /// Where the admin kubeconfig is written.
    #[arg(long, env = "KEDGE_WRITE_KUBECONFIG", value_name = "FILE", default_value = crate::config::KUBECONFIG)]
    pub write_kubeconfig: PathBuf,

    /// Mode of the admin kubeconfig.
    #[arg(long, env = "KEDGE_WRITE_KUBECONFIG_MODE", value_name = "MODE", default_value = "0600")]
    pub write_kubeconfig_mode: String,

    /// Life of the certificates that are issued, in seconds (for trying out renewal).
    #[arg(long, env = "KEDGE_CERTIFICATE_TTL", value_name = "SECONDS", hide = true,
          value_parser = clap::value_parser!(u64).range(10..=315_360_000))]
    pub certificate_ttl: Option<u64>,

    #[command(flatten)]
    pub node: Node,
}

#[derive(Args, Clone, Debug)]
pub struct Agent {
    #[command(flatten)]
    pub file: File,

    #[command(flatten)]
    pub host: Host,

    /// The server to join: https://NAME-OR-ADDRESS[:6443].
    #[arg(long, env = "KEDGE_SERVER", value_name = "URL")]
    pub server: Option<String>,

    #[command(flatten)]
    pub token: Token,

    /// Pin the server's CA: SHA-256 of its public key, as kubeadm prints it. May be repeated.
    #[arg(long, env = "KEDGE_DISCOVERY_TOKEN_CA_CERT_HASH", value_name = "sha256:HEX", value_delimiter = ',')]
    pub discovery_token_ca_cert_hash: Vec<String>,

    #[command(flatten)]
    pub node: Node,
}

/// The API that a part alone works with, and as whom.
#[derive(Args, Clone, Debug)]
pub struct Kubeconfig {
    /// Server and identity. A kedge server writes one for each part to DATA-DIR/server/cred/.
    #[arg(long, env = "KEDGE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: PathBuf,
}

/// Several at once, of which one works.
#[derive(Args, Clone, Debug)]
pub struct Election {
    /// Work only while holding the part's Lease in kube-system: one of several works, whoever made them.
    #[arg(long, env = "KEDGE_LEADER_ELECT", action = switch!(), num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true")]
    pub leader_elect: bool,
}

/// `kedge component scheduler`
#[derive(Args, Clone, Debug)]
pub struct Scheduler {
    #[command(flatten)]
    pub kubeconfig: Kubeconfig,

    #[command(flatten)]
    pub election: Election,

    #[command(flatten)]
    pub log: Log,
}

/// `kedge component controllers`
#[derive(Args, Clone, Debug)]
pub struct Controllers {
    #[command(flatten)]
    pub kubeconfig: Kubeconfig,

    #[command(flatten)]
    pub election: Election,

    /// Sign certificates with the CAs in this folder (client-ca and server-ca, .crt and .key), which also holds the
    /// API server's own certificate (serving-apiserver.crt): DATA-DIR/server/tls of a kedge server. Without it somebody
    /// else signs.
    #[arg(long, env = "KEDGE_CLUSTER_SIGNING_DIR", value_name = "DIR")]
    pub cluster_signing_dir: Option<PathBuf>,

    #[command(flatten)]
    pub networks: Networks,

    #[command(flatten)]
    pub monitor: Monitor,

    #[command(flatten)]
    pub log: Log,
}

/// `kedge component kubelet`
#[derive(Args, Clone, Debug)]
pub struct Kubelet {
    #[command(flatten)]
    pub kubeconfig: Kubeconfig,

    /// CA behind the clients of the kubelet's API [default: the CA in the kubeconfig].
    #[arg(long, env = "KEDGE_CLIENT_CA_FILE", value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,

    /// Certificate of the kubelet's API [default: asked for with a CertificateSigningRequest].
    #[arg(long, env = "KEDGE_TLS_CERT_FILE", value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// Its key.
    #[arg(long, env = "KEDGE_TLS_PRIVATE_KEY_FILE", value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,

    #[command(flatten)]
    pub host: Host,

    #[command(flatten)]
    pub node: Node,

    #[command(flatten)]
    pub networks: Networks,
}

/// `kedge component proxy`
#[derive(Args, Clone, Debug)]
pub struct Proxy {
    #[command(flatten)]
    pub kubeconfig: Kubeconfig,

    #[command(flatten)]
    pub host: Host,

    #[command(flatten)]
    pub node: Node,

    #[command(flatten)]
    pub networks: Networks,
}

/// The declarations themselves, for the configuration file.
pub fn server() -> clap::Command {
    Server::augment_args(clap::Command::new("server"))
}

/// Those of `kedge agent`.
pub fn agent() -> clap::Command {
    Agent::augment_args(clap::Command::new("agent"))
}
