//! What a proxy passes on: headers without those of a single connection (RFC 9110 section 7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Meant for the next hop alone, listed in `Connection` or not.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The headers without those of one hop.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    for listed in headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok()) {
        for name in listed.split(',') {
            out.remove(name.trim());
        }
    }
    for name in HOP_BY_HOP {
        out.remove(name);
    }
    out
}

/// The protocol that a request or an answer wants to switch to, if any.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let connection = headers.get_all(header::CONNECTION);
    let mut tokens = connection.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let asked = tokens.any(|t| t.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// Headers of a request on its way to a backend: end to end, the upgrade kept, no length (the body knows it).
pub fn request_headers(headers: &HeaderMap) -> HeaderMap {
    let mut out = end_to_end(headers);
    out.remove(header::CONTENT_LENGTH);
    if let Some(protocol) = upgrade(headers) {
        out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(header::UPGRADE, protocol);
    }
    out
}

/// Add an address to `X-Forwarded-For`.
pub fn add_forwarded_for(headers: &mut HeaderMap, client: std::net::IpAddr) {
    let name = HeaderName::from_static("x-forwarded-for");
    let earlier: Vec<&str> = headers.get_all(&name).iter().filter_map(|v| v.to_str().ok()).collect();
    let all = earlier.into_iter().map(str::to_owned).chain([client.to_string()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&all) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(n, v): &(&'static str, &'static str)| (HeaderName::from_static(n), HeaderValue::from_static(v));
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn one_hop_ends_here() {
        let given = headers(&[
            ("connection", "keep-alive, X-Mine"),
            ("keep-alive", "5"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("cookie", "a=b"),
            ("content-length", "7"),
        ]);
        assert_eq!(request_headers(&given), headers(&[("cookie", "a=b")]));
        assert_eq!(upgrade(&given), None);
    }

    #[test]
    fn upgrades_are_passed_on() {
        let given = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("origin", "o")]);
        let expected = headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("origin", "o")]);
        assert_eq!(request_headers(&given), expected);
    }

    #[test]
    fn forwarded_for_grows() {
        let mut given = headers(&[("x-forwarded-for", "1.1.1.1")]);
        add_forwarded_for(&mut given, [2, 2, 2, 2].into());
        assert_eq!(given["x-forwarded-for"], "1.1.1.1, 2.2.2.2");
    }
}
