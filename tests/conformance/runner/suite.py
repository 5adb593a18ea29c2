"""Many tests over a few processes at once, then the serial ones alone."""

import collections
import threading

from . import process, say
from .process import Context, Process
from .results import Result, first_line
from .specs import Spec

# Tests that one process runs in a row: its start costs about as much as one test.
BATCH = 12
# Processes in a row that end before their first test is over: then it is not the tests that are at fault.
TURNS = 3


class Suite:
    def __init__(self, context: Context, specs: list[Spec], durations: dict[str, float]) -> None:
        self.context = context
        self.specs = specs
        self.durations = durations
        self.results: list[Result] = []
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []
        self.turns: collections.Counter[str] = collections.Counter()

    def run(self, parallel: int) -> list[Result]:
        # The longest first, so that none begins when all others have ended.
        ordered = sorted(self.specs, key=lambda spec: -self.durations.get(spec.name, 30))
        self.phase([spec for spec in ordered if not spec.serial], parallel)
        self.phase([spec for spec in ordered if spec.serial], 1)
        return self.results

    def phase(self, specs: list[Spec], workers: int) -> None:
        queue = collections.deque(specs)
        self.threads = [threading.Thread(target=self.work, args=(queue, workers), daemon=True) for _ in range(workers)]
        for thread in self.threads:
            thread.start()
        self.wait()

    def wait(self) -> None:
        for thread in self.threads:
            while thread.is_alive():
                # In short waits, so that Ctrl-C is heard.
                thread.join(0.5)

    def work(self, queue: collections.deque[Spec], workers: int) -> None:
        while not self.stop.is_set():
            with self.lock:
                batch = self.batch(queue, workers)
                number = next(self.context.numbers)
            if not batch:
                return
            one = Process(self.context, batch, number)
            left = one.run(self.report, self.stop.is_set)
            with self.lock:
                queue.extend(spec for spec in left if self.again(spec, one))

    def batch(self, queue: collections.deque[Spec], workers: int) -> list[Spec]:
        """The next tests for one process. One that will be told to stop, which ends its process, gets its own."""
        batch: list[Spec] = []
        while queue and len(batch) < max(1, min(BATCH, len(queue) // workers)):
            if self.context.waits(queue[0].name):
                return batch or [queue.popleft()]
            batch.append(queue.popleft())
        return batch

    def again(self, spec: Spec, one: Process) -> bool:
        """Whether a test that did not get its turn gets another; called with the lock held."""
        if one.done:
            return True
        self.turns[spec.name] += 1
        if self.stop.is_set() or self.turns[spec.name] < TURNS:
            return True
        why = f"the test program did not come to this test: {process.ending(one.child.returncode)}\n{one.tail()}"
        self.record(Result(spec.name, "failed", 0, why))
        return False

    def report(self, result: Result) -> None:
        with self.lock:
            self.record(result)

    def record(self, result: Result) -> None:
        self.results.append(result)
        mark = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[result.outcome]
        say.line(f"{len(self.results):>3}/{len(self.specs)} {mark} {result.seconds:5.0f} s  {result.name}")
        if result.outcome == "failed":
            say.line(f"               {first_line(result.message)}")
