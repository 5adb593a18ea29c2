//! Watches: store events filtered per watcher and framed.
