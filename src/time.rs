//! Time as the API writes it (RFC 3339), the process clock with its floor (DESIGN D11), and short ages (`5m3s`).
