//! What the API server makes at each start: default RBAC policy, namespaces, priority classes, its own Service.

pub mod policy;
