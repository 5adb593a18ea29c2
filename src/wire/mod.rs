//! What server and agent both speak: TLS listener, WebSocket channels, SPDY frames, upgrades.

pub mod forward;
pub mod http;
pub mod listener;
pub mod peer;
pub mod query;
pub mod socket;
pub mod spdy;
pub mod stream;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;
