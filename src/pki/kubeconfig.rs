//! Kubeconfig files with everything embedded.

use super::leaf::Leaf;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// A kubeconfig with one cluster, one user and one context.
pub struct Kubeconfig<'a> {
    /// `https://host:port`
    pub url: &'a str,
    /// CA that the server's certificate comes from.
    pub ca_pem: &'a str,
    pub user: &'a str,
    pub leaf: &'a Leaf,
}

impl Kubeconfig<'_> {
    pub fn to_yaml(&self) -> String {
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let (url, user) = (self.url, self.user);
        let (ca, cert, key) = (encode(self.ca_pem), encode(&self.leaf.cert_pem), encode(&self.leaf.key_pem));
        format!(
            "apiVersion: v1
kind: Config
clusters:
- name: kedge
  cluster:
    server: {url}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: kedge
  context:
    cluster: kedge
    user: {user}
current-context: kedge
preferences: {{}}
"
        )
    }
}
