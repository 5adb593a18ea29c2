//! Cluster IPs and node ports: allocation, release and repair.
