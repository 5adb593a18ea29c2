//! Subresources that are not plain reads and writes: scale, binding, eviction, token, log, exec, attach, portforward, proxy.
