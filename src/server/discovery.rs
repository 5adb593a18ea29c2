//! Discovery: legacy and aggregated.
