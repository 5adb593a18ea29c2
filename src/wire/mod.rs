//! What server and agent both speak: TLS listener, WebSocket channels, SPDY frames, upgrades.
