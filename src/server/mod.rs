//! The API server: listener → authenticate → authorize → admit → registry → store (DESIGN section 4).
//!
//! `api.rs` is the one entry ([`api::Api::handle`]): the TLS listener and the in-process transport both call it.

pub mod admission;
pub mod allocation;
pub mod api;
pub mod at_rest;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod codec;
pub mod common_keys;
pub mod companions;
pub mod dial;
pub mod discovery;
pub mod document;
pub mod health;
pub mod join;
pub mod kinds;
pub mod kubelet;
pub mod maintenance;
pub mod metrics;
pub mod openapi;
pub mod patch;
pub mod raw;
pub mod registry;
pub mod request;
pub mod schema;
pub mod security;
pub mod subresources;
pub mod table;
pub mod tunnel;
pub mod watch;
