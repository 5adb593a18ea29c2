//! Commands with their output, and waiting with a bound.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a command printed and whether it succeeded.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub line: String,
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Its standard output; panics with everything it said if it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.ok, "{} failed\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self.stdout
    }

    /// Its standard error; panics if it succeeded.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.ok, "{} should have failed\nstdout: {}", self.line, self.stdout);
        self.stderr
    }

    /// Standard output or the error, for [`eventually`].
    pub fn result(self) -> Result<String, String> {
        if self.ok { Ok(self.stdout) } else { Err(format!("{}: {}{}", self.line, self.stdout, self.stderr)) }
    }
}

/// Run a command to its end (bounded by `timeout(1)` where it could hang).
pub fn run(command: &mut Command) -> Outcome {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{line}: {e}"));
    Outcome {
        line,
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn sh(script: &str) -> Outcome {
    run(Command::new("sh").args(["-ec", script]))
}

/// Try until it works; panics with the last error after `seconds`.
#[track_caller]
pub fn eventually<T>(what: &str, seconds: u64, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() >= deadline => panic!("{what}: not within {seconds} s; last: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// `text` must hold `part`.
#[track_caller]
pub fn has(text: &str, part: &str) {
    assert!(text.contains(part), "expected {part:?} in:\n{text}");
}
