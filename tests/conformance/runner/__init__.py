"""Kubernetes' conformance tests against kedge: see `tests/conformance/run --help`."""
