"""What became of each test."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from .specs import SIG

# States that the tests' framework knows, as three.
OUTCOMES = {"passed": "passed", "skipped": "skipped", "pending": "skipped"}
LINE_CHARACTERS = 200


@dataclass
class Result:
    name: str
    outcome: str
    seconds: float
    message: str = ""
    place: str = ""
    began: str = ""

    @property
    def sig(self) -> str:
        found = SIG.search(self.name)
        return found[1] if found else "?"


def outcome(state: str) -> str:
    return OUTCOMES.get(state, "failed")


# What differs from run to run in the same failure, and what stands for it.
NOISE = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+\S*", "TIME"),
    (r"/\S+/kubectl\b", "kubectl"),
    (r" --(server|kubeconfig)=\S+", ""),
    (r"\b10\.4[23]\.\d+\.\d+", "IP"),
    (r"<[\w*./\[\]{} ]+ \| 0x[0-9a-f]+>:? ?", ""),
    (r"0x[0-9a-f]{6,}", "0x…"),
    (r"-\d{2,5}\b", "-N"),
    (r"after \d+\.\d+s", "after N s"),
]


def first_line(message: str) -> str:
    """The part of a failure that says most, on one line, and the same in every run."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    stack = next((i for i, line in enumerate(lines) if line.startswith("goroutine ")), len(lines))
    text = " ".join(lines[:stack])[: LINE_CHARACTERS * 10]
    for noise, instead in NOISE:
        text = re.sub(noise, instead, text)
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"


def save(results: list[Result], file: Path, about: dict) -> None:
    file.write_text(json.dumps({"about": about, "results": [asdict(result) for result in results]}, indent=1))


def load(file: Path) -> tuple[dict, list[Result]]:
    data = json.loads(file.read_text())
    return data["about"], [Result(**result) for result in data["results"]]


def junit(results: list[Result], file: Path, seconds: float) -> None:
    count = lambda wanted: str(sum(result.outcome == wanted for result in results))
    suite = ElementTree.Element("testsuite", name="conformance", tests=str(len(results)), failures=count("failed"),
                                skipped=count("skipped"), time=f"{seconds:.3f}")
    for result in results:
        case = ElementTree.SubElement(suite, "testcase", name=result.name, classname=f"sig-{result.sig}",
                                      time=f"{result.seconds:.3f}")
        if result.outcome == "failed":
            failure = ElementTree.SubElement(case, "failure", message=printable(first_line(result.message)))
            failure.text = printable(f"{result.message}\n{result.place}")
        elif result.outcome == "skipped":
            ElementTree.SubElement(case, "skipped", message=printable(first_line(result.message)))
    ElementTree.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)


def printable(text: str) -> str:
    """XML has no place for control characters."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)
