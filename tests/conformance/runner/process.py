"""One process of the test program: it runs a few tests, and is watched."""

import itertools
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import report, specs
from .results import Result, outcome
from .specs import Spec

# A single test that takes longer is told to stop (its own deadlines are mostly 5 minutes)…
SPEC_SECONDS = 600
# …the same for a test that waits for a capability that kedge does not have yet (capabilities.txt): all that such a test
# does is wait, and there are many…
WAITING_SECONDS = 60
# …has this long to clean up after itself, and is then killed.
CLEANUP_SECONDS = 60
# The program's own start: it waits for the nodes.
START_SECONDS = 180
# How often the files are looked at.
LOOK_SECONDS = 0.5


@dataclass
class Context:
    """What all processes of a run have in common."""

    cluster: object
    built: Path
    logs: Path
    registries: Path
    spec_seconds: int = SPEC_SECONDS
    capabilities: list = field(default_factory=list)
    # Of its processes: their files are named by them.
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    def waits(self, name: str) -> bool:
        """Whether kedge lacks what the test needs."""
        return report.capability(name, self.capabilities) != report.DEFECTS

    def limit(self, name: str) -> int:
        return min(self.spec_seconds, WAITING_SECONDS) if self.waits(name) else self.spec_seconds


class Process:
    def __init__(self, context: Context, batch: list[Spec], number: int) -> None:
        self.context = context
        self.batch = batch
        self.names = {spec.name for spec in batch}
        self.events = context.logs / f"process-{number}.jsonl"
        self.output = context.logs / f"process-{number}.log"
        self.read = 0
        self.current: tuple[str, float] | None = None
        self.last_change = time.monotonic()
        self.asked_to_stop: float | None = None
        # The whole run ends: what its tests say now are no results.
        self.interrupted = False
        self.done: list[Result] = []

    def command(self) -> list[str]:
        seconds = self.context.spec_seconds * len(self.batch) + START_SECONDS
        return self.context.cluster.inside(
            self.context.built / "e2e.test", "--provider=skeleton", f"--kubeconfig={self.context.cluster.kubeconfig}",
            f"--kubectl-path={self.context.built / 'kubectl'}",
            "--allowed-not-ready-nodes=0", f"--e2e-output-dir={self.context.logs}", "--disable-log-dump",
            "--node-schedulable-timeout=2m", "--ginkgo.no-color", "--ginkgo.silence-skips",
            f"--ginkgo.timeout={seconds}s", f"--ginkgo.grace-period={CLEANUP_SECONDS}s",
            f"--ginkgo.focus={specs.pattern(self.batch)}")

    def start(self) -> None:
        # The list of registries is a variable, not a flag: some names of images are made before flags are read.
        environment = dict(os.environ, KEDGE_CONFORMANCE_RESULTS=str(self.events), HOME=str(self.context.logs),
                           KUBE_TEST_REPO_LIST=str(self.context.registries),
                           PATH=f"{self.context.built}:{os.environ['PATH']}")
        environment.pop("KUBECONFIG", None)
        with open(self.output, "ab") as log:
            self.child = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=environment, cwd=self.context.logs, start_new_session=True)

    def run(self, record, stopping) -> list[Spec]:
        """Run the batch; `record` gets each result at once. Gives the tests that did not get their turn."""
        self.start()
        while self.child.poll() is None:
            time.sleep(LOOK_SECONDS)
            self.look(record)
            self.watch(stopping())
        self.look(record)
        return self.settle(record)

    def look(self, record) -> None:
        if not self.events.exists():
            return
        with open(self.events, "rb") as file:
            file.seek(self.read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.splitlines():
            self.take(json.loads(line), record)

    def take(self, event: dict, record) -> None:
        self.last_change = time.monotonic()
        name = event["name"]
        if name not in self.names:
            return
        if event["event"] == "begin":
            self.current = (name, time.monotonic())
            return
        self.current = None
        if self.interrupted:
            return
        self.keep_output(name, event.get("output", ""))
        result = Result(name, outcome(event["state"]), event.get("seconds", 0), event.get("message", ""),
                        event.get("place", ""), event["time"])
        if event["state"] in ("interrupted", "aborted", "timedout") and self.asked_to_stop:
            result.message = f"stopped after {self.context.limit(name)} s at: {event.get('step', '')}"
        self.finish(result, record)

    def finish(self, result: Result, record) -> None:
        self.done.append(result)
        record(result)

    def keep_output(self, name: str, output: str) -> None:
        (self.context.logs / f"{file_name(name)}.log").write_text(output)

    def watch(self, stopping: bool) -> None:
        """Tell a process that takes too long to stop, and kill it where it does not."""
        now = time.monotonic()
        if self.asked_to_stop is not None:
            if now - self.asked_to_stop > CLEANUP_SECONDS * 1.5:
                self.signal(signal.SIGKILL)
            return
        begun, limit = self.last_change, START_SECONDS
        if self.current:
            begun, limit = self.current[1], self.context.limit(self.current[0])
        if stopping or now - begun > limit:
            self.asked_to_stop = now
            self.interrupted = stopping
            self.signal(signal.SIGINT)

    def signal(self, number: int) -> None:
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass

    def settle(self, record) -> list[Spec]:
        """A test that was running when the process ended has failed; the others have not run."""
        if self.current and not self.interrupted:
            name, begun = self.current
            why = f"the test program ended during this test: {ending(self.child.returncode)}\n{self.tail()}"
            self.finish(Result(name, "failed", time.monotonic() - begun, why), record)
        done = {result.name for result in self.done}
        return [spec for spec in self.batch if spec.name not in done]

    def tail(self) -> str:
        return self.output.read_text(errors="replace")[-3000:]


def ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_")[:180]
