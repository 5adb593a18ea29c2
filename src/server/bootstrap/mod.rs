//! What the server makes at start: namespaces, the kubernetes Service, priority classes, RBAC policy.
