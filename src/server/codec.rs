//! Bodies: JSON, YAML and protobuf in and out; content negotiation.
