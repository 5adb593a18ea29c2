//! argv[0] and subcommand dispatch, exit code: nothing else.

use std::ffi::OsStr;
use std::path::Path;

#[expect(clippy::disallowed_methods, reason = "the one place that ends the process")]
fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    let called = args.first().and_then(|a| Path::new(a).file_name()).and_then(OsStr::to_str).unwrap_or_default();
    let code = match called {
        "kedge-cni" | "loopback" => kedge::netproxy::cni::plugin_main(),
        _ => kedge::cli::run(args),
    };
    std::process::exit(code);
}
