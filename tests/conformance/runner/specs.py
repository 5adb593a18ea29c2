"""Which tests there are, and which of them a run takes."""

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import say

CONFORMANCE = r"\[Conformance\]"
SIG = re.compile(r"\[sig-([a-z-]+)\]")


@dataclass(frozen=True)
class Spec:
    name: str
    serial: bool

    @property
    def sig(self) -> str:
        found = SIG.search(self.name)
        return found[1] if found else "?"


def conformance(built: Path) -> list[Spec]:
    """Every conformance test, from a dry run."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [built / "e2e.test", "--provider=skeleton", "--ginkgo.dry-run", f"--ginkgo.focus={CONFORMANCE}",
                   f"--ginkgo.json-report={report}"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode != 0:
            raise say.Problem(f"the tests cannot be listed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        reports = json.loads(report.read_text())
    return [spec(entry) for suite in reports for entry in suite["SpecReports"]
            if entry["LeafNodeType"] == "It" and entry["State"] == "passed"]


def spec(entry: dict) -> Spec:
    name = " ".join([*(entry["ContainerHierarchyTexts"] or []), entry["LeafNodeText"]])
    return Spec(name, bool(entry.get("IsSerial")) or "[Serial]" in name)


def choose(specs: list[Spec], focus: str | None, skip: str | None, sig: str | None, names: list[str] | None) -> list[Spec]:
    chosen = [spec for spec in specs
              if (not focus or re.search(focus, spec.name)) and not (skip and re.search(skip, spec.name))
              and (not sig or spec.sig == sig.removeprefix("sig-")) and (names is None or spec.name in names)]
    unknown = sorted(set(names or []) - {spec.name for spec in specs})
    if unknown:
        raise say.Problem("there are no such conformance tests:\n  " + "\n  ".join(unknown))
    if not chosen:
        raise say.Problem("no conformance test fits that choice")
    return chosen


def pattern(specs: list[Spec]) -> str:
    """A regular expression of Go that fits these tests and no other."""
    return "(" + "|".join(re.sub(r"([^\w\s])", r"\\\1", spec.name) for spec in specs) + ")$"
