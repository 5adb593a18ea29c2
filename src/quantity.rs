//! `resource.Quantity`: parse, compare, print canonically (API conventions; `1`, `100m`, `1Gi`, `1e3`).
