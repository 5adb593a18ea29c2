//! The pod network's CNI side: the plugin (this executable under another name), the agent's answers, the addresses.
//!
//! The plugin carries a request to the agent and its answer back, nothing else. Only `loopback` does its work alone, so
//! that it needs no agent.

pub(in crate::netproxy) mod ipam;
pub(in crate::netproxy) mod server;
pub(in crate::netproxy) mod veth;
pub(in crate::netproxy) mod wire;

use super::link::Links;
use super::netns;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use wire::{Answer, Failure, MAX_MESSAGE_BYTES, Request, VERSIONS};

/// The plugin's name, and that of the one every runtime calls for `lo`.
pub const PLUGIN: &str = "kedge-cni";
pub const LOOPBACK: &str = "loopback";

/// How long the plugin waits for an agent that is just restarting.
const AGENT_PATIENCE: Duration = Duration::from_secs(15);
const AGENT_RETRY: Duration = Duration::from_millis(100);
/// How long it waits for an answer; then the runtime tries again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// The plugin's main: environment and standard input to standard output (CNI spec 1.0.0 section 2). Returns the exit code.
pub fn plugin_main() -> i32 {
    let name = std::env::args_os().next().unwrap_or_default();
    let is_loopback = Path::new(&name).file_name().is_some_and(|name| name == LOOPBACK);
    let mut version = wire::CONFIG_VERSION.to_owned();
    let result = read_request(&mut version).and_then(|request| match (request.command.as_str(), is_loopback) {
        ("VERSION", _) => Ok(json!({ "cniVersion": version, "supportedVersions": VERSIONS })),
        (_, true) => loopback(&request, &version),
        (_, false) => ask_agent(&request),
    });
    let (text, code) = match result {
        Ok(Value::Null) => return 0,
        Ok(value) => (value, 0),
        Err(failure) => (failure.to_json(&version), 1),
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => 1,
    }
}

fn read_request(version: &mut String) -> Result<Request, Failure> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut text = String::new();
    let read = io::stdin().take(MAX_MESSAGE_BYTES).read_to_string(&mut text);
    read.map_err(|e| Failure::new(wire::IO_FAILURE, format!("read the network configuration: {e}")))?;
    let command = variable("CNI_COMMAND");
    let config: Value = match serde_json::from_str(&text) {
        Ok(config) => config,
        Err(_) if command == "VERSION" => json!({}),
        Err(e) => {
            return Err(Failure::new(wire::DECODE_FAILURE, format!("the network configuration is not JSON: {e}")));
        }
    };
    if let Some(wanted) = config["cniVersion"].as_str() {
        wanted.clone_into(version);
    }
    let request = Request {
        container_id: variable("CNI_CONTAINERID"),
        netns: variable("CNI_NETNS"),
        ifname: variable("CNI_IFNAME"),
        args: variable("CNI_ARGS"),
        command,
        config,
    };
    let missing =
        required(&request.command).iter().filter(|name| variable(name).is_empty()).copied().collect::<Vec<_>>();
    if !missing.is_empty() {
        return Err(Failure::new(wire::INVALID_ENVIRONMENT, format!("{} not set", missing.join(", "))));
    }
    Ok(request)
}

/// Variables that a command needs (spec section 2).
fn required(command: &str) -> &'static [&'static str] {
    match command {
        "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL" => &["CNI_CONTAINERID", "CNI_IFNAME"],
        _ => &["CNI_COMMAND"],
    }
}

fn ask_agent(request: &Request) -> Result<Value, Failure> {
    let socket = request.config["socket"].as_str().unwrap_or_default();
    if socket.is_empty() {
        return Err(Failure::new(wire::INVALID_CONFIG, "the network configuration names no socket"));
    }
    let until = Instant::now() + AGENT_PATIENCE;
    loop {
        match exchange(Path::new(socket), request) {
            Ok(Answer::Done(value)) => return Ok(value),
            Ok(Answer::Failed(failure)) => return Err(failure),
            // Not there, or ended in the middle: all requests may be repeated.
            Err(_) if Instant::now() < until => std::thread::sleep(AGENT_RETRY),
            Err(error) => {
                let code = if request.command == "STATUS" { wire::NOT_AVAILABLE } else { wire::TRY_AGAIN_LATER };
                return Err(Failure::new(code, format!("the kedge agent does not answer at {socket}: {error}")));
            }
        }
    }
}

fn exchange(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    stream.write_all(&serde_json::to_vec(request)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = Vec::new();
    stream.take(MAX_MESSAGE_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// `lo` comes up, with the addresses the kernel gives it.
fn loopback(request: &Request, version: &str) -> Result<Value, Failure> {
    let failed = |error: io::Error| Failure::new(wire::NETWORK_FAILURE, format!("lo in {}: {error}", request.netns));
    match request.command.as_str() {
        "ADD" => {
            netns::within(Path::new(&request.netns), || {
                let mut links = Links::open()?;
                let lo = links.by_name("lo")?.ok_or(io::ErrorKind::NotFound)?;
                links.up(lo.index)
            })
            .map_err(failed)?;
            Ok(loopback_result(request, version))
        }
        "CHECK" => {
            let lo = netns::within(Path::new(&request.netns), || Links::open()?.by_name("lo")).map_err(failed)?;
            let up = lo.is_some_and(|lo| lo.up);
            if up { Ok(Value::Null) } else { Err(failed(io::Error::other("it is down"))) }
        }
        // The namespace goes, and lo with it.
        _ => Ok(Value::Null),
    }
}

fn loopback_result(request: &Request, version: &str) -> Value {
    if let Some(previous) = request.config.get("prevResult").filter(|p| p.is_object()) {
        return previous.clone();
    }
    let mut ip = json!({ "address": "127.0.0.1/8", "interface": 0 });
    if version.starts_with("0.") {
        ip["version"] = json!("4");
    }
    let lo = json!({ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": request.netns });
    json!({ "cniVersion": version, "interfaces": [lo], "ips": [ip], "routes": [], "dns": {} })
}
