"""The score: as a table for the person in front of it, and as the page in the repository."""

import collections
import functools
import re
from pathlib import Path

from . import paths, say
from .results import Result, first_line

HOLLOW = "hollow"
DEFECTS = "kedge claims to do this: defects to mend"


def totals(results: list[Result]) -> list[list[str]]:
    """SIG, all, passed, failed, skipped; and a last row with the sums."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for result in results:
        counts[result.sig][result.outcome] += 1
    rows = [row(f"sig-{sig}", count) for sig, count in sorted(counts.items())]
    return [*rows, row("all", sum(counts.values(), collections.Counter()))]


def row(name: str, count: collections.Counter) -> list[str]:
    return [name, *(str(n) for n in [count.total(), count["passed"], count["failed"], count["skipped"]])]


def failed(results: list[Result]) -> list[Result]:
    return sorted((result for result in results if result.outcome == "failed"), key=lambda result: result.name)


def show(results: list[Result]) -> None:
    for result in failed(results):
        say.line(f"FAIL {result.name}\n     {first_line(result.message)}")
    say.line("")
    heads = ["SIG", "tests", "passed", "failed", "skipped"]
    for cells in [heads, *totals(results)]:
        say.line(f"{cells[0]:<24}" + "".join(f"{cell:>9}" for cell in cells[1:]))


@functools.cache
def lines() -> list[tuple[str, re.Pattern]]:
    text = [line for line in paths.CAPABILITIES.read_text().splitlines() if line and not line.startswith("#")]
    return [(name.strip(), re.compile(pattern.strip())) for name, pattern in (line.split("|", 1) for line in text)]


def capabilities() -> list[tuple[str, re.Pattern]]:
    """What a failing test may wait for, in order: the first that fits its name counts."""
    return [(what, pattern) for what, pattern in lines() if what != HOLLOW]


def capability(name: str, table: list[tuple[str, re.Pattern]]) -> str:
    return next((what for what, pattern in table if pattern.search(name)), DEFECTS)


def changes(results: list[Result], before: list[Result]) -> list[str]:
    """Tests that came out otherwise than in the run before."""
    earlier = {result.name: result.outcome for result in before}
    return [f"{result.name}: {earlier[result.name]}, then {result.outcome}" for result in sorted(results, key=lambda r: r.name)
            if earlier.get(result.name, result.outcome) != result.outcome]


def page(results: list[Result], about: dict, before: tuple[dict, list[Result]] | None) -> str:
    passed = sum(counts(result) for result in results)
    empty = sum(result.outcome == "passed" for result in results) - passed
    parts = [
        "# Conformance\n\nWritten by `tests/conformance/run` from a full run; not edited by hand.\n",
        f"**{passed} of {len(results)}** tests of Kubernetes' own conformance suite {about['suite']} pass"
        + (f", and {empty} end without a failure for want of what they are about.\n" if empty else ".\n"),
        table([["what", ""], ["date", about["date"]], ["commit", about["commit"]],
               ["machine", about["machine"]], ["nodes", str(about["nodes"])],
               ["build of the tests and of kubectl (cached)", about["build"]],
               ["making the images (cached)", about["images"]],
               ["start of the cluster", about["start"]],
               ["tests, parallel and serial", f"{about['run']} ({about['parallel']} at once)"]]),
        table([["SIG", "tests", "passed", "failed", "skipped"], *totals(results)]),
        failures(results), hollow(results), comparison(results, before)]
    return "\n".join(parts)


def counts(result: Result) -> bool:
    """Passed, and not for want of what it is about: some tests end without a failure where that is not there."""
    return result.outcome == "passed" and not any(pattern.search(result.name) for what, pattern in lines() if what == HOLLOW)


def hollow(results: list[Result]) -> str:
    found = sorted(result.name for result in results if result.outcome == "passed" and not counts(result))
    if not found:
        return ""
    return "\n".join(["## Passes, but says nothing yet\n", "kedge lacks what these tests are about; they end without a "
                      "failure. CI does not count on them.\n", *(f"- {plain(name)}" for name in found)]) + "\n"


def failures(results: list[Result]) -> str:
    known = capabilities()
    groups: dict[str, list[Result]] = collections.defaultdict(list)
    for result in failed(results):
        groups[capability(result.name, known)].append(result)
    if not groups:
        return ""
    order = sorted(groups, key=lambda what: (what != DEFECTS, -len(groups[what]), what))
    summary = table([["what the failing tests wait for", "tests"], *([what, str(len(groups[what]))] for what in order)])
    sections = [f"### {what}\n\n" + "\n".join(failure(result) for result in groups[what]) + "\n" for what in order]
    return "\n".join(["## What fails\n", summary, *sections])


def failure(result: Result) -> str:
    return f"- {plain(result.name)}\n  - `{first_line(result.message).replace('`', chr(39))}`"


def comparison(results: list[Result], before: tuple[dict, list[Result]] | None) -> str:
    if before is None:
        return ""
    about, earlier = before
    changed = changes(results, earlier)
    title = (f"## Other than in the run before\n\nOf commit {about['commit']}, {about['date']}. Where the commit is the same, "
             "these are flakes: ")
    if not changed:
        return title + "none.\n"
    return title + f"{len(changed)}.\n\n" + "\n".join(f"- {plain(line)}" for line in changed) + "\n"


def table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("|", "\\|")


def write(results: list[Result], about: dict, before: tuple[dict, list[Result]] | None, file: Path = paths.PAGE) -> None:
    file.write_text(page(results, about, before))
