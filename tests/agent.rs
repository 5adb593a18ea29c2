//! The agent on a real containerd: root, runc, cgroups. Every test has an instance of its own: directories, socket,
//! cgroups; nothing outside is touched.

#[path = "agent/instance.rs"]
mod instance;
#[path = "agent/runtime.rs"]
mod runtime;
