"""passing.txt: the tests that pass and are to go on passing; and which of them CI takes today."""

import random
from dataclasses import dataclass

from . import paths, report
from .results import Result

# Where no run has said how long a test takes.
UNKNOWN_SECONDS = 30.0
# A single test that takes longer than this is left to full runs.
LONGEST_SECONDS = 120.0
HEAD = """# Conformance tests that passed in two full runs in a row, with the seconds each took when it came in. Written by full
# runs; lines are only added.
# CI runs a part of them that another seed chooses each time, and fails when one of them fails.
"""


@dataclass(frozen=True)
class Passing:
    seconds: float
    name: str


def read() -> list[Passing]:
    if not paths.PASSING.exists():
        return []
    lines = [line for line in paths.PASSING.read_text().splitlines() if line and not line.startswith("#")]
    return [Passing(float(seconds), name) for seconds, name in (line.split(" ", 1) for line in lines)]


def grow(results: list[Result], before: list[Result]) -> int:
    """Add what passed in two full runs in a row, so that no flake comes in; how many came in."""
    known = read()
    names = {passing.name for passing in known}
    twice = {result.name for result in before if result.outcome == "passed"} - names
    new = [Passing(round(result.seconds, 1), result.name) for result in results
           if report.counts(result) and result.name in twice]
    if not new:
        return 0
    everything = sorted([*known, *new], key=lambda passing: passing.name)
    paths.PASSING.write_text(HEAD + "".join(f"{passing.seconds:g} {passing.name}\n" for passing in everything))
    return len(new)


def choose(passing: list[Passing], seed: int, seconds: float, parallel: int) -> list[Passing]:
    """As many as should fit; the same for the same seed and list."""
    order = [passing for passing in passing if passing.seconds <= LONGEST_SECONDS]
    random.Random(seed).shuffle(order)
    chosen, spent = [], 0.0
    for one in order:
        # Serial tests have the cluster for themselves.
        cost = one.seconds if "[Serial]" in one.name else one.seconds / parallel
        if spent + cost <= seconds:
            chosen.append(one)
            spent += cost
    return sorted(chosen, key=lambda one: one.name)
