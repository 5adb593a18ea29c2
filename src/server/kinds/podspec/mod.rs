//! What Pods and pod templates share: defaults, validation, QoS.

pub mod defaults;
pub mod qos;
