//! `kedge check`: can this host run kedge? One line each, and what to do about every one that is not ok.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

#[derive(clap::Args)]
pub struct Args {
    /// Port the API will listen on.
    #[arg(long, default_value_t = 6443)]
    https_listen_port: u16,

    /// This host is to be an agent of the server there (https://HOST:6443): can it be reached?
    #[arg(long, env = "KEDGE_SERVER", value_name = "URL")]
    server: Option<String>,

    /// Port of the kubelet's API.
    #[arg(long, default_value_t = 10250)]
    kubelet_port: u16,

    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = crate::config::DATA_DIR)]
    data_dir: std::path::PathBuf,
}

/// How long the server may take to answer.
const SERVER_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

enum Finding {
    Ok(String),
    /// Works, but something is worth knowing.
    Note(String, String),
    /// kedge cannot run a node: what, and what to do.
    Bad(String, String),
}

use Finding::{Bad, Note, Ok as Good};

pub fn run(args: Args) -> anyhow::Result<i32> {
    let findings = [
        root(),
        kernel(),
        cgroups(),
        on_its_own("overlayfs", overlay, "load it: modprobe overlay (and put it into /etc/modules)"),
        on_its_own(
            "network namespaces and veth",
            veth,
            "the kernel needs CONFIG_NET_NS and CONFIG_VETH (modprobe veth)",
        ),
        on_its_own("nftables", nftables, "the kernel needs nf_tables: modprobe nf_tables nft_chain_nat nft_masq"),
        tunnels(),
        program("containerd", "apt-get install containerd"),
        program("runc", "apt-get install runc (or crun)"),
        match &args.server {
            Some(url) => server(url),
            None => port("API", args.https_listen_port, "choose another with --https-listen-port"),
        },
        port("kubelet", args.kubelet_port, "choose another with --kubelet-port"),
        space(&args.data_dir),
        forwarding(),
        inotify(),
        firewall(),
        clock(),
    ];
    let mut bad = 0;
    for finding in findings {
        match finding {
            Good(what) => println!("ok    {what}"),
            Note(what, fix) => println!("note  {what}\n      -> {fix}"),
            Bad(what, fix) => {
                bad += 1;
                println!("BAD   {what}\n      -> {fix}");
            }
        }
    }
    if bad > 0 {
        println!("{bad} to mend before kedge can run pods here");
    }
    Ok(i32::from(bad > 0))
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Good("running as root".to_owned())
    } else {
        Bad("not running as root".to_owned(), "run with sudo; some of the checks below fail without".to_owned())
    }
}

fn kernel() -> Finding {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 4) {
        Good(format!("kernel {release}"))
    } else {
        Bad(format!("kernel {release}"), "5.4 or newer is needed".to_owned())
    }
}

/// Both cgroup versions; the memory controller is off on Raspberry Pi kernels by default.
fn cgroups() -> Finding {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok();
    let v1 = || {
        let text = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let enabled = |l: &str| {
            let fields: Vec<&str> = l.split_whitespace().collect();
            matches!(fields.as_slice(), [name, _, _, "1"] if Path::new("/sys/fs/cgroup").join(name).exists())
                .then(|| fields[0].to_owned())
        };
        text.lines().filter_map(enabled).collect::<Vec<_>>()
    };
    let (name, have) = match v2 {
        Some(text) => ("cgroup v2", text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()),
        None => ("cgroup v1", v1()),
    };
    let missing: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|c| !have.iter().any(|h| h == c)).collect();
    if missing.is_empty() {
        return Good(format!("{name} with cpu, memory, pids"));
    }
    let cmdline = ["/boot/firmware/cmdline.txt", "/boot/cmdline.txt"].into_iter().find(|p| Path::new(p).exists());
    let fix = match cmdline {
        Some(file) => format!("append `cgroup_enable=memory cgroup_memory=1` to the line in {file} and reboot"),
        None => "mount cgroup2 at /sys/fs/cgroup, or enable the controllers on the kernel command line".to_owned(),
    };
    Bad(format!("{name} lacks {}", missing.join(", ")), fix)
}

/// Try an ability in a process of its own, so that nothing is left behind.
fn on_its_own(what: &str, ability: fn() -> nix::Result<()>, fix: &str) -> Finding {
    // SAFETY: the child makes only system calls and leaves by _exit; no locks are taken between fork and exit
    // because this command runs on a single thread.
    let result = match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Child) => {
            let code = match ability() {
                Ok(()) => 0,
                Err(errno) => errno as i32,
            };
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        Ok(nix::unistd::ForkResult::Parent { child }) => nix::sys::wait::waitpid(child, None),
        Err(errno) => Err(errno),
    };
    match result {
        Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => Good(what.to_owned()),
        Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => {
            Bad(format!("{what}: {}", nix::errno::Errno::from_raw(code)), fix.to_owned())
        }
        other => Bad(format!("{what}: {other:?}"), fix.to_owned()),
    }
}

fn overlay() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none)?;
    for dir in ["/mnt/l", "/mnt/u", "/mnt/w", "/mnt/m"] {
        nix::unistd::mkdir(dir, nix::sys::stat::Mode::S_IRWXU)?;
    }
    let options = Some("lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w");
    mount(Some("overlay"), "/mnt/m", Some("overlay"), MsFlags::empty(), options)?;
    umount2("/mnt/m", MntFlags::MNT_DETACH)
}

fn veth() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    crate::netproxy::probe::veth()
}

fn nftables() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    crate::netproxy::probe::nftables()
}

/// A lone node needs none.
fn tunnels() -> Finding {
    let fix = "for more than one node: modprobe vxlan, or choose --overlay=host-gw for nodes on one link";
    match on_its_own("VXLAN", vxlan, fix) {
        Bad(what, fix) => Note(what, fix),
        other => other,
    }
}

fn vxlan() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    crate::netproxy::probe::vxlan()
}

fn program(name: &str, fix: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file());
    match found {
        Some(path) => Good(format!("{name} ({})", path.display())),
        None => Bad(format!("{name} is not on PATH"), fix.to_owned()),
    }
}

fn port(whose: &str, number: u16, fix: &str) -> Finding {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)) {
        Ok(_) => Good(format!("port {number} ({whose}) is free")),
        Err(_) if crate::cli::daemon::is_running() => Good(format!("port {number} ({whose}) is used by kedge")),
        Err(error) => Bad(format!("port {number} ({whose}): {error}"), fix.to_owned()),
    }
}

/// The server's own answer to everyone: its CA.
fn server(url: &str) -> Finding {
    let ask = async {
        let url = crate::config::ServerUrl::parse(url)?;
        let client = crate::join::client(&url, None, crate::join::As::Nobody)?;
        let request = http::Request::get(crate::join::CA_PATH).body(Vec::new())?;
        let answer = tokio::time::timeout(SERVER_PATIENCE, client.request_text(request)).await;
        answer?.map_err(|error| anyhow::anyhow!("{}", crate::join::failure::of(&error, &url)))
    };
    match super::block_on(ask) {
        Ok(_) => Good(format!("the server at {url} answers")),
        Err(error) => Bad(format!("{error:#}"), "an agent needs no more than this one port of the server".to_owned()),
    }
}

fn space(data_dir: &Path) -> Finding {
    let existing = data_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = nix::sys::statvfs::statvfs(existing) else {
        return Note(format!("cannot read the free space of {}", existing.display()), "check it by hand".to_owned());
    };
    let free_mib = stat.blocks_available() * stat.fragment_size() / (1024 * 1024);
    if free_mib >= 1024 {
        Good(format!("{free_mib} MiB free at {}", data_dir.display()))
    } else {
        let fix = "images need room: free some, or move everything with --data-dir".to_owned();
        Note(format!("only {free_mib} MiB free at {}", data_dir.display()), fix)
    }
}

fn forwarding() -> Finding {
    match fs::read_to_string("/proc/sys/net/ipv4/ip_forward") {
        Ok(text) if text.trim() == "1" => Good("IPv4 forwarding is on".to_owned()),
        _ => Note("IPv4 forwarding is off".to_owned(), "kedge turns it on when it starts".to_owned()),
    }
}

fn inotify() -> Finding {
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    match text.trim().parse::<u32>() {
        Ok(n) if n >= 512 => Good(format!("{n} inotify instances")),
        Ok(n) => Note(
            format!("only {n} inotify instances"),
            "pods that watch files may run out: sysctl -w fs.inotify.max_user_instances=8192".to_owned(),
        ),
        Err(_) => Note("cannot read the inotify limit".to_owned(), "check it by hand".to_owned()),
    }
}

/// A default-drop FORWARD policy of another firewall also drops pods' packets: an accept of ours cannot override it.
fn firewall() -> Finding {
    let running = |name: &str| {
        let dirs = fs::read_dir("/proc").into_iter().flatten().flatten();
        dirs.map(|d| d.path().join("comm")).filter_map(|p| fs::read_to_string(p).ok()).any(|c| c.trim() == name)
    };
    if running("firewalld") {
        let fix = "firewall-cmd --permanent --zone=trusted --add-source=10.42.0.0/16 --add-source=10.43.0.0/16; \
                   firewall-cmd --permanent --add-port=6443/tcp --add-port=10250/tcp; firewall-cmd --reload";
        return Note("firewalld is running".to_owned(), fix.to_owned());
    }
    let ufw = fs::read_to_string("/etc/ufw/ufw.conf").unwrap_or_default();
    if ufw.lines().any(|l| l.trim() == "ENABLED=yes") {
        let fix = "ufw allow 6443/tcp; ufw allow from 10.42.0.0/16; ufw route allow from 10.42.0.0/16";
        return Note("ufw is enabled".to_owned(), fix.to_owned());
    }
    Good("no firewall service in the way".to_owned())
}

fn clock() -> Finding {
    let floor = crate::time::build_floor();
    let now = std::time::SystemTime::now();
    if now >= floor {
        Good("the clock is later than this program's build".to_owned())
    } else {
        let fix = "kedge starts all the same; set the clock (NTP) when you can".to_owned();
        Note("the clock is earlier than this program's build".to_owned(), fix)
    }
}
