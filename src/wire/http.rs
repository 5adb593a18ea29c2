//! Small HTTP pieces both sides use.

use crate::status::Status;
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

/// A `Status` as an answer.
pub fn status_response(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::from(status.to_object().to_string()));
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The pairs of a query string, percent-decoded (`+` is a space).
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (decoded(name), decoded(value))
    };
    query.split('&').filter(|p| !p.is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |range: std::ops::Range<usize>| u8::from_str_radix(text.get(range)?, 16).ok();
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' => match hex(i + 1..i + 3) {
                Some(byte) => {
                    out.push(byte);
                    i += 2;
                }
                None => out.push(b'%'),
            },
            other => out.push(other),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::query_pairs;

    #[test]
    fn queries() {
        for (query, expect) in [
            ("", vec![]),
            ("a=1&a=2", vec![("a", "1"), ("a", "2")]),
            ("command=sh&command=-c&command=echo+a%26b%20%C3%A9", vec![("command", "sh"), ("command", "-c"), ("command", "echo a&b é")]),
            ("x=%zz&y", vec![("x", "%zz"), ("y", "")]),
            ("a=%", vec![("a", "%")]),
        ] {
            let got = query_pairs(query);
            let got: Vec<(&str, &str)> = got.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(got, expect, "{query}");
        }
    }
}
