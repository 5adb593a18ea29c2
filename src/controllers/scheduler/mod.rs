//! The scheduler: queue, one file per plugin, binding.
