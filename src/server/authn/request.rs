//! Who sent a request: identity of the in-process transport, else client certificate, else bearer token, else anonymous.

use super::{LocalIdentity, PeerCertificate, TokenAuthenticator, with_authenticated_group};
use crate::server::request::UserInfo;
use crate::status::{Result, Status};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{Extensions, HeaderMap};
use std::sync::Arc;

/// Key in `extra` of what the user authenticated with.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// A browser cannot set headers on WebSockets: the token comes as a subprotocol with this prefix, in base64url.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// The user behind a request. A token that nobody accepts is a 401 even though anonymous requests are allowed.
pub async fn authenticate(
    extensions: &Extensions,
    headers: &HeaderMap,
    tokens: &[Arc<dyn TokenAuthenticator>],
) -> Result<UserInfo> {
    if let Some(LocalIdentity(user)) = extensions.get() {
        return Ok(user.clone());
    }
    if let Some(peer) = extensions.get::<PeerCertificate>() {
        return Ok(certified(peer));
    }
    let Some(token) = bearer(headers) else { return Ok(UserInfo::anonymous()) };
    for authenticator in tokens {
        if let Some((user, _)) = authenticator.authenticate(&token, &[]).await? {
            return Ok(with_authenticated_group(user));
        }
    }
    Err(Status::unauthorized())
}

fn certified(peer: &PeerCertificate) -> UserInfo {
    let mut user = UserInfo { name: peer.user.clone(), groups: peer.groups.clone(), ..Default::default() };
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", peer.fingerprint)]);
    with_authenticated_group(user)
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let from_header = header.and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
    });
    from_header.or_else(|| websocket_bearer(headers))
}

fn websocket_bearer(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let encoded = values.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(WEBSOCKET_BEARER))?;
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;

    struct Fixed;

    #[async_trait]
    impl TokenAuthenticator for Fixed {
        async fn authenticate(&self, token: &str, _: &[String]) -> Result<Option<(UserInfo, Vec<String>)>> {
            let user = UserInfo { name: "bearer".into(), ..Default::default() };
            Ok((token == "good").then_some((user, vec![])))
        }
    }

    #[tokio::test]
    async fn who_is_it() {
        // (headers, certificate, user or None for 401)
        type Case = (&'static [(&'static str, &'static str)], bool, Option<&'static str>);
        let cases: &[Case] = &[
            (&[], false, Some("system:anonymous")),
            (&[("authorization", "Bearer good")], false, Some("bearer")),
            (&[("authorization", "bearer  good ")], false, Some("bearer")),
            (&[("authorization", "Bearer bad")], false, None),
            (&[("authorization", "Bearer bad")], true, Some("cert")),
            (&[("authorization", "Basic Z29vZA==")], false, Some("system:anonymous")),
            (
                &[("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.Z29vZA")],
                false,
                Some("bearer"),
            ),
            (&[("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.YmFk")], false, None),
        ];
        let tokens: Vec<Arc<dyn TokenAuthenticator>> = vec![Arc::new(Fixed)];
        for (pairs, certificate, want) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *pairs {
                headers.append(http::HeaderName::from_static(name), value.parse().unwrap());
            }
            let mut extensions = Extensions::new();
            if *certificate {
                let peer = PeerCertificate { user: "cert".into(), groups: vec!["g".into()], fingerprint: "ab".into() };
                extensions.insert(peer);
            }
            let got = authenticate(&extensions, &headers, &tokens).await;
            assert_eq!(got.as_ref().ok().map(|u| u.name.as_str()), *want, "{pairs:?}");
            let authenticated = got.is_ok_and(|u| u.is_in(UserInfo::AUTHENTICATED));
            assert_eq!(authenticated, want.is_some_and(|w| w != "system:anonymous"), "{pairs:?}");
        }
    }
}
