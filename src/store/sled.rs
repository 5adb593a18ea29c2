//! The default backend on sled (DESIGN D4).
