//! Bytes written to disk per byte of value, etcd beside kedge.
//!
//! They are counted by a block device of its own (a file behind a loop device, with ext4 on it), so the file system's
//! journal is in them and nothing else of the machine is. What the kernel counts for a process (`write_bytes` in
//! `/proc/PID/io`) is shown beside it: it takes a whole folio of the page cache for written when a byte of it is, and in
//! a file that was read before those have up to 2 MiB.

use crate::client::{Client, connect};
use crate::server::{Kind, Server, has_etcd};
use crate::{Options, mib, object, random};
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK_BYTES: u64 = 4 << 30;
const BYTES: usize = 1024;
/// What is in the store that is opened.
const OBJECTS: usize = 100_000;
const OBJECT_BYTES: usize = 2048;

type Value = fn(usize, usize) -> Bytes;

pub async fn measure(options: &Options) {
    if !nix::unistd::Uid::effective().is_root() {
        println!("\nNOT MEASURED: bytes written to disk; that needs root for a loop device");
        return;
    }
    let mut columns = vec![("kedge", Kind::Kedge)];
    if has_etcd() {
        columns.insert(0, ("etcd", Kind::Etcd));
    }
    let mut table = Vec::new();
    let mut title = String::new();
    for (name, kind) in columns {
        for (what, value) in [("JSON", object as Value), ("random", random)] {
            title += &format!(" {name}, {what} |");
            table.push(column(options, kind, value).await);
        }
    }
    println!("\n| written to disk per byte of value (as the kernel counts for the process) |{title}");
    println!("|---|{}", "---|".repeat(table.len()));
    for (row, (name, _)) in table[0].iter().enumerate() {
        let cells: Vec<&str> = table.iter().map(|column| column[row].1.as_str()).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

async fn column(options: &Options, kind: Kind, value: Value) -> Vec<(&'static str, String)> {
    let disk = Disk::make(&options.directory);
    let mut rows = Vec::new();
    let server = Server::start(kind, &disk.path().join("data"));
    let it = Run { disk: &disk, client: connect(&server).await, server, value };
    rows.push(("2,000 single puts of 1 KiB, empty store", it.puts(2_000, 1).await));
    rows.push(("20,000 puts, 50 at once", it.puts(20_000, 50).await));
    let fill = it.fill();
    rows.push(("100,000 new objects of 2 KiB, 100 at once", it.per_byte(OBJECTS * OBJECT_BYTES, fill).await));
    rows.push(("files, MiB", format!("{:.0}", mib(it.server.disk()))));
    it.server.stop().await;

    disk.remount();
    let before = disk.written();
    let server = Server::start(kind, &disk.path().join("data"));
    let client = connect(&server).await;
    rows.push(("MiB written by opening them", format!("{:.1}", mib(disk.written() - before))));
    let it = Run { disk: &disk, client, server, value };
    rows.push(("then the first 100 single puts of 1 KiB", it.puts(100, 1).await));
    rows.push(("the next 400", it.puts(400, 1).await));
    rows.push(("the next 2,000", it.puts(2_000, 1).await));
    rows.push(("20,000 puts, 50 at once", it.puts(20_000, 50).await));
    it.server.stop().await;
    rows
}

struct Run<'a> {
    disk: &'a Disk,
    client: Client,
    server: Server,
    value: Value,
}

impl Run<'_> {
    /// Put so many values to some keys, so many at once.
    async fn puts(&self, count: usize, at_once: usize) -> String {
        let put = |n: usize| self.client.put(format!("/registry/leases/l-{}", n % 200), (self.value)(n, BYTES));
        let puts = stream::iter((0..count).map(put)).buffer_unordered(at_once);
        self.per_byte(count * BYTES, puts.for_each(|()| future::ready(()))).await
    }

    async fn fill(&self) {
        let put =
            |n: usize| self.client.put(format!("/registry/pods/default/object-{n:06}"), (self.value)(n, OBJECT_BYTES));
        let puts = stream::iter((0..OBJECTS).map(put)).buffer_unordered(100);
        puts.for_each(|()| future::ready(())).await;
    }

    async fn per_byte(&self, bytes: usize, work: impl Future<Output = ()>) -> String {
        let (disk, process) = (self.disk.written(), self.server.written());
        work.await;
        let per_byte = |written: u64| written as f64 / bytes as f64;
        let (disk, process) = (per_byte(self.disk.written() - disk), per_byte(self.server.written() - process));
        format!("{disk:.1} ({process:.1})")
    }
}

/// A file system on a device of its own.
struct Disk {
    device: String,
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    fn make(directory: &Path) -> Self {
        let (image, mounted) = (directory.join("disk.img"), directory.join("disk"));
        std::fs::File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).expect("room for a disk");
        run("mkfs.ext4", &["-q", "-F", text(&image)]);
        let device = run("losetup", &["-f", "--show", text(&image)]).trim().to_owned();
        std::fs::create_dir_all(&mounted).expect("a directory");
        run("mount", &[&device, text(&mounted)]);
        Disk { device, image, mounted }
    }

    fn path(&self) -> &Path {
        &self.mounted
    }

    /// Forget what the kernel has of its files in memory.
    fn remount(&self) {
        run("umount", &[text(&self.mounted)]);
        run("mount", &[&self.device, text(&self.mounted)]);
    }

    /// Bytes that have reached the device, with what the file system still had to write.
    fn written(&self) -> u64 {
        run("sync", &["-f", text(&self.mounted)]);
        let name = self.device.trim_start_matches("/dev/");
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("a block device");
        // Field 7: sectors of 512 bytes (kernel documentation, block/stat).
        stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<u64>().ok()).expect("its figures") * 512
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &[text(&self.mounted)]);
        run("losetup", &["-d", &self.device]);
        let _ = std::fs::remove_file(&self.image);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
