//! Figures of the store: `cargo bench --bench store -- [speed|memory|flash] [--engine log|sled] [--directory DIR] [--rounds N]`;
//! without a
//! word all of them. The directory (default: the temporary one) decides which disk is measured.
//!
//! - `speed`: the same client, by gRPC, against a real etcd and against kedge's face of etcd, each a process of its own
//!   with its default settings, in turn; and the calls in process that kedge's own API server makes. The median of the
//!   rounds (default 3) is shown.
//! - `memory`: RSS of a server with 100,000 objects, after whatever makes it grow; watches that nobody reads.
//! - `flash`: bytes that reach a disk of its own (a loop device; needs root) per byte of value, of both.
//!
//! Needs `etcd` on the PATH for the comparison. Client and servers share the machine. Figures are printed, never judged.

mod client;
mod flash;
mod memory;
mod server;
mod speed;

use std::path::PathBuf;
use std::time::Duration;

fn main() {
    let options = options();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    if let Some(path) = std::env::var_os(server::SERVE) {
        return runtime.block_on(server::serve(path.as_ref()));
    }
    println!("machine: {} CPUs, load {}", num_cpus(), load());
    std::fs::create_dir_all(&options.directory).expect("a directory to work in");
    runtime.block_on(async {
        if options.wants("speed") {
            speed::measure(&options).await;
        }
        if options.wants("memory") {
            memory::measure(&options).await;
        }
        if options.wants("flash") {
            flash::measure(&options).await;
        }
    });
    println!("load at the end {}", load());
    let _ = std::fs::remove_dir_all(&options.directory);
}

struct Options {
    /// Made for this run.
    directory: PathBuf,
    rounds: usize,
    parts: Vec<String>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

fn options() -> Options {
    let mut options = Options { directory: std::env::temp_dir(), rounds: 3, parts: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--directory" => options.directory = arguments.next().expect("--directory DIR").into(),
            "--rounds" => {
                options.rounds = arguments.next().and_then(|n| n.parse::<usize>().ok()).expect("--rounds N").max(1);
            }
            "--engine" => {
                let engine = arguments.next().expect("--engine log|sled");
                // SAFETY: no other thread has begun.
                unsafe { std::env::set_var(server::ENGINE, engine) };
            }
            // What cargo itself gives.
            "--bench" => {}
            "speed" | "memory" | "flash" => options.parts.push(argument),
            other => panic!("{other}: expected speed, memory, flash, --engine, --directory or --rounds"),
        }
    }
    options.directory = options.directory.join(format!("kedge-bench-store-{}", std::process::id()));
    options
}

/// Something like a Kubernetes object: JSON with names that repeat and some noise.
fn object(number: usize, bytes: usize) -> bytes::Bytes {
    let mut noise = Noise(number as u64);
    let mut text = format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pod-{number}","labels":{{"#);
    while text.len() + 60 < bytes {
        text += &format!(r#""app.kubernetes.io/part-{:02}":"value-{:08x}","#, text.len() % 100, noise.next() >> 32);
    }
    text += r#""end":"true"}}}"#;
    while text.len() < bytes {
        text.push(' ');
    }
    text.into()
}

/// A value that no compression makes shorter.
fn random(number: usize, bytes: usize) -> bytes::Bytes {
    let mut noise = Noise(number as u64);
    let words = (0..bytes.div_ceil(8)).map(|_| noise.next().to_le_bytes());
    let mut value: Vec<u8> = words.flatten().collect();
    value.truncate(bytes);
    value.into()
}

/// splitmix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn num_cpus() -> usize {
    std::thread::available_parallelism().map_or(0, |n| n.get())
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}
