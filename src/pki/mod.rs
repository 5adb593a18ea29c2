//! Certificates: CAs, leaf issue, kubeconfigs (DESIGN D10, D11). Files are written durably, 0600 where secret.
