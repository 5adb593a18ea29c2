"""The Go programs: the conformance tests and what the test images hold. Built once per state of the module."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

from . import paths, say

# Program → package; None is our own test main.
PROGRAMS = {
    "e2e.test": None,
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "agnhost": "k8s.io/kubernetes/test/images/agnhost",
    "nnp": "k8s.io/kubernetes/test/images/nonewprivs",
    "regression-issue-74839": "k8s.io/kubernetes/test/images/regression-issue-74839",
    "consumer": "k8s.io/kubernetes/test/images/resource-consumer",
    "consume-cpu": "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu",
    "sample-apiserver": "k8s.io/sample-apiserver",
}
# Static, so that they run in any image; no debugger's tables, which halves time and size. Package lists stay the same
# for all, so that the compiled packages are shared.
FLAGS = ["-trimpath", "-gcflags=all=-dwarf=false",
         "-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=v1.37.1"
         " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"]
SOURCES = ["go.mod", "go.sum", "main_test.go", "results_test.go"]


def build() -> Path:
    """The directory that holds the programs."""
    key = paths.key(*[paths.HERE / source for source in SOURCES], " ".join(FLAGS))
    folder = paths.cache() / "programs" / key
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in PROGRAMS.items():
            if not (folder / name).exists():
                compile_one(name, package, folder)
    return paths.used(folder)


def compile_one(name: str, package: str | None, folder: Path) -> None:
    if not shutil.which("go"):
        raise say.Problem("there is no Go: the conformance tests need Go 1.26 (https://go.dev/dl)")
    say.line(f"building {name}")
    watch = say.Stopwatch()
    new = folder / f"{name}.new"
    verb = ["build"] if package else ["test", "-c", "-vet=off"]
    command = ["go", *verb, *FLAGS, "-o", str(new), package or "."]
    environment = dict(os.environ, CGO_ENABLED="0", GOFLAGS="-buildvcs=false -mod=readonly")
    if subprocess.run(command, cwd=paths.HERE, env=environment).returncode != 0:
        raise say.Problem(f"building {name} failed: {' '.join(command)}")
    new.rename(folder / name)
    paths.took(folder, float(watch))
    say.line(f"built {name} in {say.minutes(float(watch))}")


def sources(module: str) -> Path:
    """The unpacked sources of a module that the tests are made from."""
    command = ["go", "mod", "download", "-json", module]
    done = subprocess.run(command, cwd=paths.HERE, capture_output=True, text=True)
    if done.returncode != 0:
        raise say.Problem(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])
