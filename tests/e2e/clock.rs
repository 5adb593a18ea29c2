//! Boards without a battery: the clock says 1970 at the start and jumps to now later. kedge sees such a clock through a
//! small library that is loaded before libc; containerd, which is not linked against libc's clock, sees the real one.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::join::has_not_joined;
use crate::run::{eventually, has, run, sh};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long long *seconds;
__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_OFFSET");
    int fd = path ? open(path, O_RDONLY) : -1;
    void *mapped = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) seconds = mapped;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && seconds) time->tv_sec += *seconds;
    return result;
}
"#;

struct Clock {
    library: String,
    offset: String,
    file: std::fs::File,
}

impl Clock {
    fn new(dir: &Path) -> Clock {
        let path = |name: &str| dir.join(name).display().to_string();
        let (source, library, offset) = (path("clock.c"), path("clock.so"), path("offset"));
        std::fs::write(&source, LIBRARY).expect("write");
        run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o", &library, &source])).ok();
        let file = std::fs::File::options().create(true).truncate(true).write(true).open(&offset).expect("offset");
        let clock = Clock { library, offset, file };
        clock.set(0);
        clock
    }

    /// So many seconds from the real time.
    fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).expect("offset");
    }

    fn applied(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.library).env("CLOCK_OFFSET", &self.offset);
        command
    }
}

#[test]
#[ignore = "end to end on two real nodes, as root: ./test.sh"]
fn the_clock_jumps_from_1970_to_now() {
    let mut host = Host::new();
    host.import();
    let clock = Clock::new(&host.dir);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
    clock.set(60 - now as i64);
    let command = clock.applied(host.server_command(&["--node-monitor-grace-period=10s"]));
    host.spawn(command);
    host.wait_ready();
    let mut second = host.beside(2);
    second.import();
    let join = [format!("--server={}", crate::agent::server_url()), format!("--token={}", host.token())];
    let command = clock.applied(second.agent_command(&join.each_ref().map(String::as_str)));
    second.spawn(command);
    host.wait_node("node-2");
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=3")).ok();
    host.k("rollout status deployment/web --timeout=90s").ok();
    let pods = "get pods -o jsonpath={.items[*].metadata.uid}{.items[*].status.containerStatuses[0].restartCount}";
    let before = host.k(pods).ok();

    // A node that the server misses at the moment of the jump: its pods have five minutes, and nothing shortens them.
    host.cut(&second.ip);
    let taints = "get node node-2 -o jsonpath={.spec.taints[*].effect}";
    eventually("the server misses the node", 120, || {
        let found = host.k(taints).result()?;
        if found.contains("NoExecute") { Ok(()) } else { Err(found) }
    });
    clock.set(0);
    std::thread::sleep(std::time::Duration::from_secs(20));
    assert_eq!(host.k(pods).ok(), before, "nobody is evicted for a jump of the clock");
    host.mend(&second.ip);
    host.wait_node("node-2");
    host.wait_node("node-1");
    host.k("rollout status deployment/web --timeout=60s").ok();
    assert_eq!(host.k(pods).ok(), before);

    // Heartbeats, new pods and tokens go by the new time.
    let year = sh("date -u +%Y").ok();
    let renewed = host.k("get lease -n kube-node-lease node-2 -o jsonpath={.spec.renewTime}").ok();
    assert!(renewed.starts_with(year.trim()), "{renewed}");
    host.k("delete pods --all --timeout=60s").ok();
    host.k("rollout status deployment/web --timeout=90s").ok();
    for log in [host.log(), second.log()] {
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn a_host_with_another_time_is_told_to_set_its_clock() {
    let mut host = Host::new();
    host.start(&["--disable-agent"]);
    host.wait_api();
    let clock = Clock::new(&host.dir);
    clock.set(3 * 3600);
    let second = host.beside(2);
    let token = format!("--token={}", host.token());
    let refused = run(&mut clock.applied(second.join_command(&[&token]))).fails();
    has(&refused, "the clocks differ too much: here it is");
    has(&refused, "set the wrong one (timedatectl set-ntp true)");
    has_not_joined(&second);
    clock.set(0);
    assert!(!host.k("get nodes").ok().contains("node-2"));
}
