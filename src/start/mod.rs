//! Start-up as lists of calls: what runs in a server and in an agent, in which order, with which identity.

mod agent;
pub mod component;
mod node;
mod running;
mod server;
mod signing;
mod unplugged;

pub use agent::agent;
pub use running::Running;
pub use server::server;
pub use unplugged::Again;
