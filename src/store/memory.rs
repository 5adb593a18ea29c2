//! The oracle backend: a plain ordered map with all history in memory.
