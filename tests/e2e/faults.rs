//! Random faults under a client that writes and reads all the time: nothing acknowledged is lost, and everything is as
//! its spec says at the end. `KEDGE_FAULT_ROUNDS` (default 3) and `KEDGE_FAULT_SEED` (default: by chance, printed).
//!
//! Twenty rounds, some four minutes: `KEDGE_FAULT_ROUNDS=20 cargo test --test e2e faults -- --ignored --nocapture`

use crate::agent::Agent;
use crate::host::Host;
use crate::image::BUSYBOX;
use crate::machine::Machine;
use crate::run::{eventually, run, sh};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillServer,
    KillAgent,
    CutLink,
    FlushRules,
    KillContainerd,
}

const FAULTS: [Fault; 5] =
    [Fault::KillServer, Fault::KillAgent, Fault::CutLink, Fault::FlushRules, Fault::KillContainerd];

#[test]
#[ignore = "end to end on two real nodes, as root: ./test.sh"]
fn nothing_is_lost_to_random_faults() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let rounds = number("KEDGE_FAULT_ROUNDS").unwrap_or(3);
    let seed = number("KEDGE_FAULT_SEED").unwrap_or_else(rand::random);
    eprintln!("{rounds} rounds, KEDGE_FAULT_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);

    let (mut host, mut second) = Host::and_second(&[]);
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=4")).ok();
    host.k("expose deployment web --port=80 --target-port=8080").ok();
    host.k("rollout status deployment/web --timeout=120s").ok();
    let client = Client::start(&host);
    let began = Instant::now();
    for round in 0..rounds {
        let fault = FAULTS[chance.random_range(0..FAULTS.len())];
        let seconds = chance.random_range(2..=10);
        eprintln!("round {round}: {fault:?} for {seconds} s after {} writes", client.acknowledged().len());
        strike(fault, seconds, &mut chance, &mut host, &mut second);
    }
    let faults_took = began.elapsed();
    host.wait_ready();
    host.wait_node("node-2");
    // The client writes with a healthy cluster again, too.
    let so_far = client.acknowledged().len();
    eventually("the client goes on", 60, || {
        if client.acknowledged().len() > so_far { Ok(()) } else { Err(String::new()) }
    });
    let acknowledged = client.stop();
    check(&host, &second, &acknowledged);
    eprintln!(
        "{rounds} rounds took {:.0} s, healthy {:.1} s after the last; {} writes acknowledged, all there",
        faults_took.as_secs_f64(),
        (began.elapsed() - faults_took).as_secs_f64(),
        acknowledged.len()
    );
}

/// Do it, wait, and put right what does not come back by itself.
fn strike(fault: Fault, seconds: u64, chance: &mut StdRng, host: &mut Host, second: &mut Agent) {
    let pause = || std::thread::sleep(Duration::from_secs(seconds));
    let machine: &Machine = if chance.random() { host } else { second };
    match fault {
        Fault::KillServer => {
            host.kill();
            pause();
            host.start_again();
        }
        Fault::KillAgent => {
            second.kill();
            pause();
            second.start_again();
        }
        Fault::CutLink => {
            host.cut(&second.ip);
            pause();
            host.mend(&second.ip);
        }
        Fault::FlushRules => {
            run(machine.inside("nft").args(["flush", "ruleset"])).ok();
            pause();
        }
        Fault::KillContainerd => {
            let found = sh(&format!("pgrep -f '^[^ ]*containerd --config {}' | head -1", machine.data_dir().display()));
            // The one before may not be back yet.
            if let Some(pid) = found.ok().lines().next() {
                sh(&format!("kill -9 {pid}"));
            }
            pause();
        }
    }
}

/// Every acknowledged object is there, every pod as its spec says, every Service reachable from every node.
fn check(host: &Host, second: &Agent, acknowledged: &BTreeSet<String>) {
    let values = "-o=jsonpath={range.items[*]}{.metadata.name}=k{.data.v}{\"\\n\"}{end}";
    let there = host.kubectl(&["get", "cm", values]).ok();
    let there: BTreeSet<&str> = there.lines().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(format!("{name}={name}").as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    host.k("rollout status deployment/web --timeout=180s").ok();
    let pods = eventually("four pods, all ready", 120, || {
        let pods = host.k("get pods -l app=web -o jsonpath={range.items[*]}{.metadata.name}={.status.containerStatuses[0].ready}{\"\\n\"}{end}").result()?;
        let ready = pods.lines().filter(|l| l.ends_with("=true")).count();
        if ready == 4 && pods.lines().count() == 4 { Ok(pods) } else { Err(pods) }
    });
    let address = host.k("get service web -o jsonpath={.spec.clusterIP}").ok();
    let names: BTreeSet<&str> = pods.lines().filter_map(|l| l.split('=').next()).collect();
    let machines: [&Machine; 2] = [host, second];
    for machine in machines {
        eventually("every pod answers", 60, || {
            let script = format!("for i in $(seq 40); do curl -s --max-time 3 http://{address}/; done");
            let answers = run(machine.inside("sh").args(["-c", &script])).result()?;
            let seen: BTreeSet<&str> = answers.lines().collect();
            if seen == names { Ok(()) } else { Err(format!("{seen:?} of {names:?}")) }
        });
    }
}

/// A shell that writes ConfigMaps and reads them back, and notes what was acknowledged.
struct Client {
    shell: Child,
    written: PathBuf,
    stop: PathBuf,
    wrong: PathBuf,
}

impl Client {
    fn start(host: &Host) -> Client {
        let file = |name: &str| host.dir.join(name);
        let (written, stop, wrong) = (file("written"), file("stop"), file("wrong"));
        let script = format!(
            "i=0; while [ ! -e {stop} ]; do i=$((i+1))
             kubectl --kubeconfig={config} --request-timeout=5s create cm k$i --from-literal=v=$i >/dev/null 2>&1 || {{ sleep 0.2; continue; }}
             echo k$i >> {written}
             got=$(kubectl --kubeconfig={config} --request-timeout=5s get cm k$i -o 'jsonpath={{.data.v}}' 2>/dev/null) || continue
             [ \"$got\" = $i ] || echo \"k$i is '$got'\" >> {wrong}
             done",
            stop = stop.display(),
            written = written.display(),
            wrong = wrong.display(),
            config = host.kubeconfig().display(),
        );
        let shell = host.inside("sh").args(["-c", &script]).env("HOME", &host.dir).spawn().expect("client");
        Client { shell, written, stop, wrong }
    }

    fn acknowledged(&self) -> BTreeSet<String> {
        std::fs::read_to_string(&self.written).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn stop(mut self) -> BTreeSet<String> {
        std::fs::write(&self.stop, "").expect("stop file");
        self.shell.wait().expect("client ends");
        let wrong = std::fs::read_to_string(&self.wrong).unwrap_or_default();
        assert_eq!(wrong, "", "read back something else");
        self.acknowledged()
    }
}
