//! The invariants of the code map: one crate has no compiler walls, so these tests are the walls.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(!files.is_empty(), "{dir} has no sources: the test looks at nothing");
    files.into_iter().map(|p| (p.clone(), fs::read_to_string(&p).expect("source file"))).collect()
}

/// The part of a file that ships: test modules at its end may do more.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    name == "tests" || name.ends_with("_tests") || path.components().any(|c| c.as_os_str() == "tests")
}

/// No line of code (comments aside) below `dir` holds one of `words`, except in `allowed` files.
fn check(dir: &str, words: &[&str], allowed: &[&str], why: &str) {
    let mut found = Vec::new();
    for (path, text) in sources(dir) {
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path).display().to_string();
        if is_test_file(&path) || allowed.iter().any(|a| name.ends_with(a)) {
            continue;
        }
        for (i, line) in shipped(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = words.iter().find(|w| code.contains(**w)) {
                found.push(format!("{name}:{}: {word}", i + 1));
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

#[test]
fn the_store_knows_no_kinds() {
    check(
        "src/store",
        &["crate::server", "crate::controllers", "crate::agent", "crate::netproxy", "k8s_openapi", "kube::"],
        &[],
        "store is below everything",
    );
}

#[test]
fn components_see_the_cluster_through_client_and_cache() {
    for dir in ["src/controllers", "src/agent", "src/netproxy"] {
        check(dir, &["crate::server", "crate::store"], &[], "components import neither server nor store");
    }
}

#[test]
fn spawning_is_in_one_file() {
    let words = ["tokio::spawn", "thread::spawn", "spawn_blocking", "thread::Builder", "spawn_local"];
    check("src", &words, &["src/task.rs"], "tasks have parents: use task::Group");
}

#[test]
fn only_main_ends_the_process() {
    check("src", &["process::exit"], &["src/main.rs"], "return an exit code or an error");
}

#[test]
fn http_status_codes_are_in_status_and_wire() {
    let allowed = ["src/status.rs", "src/server/api/respond.rs", "src/server/health.rs", "src/server/metrics.rs"];
    let dirs = ["src/controllers", "src/agent", "src/netproxy", "src/store", "src/server/kinds", "src/server/registry"];
    for dir in dirs {
        check(dir, &["StatusCode::"], &allowed, "HTTP status codes belong to status.rs and wire/");
    }
}

#[test]
fn unfinished_code_does_not_ship() {
    check("src", &["todo!(", "unimplemented!(", "dbg!("], &[], "unfinished");
}

#[test]
fn dependencies_say_why() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml");
    let mut section = "";
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let is_dependency =
            section.ends_with("dependencies]") && line.contains(" = ") && !line.trim_start().starts_with('#');
        assert!(!is_dependency || line.contains(" # "), "a dependency without a one-line why: {line}");
    }
}
