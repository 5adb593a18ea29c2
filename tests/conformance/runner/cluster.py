"""The cluster under test: two hosts in network namespaces of this machine, and a third namespace between them."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import images, say

SUBNET = "10.99.0"
# The namespace with the bridge; the tests run there, as on a machine beside the nodes.
OUTSIDE = f"{SUBNET}.254"
READY_SECONDS = 180
STOP_SECONDS = 30


class Node:
    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.name = f"node-{number}"
        self.namespace = f"{cluster.id}n{number}"
        self.address = f"{SUBNET}.{number}"
        self.folder = cluster.folder / self.name
        self.log = cluster.logs / f"{self.name}.log"
        self.processes: list[subprocess.Popen] = []

    def own_flags(self) -> list[str]:
        """What keeps this node apart from others under the same kernel."""
        return [f"--data-dir={self.folder / 'data'}", f"--run-dir=/run/{self.namespace}",
                f"--pod-log-dir={self.folder / 'log'}", f"--cgroup-root=/{self.namespace}"]

    def inside(self, *command: str | Path) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *map(str, command)]

    def start(self, *flags: str) -> None:
        """`kedge FLAGS…` as this host, after its images and its registry are in place."""
        archives = self.folder / "data" / "agent" / "images"
        archives.mkdir(parents=True)
        (archives / "conformance.tar").symlink_to(self.cluster.layout / "images.tar")
        (self.folder / "config.yaml").touch()
        port = images.REGISTRY.rpartition(":")[2]
        self.spawn("registry", "python3", Path(__file__).parent / "registry.py", self.cluster.layout, port)
        config = f"--config={self.folder / 'config.yaml'}"
        self.spawn(self.name, self.cluster.kedge, *flags, config, f"--node-name={self.name}", *self.own_flags())

    def spawn(self, what: str, *command: str | Path) -> None:
        with open(self.cluster.logs / f"{what}.log", "ab") as log:
            process = subprocess.Popen(self.inside(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
        self.processes.append(process)

    def stop(self) -> None:
        for process in reversed(self.processes):
            end(process)
        if not self.folder.exists():
            return
        removed = subprocess.run(self.inside(self.cluster.kedge, "uninstall", "--keep-binary", *self.own_flags()),
                                 capture_output=True, text=True)
        if removed.returncode != 0:
            say.line(f"{self.name}: uninstall: {removed.stdout}{removed.stderr}")


class Cluster:
    def __init__(self, kedge: Path, layout: Path, folder: Path, logs: Path, nodes: int) -> None:
        self.kedge = kedge
        self.layout = layout
        self.folder = folder
        self.logs = logs
        self.id = f"kc{os.getpid()}"
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.nodes = [Node(self, number + 1) for number in range(nodes)]

    def inside(self, *command: str | Path) -> list[str]:
        """A command on the machine beside the nodes."""
        return ["nsenter", f"--net=/run/netns/{self.id}", "--", *map(str, command)]

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.connect()
        first, *others = self.nodes
        first.start("server", f"--write-kubeconfig={self.kubeconfig}")
        self.wait("the API", lambda: self.kubectl("get", "--raw", "/readyz") == "ok")
        for node in others:
            token = (first.folder / "data" / "server" / "node-token").read_text().strip()
            node.start("agent", f"--server=https://{first.address}:6443", f"--token={token}")
        self.wait(f"{len(self.nodes)} nodes Ready", lambda: self.ready_nodes() == len(self.nodes))
        self.wait("the images", lambda: self.imported() == len(self.nodes))

    def connect(self) -> None:
        bridge = [f"ip netns add {self.id}", f"ip -n {self.id} link add br0 type bridge",
                  f"ip -n {self.id} addr add {OUTSIDE}/24 dev br0",
                  f"ip -n {self.id} link set br0 up", f"ip -n {self.id} link set lo up"]
        for node in self.nodes:
            name = node.namespace
            bridge += [f"ip netns add {name}", f"ip -n {name} link set lo up",
                       f"ip link add eth0 netns {name} type veth peer name {node.name} netns {self.id}",
                       f"ip -n {self.id} link set {node.name} master br0 up",
                       f"ip -n {name} addr add {node.address}/24 dev eth0", f"ip -n {name} link set eth0 up",
                       f"ip -n {name} route add default via {OUTSIDE}"]
        for command in bridge:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode != 0:
                raise say.Problem(f"{command}: {done.stderr.strip()}")

    def wait(self, what: str, ready) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            for node in self.nodes:
                if any(process.poll() is not None for process in node.processes):
                    raise say.Problem(f"{node.name} ended: see {node.log}")
            if time.monotonic() > deadline:
                raise say.Problem(f"{what}: not after {READY_SECONDS} s; see {self.logs}")
            time.sleep(0.5)

    def kubectl(self, *arguments: str) -> str | None:
        """Standard output, or None where the command failed."""
        command = self.inside("kubectl", f"--kubeconfig={self.kubeconfig}", "--request-timeout=20s", *arguments)
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else None

    def ready_nodes(self) -> int:
        found = json.loads(self.kubectl("get", "nodes", "-o", "json") or '{"items": []}')
        conditions = [condition for node in found["items"] for condition in node["status"].get("conditions", [])]
        return sum(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def imported(self) -> int:
        """Nodes that have imported the images: they remember the archive in a file."""
        files = [node.folder / "data" / "agent" / "imported.json" for node in self.nodes]
        return sum(file.exists() and "conformance.tar" in file.read_text() for file in files)

    def stop(self) -> None:
        """Leaves nothing behind; may be called at any time and twice."""
        for node in reversed(self.nodes):
            node.stop()
        for namespace in [*(node.namespace for node in self.nodes), self.id]:
            if Path(f"/run/netns/{namespace}").exists():
                subprocess.run(["ip", "netns", "del", namespace])
        shutil.rmtree(self.folder, ignore_errors=True)


def end(process: subprocess.Popen) -> None:
    """SIGTERM, and after a while SIGKILL."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
