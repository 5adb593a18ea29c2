//! Image references: `nginx` → `docker.io/library/nginx:latest` (the distribution project's reference grammar).

/// Longest repository name.
const NAME_BYTES_MAX: usize = 255;

/// The full form of a reference; None: not a reference.
pub fn normalize(text: &str) -> Option<String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // The last colon after the last slash starts a tag; one before it is a port.
    let slash = rest.rfind('/').map_or(0, |n| n + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    let (domain, path) = split_domain(name);
    let path = if domain == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    let valid = name.len() <= NAME_BYTES_MAX
        && is_domain(domain)
        && path.split('/').all(is_path_part)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    if !valid {
        return None;
    }
    let mut out = format!("{domain}/{path}");
    match (tag, digest) {
        (Some(tag), _) => out.extend([":", tag]),
        (None, None) => out.push_str(":latest"),
        (None, Some(_)) => {}
    }
    if let Some(digest) = digest {
        out.extend(["@", digest]);
    }
    Some(out)
}

/// Registry and repository path; without a registry it is Docker's.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { "docker.io" } else { first }, rest)
        }
        _ => ("docker.io", name),
    }
}

/// The registry of a reference, as credentials name it.
pub fn registry(text: &str) -> &str {
    split_domain(text).0
}

fn is_domain(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let part = |p: &str| {
        !p.is_empty()
            && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !p.starts_with('-')
            && !p.ends_with('-')
    };
    (host.split('.').all(part) || (host.starts_with('[') && host.ends_with(']')))
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, separated by one dot, one or two underscores, or dashes.
fn is_path_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    word(*first)
        && word(*last)
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'_' | b'-'))
        && !part.contains("..")
        && !part.contains("___")
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_forms() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("nginx@{digest}");
        let full_digest = format!("docker.io/library/nginx@{digest}");
        let cases = [
            ("nginx", Some("docker.io/library/nginx:latest")),
            ("nginx:1.27", Some("docker.io/library/nginx:1.27")),
            ("a/b", Some("docker.io/a/b:latest")),
            ("localhost/a", Some("localhost/a:latest")),
            ("localhost:5000/a:v1", Some("localhost:5000/a:v1")),
            ("127.0.0.1:5000/a/b", Some("127.0.0.1:5000/a/b:latest")),
            ("ghcr.io/x/y__z:t", Some("ghcr.io/x/y__z:t")),
            (with_digest.as_str(), Some(full_digest.as_str())),
            ("index.docker.io/library/x", Some("docker.io/library/x:latest")),
            ("", None),
            ("Nginx", None),
            ("a//b", None),
            ("a:b:c", None),
            ("a:-x", None),
            ("-a", None),
            ("a@sha256:zz", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(normalize(text).as_deref(), wanted, "{text:?}");
        }
        assert_eq!(registry("nginx"), "docker.io");
        assert_eq!(registry("r.example:5000/a/b"), "r.example:5000");
    }
}
