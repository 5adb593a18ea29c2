"""The command: arguments, and the steps in their order."""

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import gate, images, paths, process, programs, report, results, say, specs
from .cluster import Cluster
from .suite import Suite

SUITE = "v1.37.1"
RESULTS = paths.REPOSITORY / "target" / "conformance"
# The gate of CI: how long its tests may take together, by what they took earlier.
GATE_SECONDS = 240


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/conformance/run", description="Kubernetes' own conformance tests "
                                     f"{SUITE} against two kedge nodes on this machine. A run of all tests writes "
                                     "docs/conformance.md and adds to tests/conformance/passing.txt.")
    add = parser.add_argument
    add("--focus", metavar="REGEX", help="only tests whose name fits")
    add("--skip", metavar="REGEX", help="no tests whose name fits")
    add("--sig", metavar="NAME", help="only tests of this SIG, such as network")
    add("--list", metavar="FILE", type=Path, help="only the tests named in this file, one a line")
    add("--parallel", metavar="N", type=int, default=12, help="tests at once [%(default)s]")
    add("--spec-seconds", metavar="N", type=int, default=process.SPEC_SECONDS,
        help="stop a single test after so long [%(default)s]")
    add("--nodes", metavar="N", type=int, default=2, help="nodes of the cluster [%(default)s]")
    add("--keep", action="store_true", help="leave the cluster running at the end, and say how to reach it")
    add("--binary", metavar="KEDGE", type=Path, help="the executable [a release build of this checkout]")
    add("--gate", action="store_true", help="a part of passing.txt that another seed chooses each time, as CI does")
    add("--seed", metavar="N", type=int, help="repeat the choice of a gate")
    add("--prepare", action="store_true", help="build the tests and the images, and end")
    add("--show", action="store_true", help="only print the names of the chosen tests")
    return parser.parse_args()


def main() -> int:
    try:
        return command(arguments())
    except say.Problem as problem:
        print(f"conformance: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("conformance: interrupted", file=sys.stderr)
        return 130


def command(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise say.Problem("the cluster under test needs root: run this as root")
    times: dict[str, float] = {}
    say.step(f"conformance tests {SUITE}")
    built = programs.build()
    everything = specs.conformance(built)
    chosen = selection(options, everything)
    if options.show:
        say.line("\n".join(spec.name for spec in chosen))
        return 0
    layout = images.build(built)
    if options.prepare:
        return 0
    tested = commit()
    binary = kedge(options)
    folder = RESULTS / time.strftime("%Y%m%d-%H%M%S")
    # What is in the cache took this long when it was made.
    times |= {"build": paths.took(built), "images": paths.took(layout)}
    found, about = run(options, chosen, built, layout, binary, folder, times)
    about["commit"] = tested
    return conclude(options, everything, found, about, folder)


def timed(times: dict[str, float], name: str, action):
    watch = say.Stopwatch()
    value = action()
    times[name] = float(watch)
    return value


def selection(options: argparse.Namespace, everything: list[specs.Spec]) -> list[specs.Spec]:
    names = None
    if options.list:
        names = [line.strip() for line in options.list.read_text().splitlines() if line.strip() and line[0] != "#"]
    if is_gate(options):
        seed = int(time.time()) if options.seed is None else options.seed
        taken = gate.choose(gate.read(), seed, GATE_SECONDS, options.parallel)
        names = [one.name for one in taken]
        say.line(f"seed {seed} chooses {len(names)} of {len(gate.read())} passing tests; again with: "
                 f"tests/conformance/run --seed {seed}")
    return specs.choose(everything, options.focus, options.skip, options.sig, names)


def kedge(options: argparse.Namespace) -> Path:
    if options.binary:
        if not options.binary.exists():
            raise say.Problem(f"there is no {options.binary}")
        return options.binary.resolve()
    say.step("building kedge")
    if subprocess.run(["cargo", "build", "--release", "--locked"], cwd=paths.REPOSITORY).returncode != 0:
        raise say.Problem("kedge does not build")
    return paths.REPOSITORY / "target" / "release" / "kedge"


def run(options, chosen, built, layout, binary, folder, times) -> tuple[list[results.Result], dict]:
    logs = folder / "logs"
    cluster = Cluster(binary, layout, folder / "cluster", logs, options.nodes)
    # A run that is told to end takes the cluster down like one that is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        say.step(f"starting {options.nodes} nodes; logs in {logs}")
        timed(times, "start", cluster.start)
        return test(options, chosen, built, cluster, folder, times), about(options, binary, times)
    finally:
        if options.keep and cluster.kubeconfig.exists():
            say.line(f"kept: nsenter --net=/run/netns/{cluster.id} kubectl --kubeconfig={cluster.kubeconfig} get nodes")
            wait_for_enter()
        no_more_interrupts()
        cluster.stop()


def wait_for_enter() -> None:
    try:
        input("Enter takes it down ")
    except EOFError:
        # Without a terminal a signal does.
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def no_more_interrupts() -> None:
    """Impatience must not leave half a cluster behind."""
    for number in [signal.SIGINT, signal.SIGTERM]:
        signal.signal(number, signal.SIG_IGN)


def test(options, chosen, built, cluster, folder, times) -> list[results.Result]:
    serial = sum(spec.serial for spec in chosen)
    say.step(f"{len(chosen)} tests: {len(chosen) - serial} of them {options.parallel} at once, then {serial} alone")
    durations = known_durations()
    context = process.Context(cluster, built, folder / "logs", images.repo_list(folder), options.spec_seconds,
                              report.capabilities())
    suite = Suite(context, chosen, durations)
    try:
        found = timed(times, "run", lambda: suite.run(options.parallel))
        if is_gate(options):
            found = second_chance(context, chosen, found, durations)
    except KeyboardInterrupt:
        no_more_interrupts()
        suite.stop.set()
        say.line("interrupted: stopping the tests")
        suite.wait()
        report.show(suite.results)
        raise
    finally:
        keep_durations(durations, suite.results)
    return found


def second_chance(context: process.Context, chosen: list[specs.Spec], found: list[results.Result], durations) -> list[results.Result]:
    """A gate's failed tests once more, alone: what passes then was in want of a calmer machine, and is named."""
    failed = {result.name for result in found if result.outcome == "failed"}
    if not failed:
        return found
    say.step(f"{len(failed)} failed; once more, alone")
    again = Suite(context, [spec for spec in chosen if spec.name in failed], durations).run(1)
    for result in again:
        if result.outcome == "passed":
            say.line(f"FLAKE {result.name}: failed at first, passed alone")
    return [result for result in found if result.name not in failed] + again


def is_gate(options: argparse.Namespace) -> bool:
    return options.gate or options.seed is not None


def known_durations() -> dict[str, float]:
    """Seconds by name: of the last run here, and where there was none of the run that put it into passing.txt."""
    file = paths.cache() / "durations.json"
    listed = {passing.name: passing.seconds for passing in gate.read()}
    return listed | (json.loads(file.read_text()) if file.exists() else {})


def keep_durations(durations: dict[str, float], found: list[results.Result]) -> None:
    durations |= {result.name: result.seconds for result in found}
    (paths.cache() / "durations.json").write_text(json.dumps(durations))


def about(options: argparse.Namespace, binary: Path, times: dict[str, float]) -> dict:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    figures = {name: say.minutes(seconds) for name, seconds in times.items()}
    return dict(figures, suite=SUITE, date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
                machine=f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}",
                parallel=options.parallel, nodes=options.nodes)


def commit() -> str:
    git = lambda *words: subprocess.run(["git", *words], cwd=paths.REPOSITORY, capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.lock")
    return git("rev-parse", "--short", "HEAD") + (" with local changes" if changed else "")


def conclude(options, everything, found, about, folder) -> int:
    results.save(found, folder / "results.json", about)
    results.junit(found, folder / "junit.xml", sum(result.seconds for result in found))
    say.step("results")
    report.show(found)
    say.line(f"\n{folder / 'junit.xml'}; the log of each test in {folder / 'logs'}")
    if len(found) == len(everything):
        last = paths.cache() / "last-full-run.json"
        before = results.load(last) if last.exists() else None
        report.write(found, about, before)
        results.save(found, last, about)
        say.line(f"wrote {paths.PAGE.relative_to(paths.REPOSITORY)}; "
                 f"{gate.grow(found, before[1] if before else [])} tests, passed twice, came into passing.txt")
    failing = sum(result.outcome == "failed" for result in found)
    passed, skipped = (sum(result.outcome == which for result in found) for which in ["passed", "skipped"])
    # As cargo's test runner says it: ./test.sh counts these lines.
    say.line(f"test result: {'FAILED' if failing else 'ok'}. {passed} passed; {failing} failed; {skipped} ignored; "
             f"finished in {about['run']}")
    return 1 if failing else 0
