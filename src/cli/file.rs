//! The configuration file: every flag a key, read strictly. Keys that a flag or variable sets already are skipped.

use anyhow::{Context, bail};
use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_yaml::Value;
use std::path::{Path, PathBuf};

/// The file and the `.d` folder beside it as further arguments (`--key=value`) for what `given` does not set.
/// A missing default file is fine; a missing file that was asked for is not.
pub fn arguments(config: &Path, given: &ArgMatches, declared: &clap::Command) -> anyhow::Result<Vec<String>> {
    let explicit = given.value_source("config") != Some(ValueSource::DefaultValue);
    let mut settings: Vec<(String, Value, String)> = Vec::new();
    for file in files(config, explicit)? {
        for (key, value, place) in read(&file, declared)? {
            settings.retain(|(known, ..)| *known != key);
            settings.push((key, value, place));
        }
    }
    let mut out = Vec::new();
    for (key, value, place) in settings {
        let source = given.value_source(&key.replace('-', "_"));
        if !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            out.extend(texts(&value, &place)?.into_iter().map(|text| format!("--{key}={text}")));
        }
    }
    Ok(out)
}

/// `config.yaml`, then `config.yaml.d/*.yaml` in order.
fn files(config: &Path, explicit: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    if config.exists() {
        out.push(config.to_owned());
    } else if explicit {
        bail!("configuration file {} does not exist", config.display());
    }
    let mut folder = config.as_os_str().to_owned();
    folder.push(".d");
    let mut parts: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
        Err(_) => Vec::new(),
    };
    parts.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    parts.sort();
    out.extend(parts);
    Ok(out)
}

/// One file's keys with their values and places (`file:line`).
fn read(file: &Path, declared: &clap::Command) -> anyhow::Result<Vec<(String, Value, String)>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let parsed: Value = serde_yaml::from_str(&text).with_context(|| format!("{} is not valid YAML", file.display()))?;
    let map = match parsed {
        Value::Null => return Ok(Vec::new()),
        Value::Mapping(map) => map,
        _ => bail!("{}: expected `key: value` lines", file.display()),
    };
    let mut out = Vec::new();
    for (key, value) in map {
        let key = key.as_str().map(str::to_owned).unwrap_or_else(|| format!("{key:?}"));
        let place = format!("{}:{}", file.display(), line_of(&text, &key));
        match flag_of(declared, &key).filter(|flag| *flag != "config") {
            Some(flag) => out.push((flag.to_owned(), value, place)),
            None => bail!("{place}: unknown key `{key}`{}", suggestion(declared, &key)),
        }
    }
    Ok(out)
}

/// The flag that a key means, by its name or by another name of it.
fn flag_of<'a>(declared: &'a clap::Command, key: &str) -> Option<&'a str> {
    let named = |a: &&clap::Arg| a.get_long() == Some(key) || a.get_all_aliases().is_some_and(|all| all.contains(&key));
    declared.get_arguments().find(named)?.get_long()
}

/// The line of a top-level key, from 1.
fn line_of(text: &str, key: &str) -> usize {
    let starts = |line: &str| {
        let line = line.trim_start_matches(['"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.lines().position(starts).map_or(1, |i| i + 1)
}

fn suggestion(declared: &clap::Command, key: &str) -> String {
    let names = declared.get_arguments().filter_map(|a| a.get_long()).filter(|n| *n != "config");
    let near = names.map(|n| (strsim::damerau_levenshtein(n, key), n)).min();
    match near {
        Some((distance, name)) if distance <= name.len().max(key.len()) / 3 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

/// A value as the texts its flag takes: a scalar one, a list several.
fn texts(value: &Value, place: &str) -> anyhow::Result<Vec<String>> {
    let scalar = |v: &Value| match v {
        Value::Bool(b) => Ok(b.to_string()),
        Value::Number(n) => Ok(n.to_string()),
        Value::String(s) => Ok(s.clone()),
        _ => bail!("{place}: expected a text, number, true or false, or a list of these"),
    };
    match value {
        Value::Sequence(items) => items.iter().map(scalar).collect(),
        Value::Null => Ok(Vec::new()),
        one => Ok(vec![scalar(one)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags;

    fn check(yaml: &str, args: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().expect("scratch directory");
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, yaml).expect("write");
        let mut argv = vec!["server".to_owned(), format!("--config={}", file.display())];
        argv.extend(args.iter().map(|s| (*s).to_owned()));
        let declared = flags::server();
        let given = declared.clone().try_get_matches_from(argv).expect("flags");
        arguments(&file, &given, &declared).map_err(|e| format!("{e:#}").replace(&file.display().to_string(), "F"))
    }

    #[test]
    fn keys_become_flags_and_flags_win() {
        let yaml = "https-listen-port: 7443\nnode-label:\n- a=b\n- c=d\ndisable-agent: true\n";
        let expect = ["--https-listen-port=7443", "--node-label=a=b", "--node-label=c=d", "--disable-agent=true"];
        assert_eq!(check(yaml, &[]).unwrap(), expect);
        assert_eq!(check(yaml, &["--https-listen-port=1"]).unwrap(), expect[1..]);
        assert_eq!(check("flannel-backend: host-gw\n", &[]).unwrap(), ["--overlay=host-gw"]);
        assert!(check("flannel-backend: host-gw\n", &["--overlay=vxlan"]).unwrap().is_empty());
        assert!(check("", &[]).unwrap().is_empty());
    }

    #[test]
    fn mistakes_say_where_and_what() {
        let cases = [
            ("a: 1\n", "F:1: unknown key `a`"),
            ("data-dir: /x\n\ncluster-cdir: 1\n", "F:3: unknown key `cluster-cdir`; did you mean `cluster-cidr`?"),
            ("node-label: {a: b}\n", "F:1: expected a text, number, true or false, or a list of these"),
            ("- x\n", "F: expected `key: value` lines"),
        ];
        for (yaml, expect) in cases {
            assert_eq!(check(yaml, &[]).unwrap_err(), expect, "{yaml}");
        }
        assert!(check("a: [\n", &[]).unwrap_err().starts_with("F is not valid YAML: "));
    }
}
