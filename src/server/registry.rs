//! Verbs on stored objects: the one write pipeline and the reads.
