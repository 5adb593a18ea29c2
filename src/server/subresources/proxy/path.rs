//! The path behind the proxy, and the one in front of it.

use crate::wire::query::unescape;

/// A request's path, split where the proxy begins: (`/api/v1/…/proxy`, what is asked of the backend: empty, or from
/// its first slash on). `segments` is the number of path segments up to `proxy`.
pub fn split(path: &str, segments: usize) -> (&str, String) {
    let bytes = path.as_bytes();
    let mut at = 0;
    for _ in 0..segments {
        while bytes.get(at) == Some(&b'/') {
            at += 1;
        }
        while at < bytes.len() && bytes[at] != b'/' {
            at += 1;
        }
    }
    (&path[..at], clean(&path[at..]))
}

/// Without empty and dot segments, as upstream joins paths; a slash at the end stays. Escapes are left as they came.
fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match unescape(segment).as_str() {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{slash}", kept.join("/"))
}

/// What a URL on a page of the backend becomes for those who read the page through the proxy at `prefix`; None where
/// it stays. `backend` is the host that was dialed, `asked` the request's `Host`.
pub fn rewrite(url: &str, prefix: &str, backend: &str, asked: &str) -> Option<String> {
    let (scheme, rest) = scheme(url);
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None if scheme.is_some() => return None,
        None => ("", rest),
    };
    let elsewhere = !host.is_empty() && host != backend && host != asked;
    if elsewhere || !path.starts_with('/') {
        return None;
    }
    let start = match scheme {
        Some(scheme) if host == asked => format!("{scheme}://{host}"),
        None if host == asked && !host.is_empty() => format!("//{host}"),
        _ => String::new(),
    };
    let prefix = if path.starts_with(prefix) { "" } else { prefix };
    Some(format!("{start}{prefix}{path}"))
}

/// (scheme, the rest after its colon). RFC 3986 section 3.1.
fn scheme(url: &str) -> (Option<&str>, &str) {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    match url.split_once(':') {
        Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(known) => {
            (Some(scheme), rest)
        }
        _ => (None, url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_and_cleaned() {
        let pod = "/api/v1/namespaces/n/pods/https:p:80/proxy";
        let cases = [
            ("", ""),
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a//b", "/a/b"),
            ("/a/../../b", "/b"),
            ("/a/%2e%2e/b%2Fc", "/b%2Fc"),
            ("/..", "/"),
        ];
        for (rest, expected) in cases {
            assert_eq!(split(&format!("{pod}{rest}"), 7), (pod, expected.to_owned()), "{rest}");
        }
        assert_eq!(split("/api/v1//nodes/n/proxy/x", 5), ("/api/v1//nodes/n/proxy", "/x".to_owned()));
    }

    #[test]
    fn urls_of_the_backend_are_rewritten() {
        let cases = [
            ("/x/y?z#f", Some("/p/x/y?z#f")),
            ("/p/x", Some("/p/x")),
            ("x/y", None),
            ("#f", None),
            ("?q", None),
            ("http://10.0.0.1:80/x", Some("/p/x")),
            ("//10.0.0.1:80/x", Some("/p/x")),
            ("https://me:6443/x/", Some("https://me:6443/p/x/")),
            ("https://other/x", None),
            ("http://10.0.0.1:80", None),
            ("mailto:a@b", None),
            ("javascript:f(/x/)", None),
            ("a:/b", None),
        ];
        for (url, expected) in cases {
            assert_eq!(rewrite(url, "/p", "10.0.0.1:80", "me:6443").as_deref(), expected, "{url}");
        }
    }
}
