"""A Ray cluster of two nodes inside this machine, in a process of its own; each node has one CPU."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

temporary = {"num_cpus": 1, "include_dashboard": False, "temp_dir": sys.argv[1]}
cluster = Cluster(initialize_head=True, head_node_args=temporary)
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


@dataclass(frozen=True)
class TwoNodes:
    """A running cluster.

    Attributes:
        address: where a driver connects.
        environment: variables with which drivers are accepted.
        process: the process that holds it.
    """

    address: str
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def kill_node(self) -> None:
        """Kill the second node."""
        self.say("killed")

    def say(self, answer: str = "") -> None:
        """Have the process take its next step."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if answer:
            assert self.process.stdout.readline() == f"{answer}\n"


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Start the cluster, with a token of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="vr") as folder:  # a short path: sockets lie below it
        token = Path(folder, "token")
        token.write_text(os.urandom(24).hex())
        environment = {
            **os.environ,
            "HOME": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", CLUSTER, f"{folder}/t"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert ":" in address, f"no cluster: {address}"
            cluster = TwoNodes(address, environment, process)
            yield cluster
            cluster.say()
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()
