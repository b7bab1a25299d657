"""A Ray cluster of two nodes inside this machine, in a process of its own; each node has one CPU.

By hand: ``.venv/bin/python tests/archive/ray_cluster.py --clips 100 --deaths 5``
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.archive.batches import contents, published, write_archive

VMKLA = str(Path(sys.executable).with_name("vmkla"))

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

temporary = {"num_cpus": 1, "include_dashboard": False, "temp_dir": sys.argv[1]}
cluster = Cluster(initialize_head=True, head_node_args=temporary)
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(second, allow_graceful=False)
    elif line.strip() == "add":
        second = cluster.add_node(num_cpus=1)
    else:
        break
    print("done", flush=True)
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
        self._say("kill")

    def add_node(self) -> None:
        """Add a node in place of one that was killed."""
        self._say("add")

    def _say(self, what: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Start the cluster, with a token of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="vr") as folder:  # a short path: sockets lie below it
        Path(folder, "ray").mkdir()  # Ray notes the cluster there, and does not make it beside a temp_dir
        token = Path(folder, "token")
        token.write_text(os.urandom(24).hex())
        environment = {
            **os.environ,
            "HOME": folder,
            "RAY_TMPDIR": folder,
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
            yield TwoNodes(address, environment, process)
            process.communicate("end\n", timeout=60)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class NodeDeaths:
    """A batch whose cluster loses nodes.

    Attributes:
        status: exit status of the command.
        messages: what it printed to standard error.
        left: pieces that were not published at the last death.
        records: lines of ``status.jsonl``.
    """

    status: int
    messages: str
    left: int
    records: list[dict[str, object]]


def run_with_node_deaths(
    command: Sequence[str], out: Path, pieces: int, deaths: int, working_folder: Path
) -> NodeDeaths:
    """Run a batch on two nodes, one of which is killed, and replaced, at equal shares of the pieces.

    Args:
        command: arguments of ``vmkla`` without executor and folder.
        out: folder of the batch.
        pieces: number of pieces that are published in the end.
        deaths: number of nodes that are killed, one after another.
        working_folder: where the command is started.
    """
    with two_nodes() as cluster:
        process = subprocess.Popen(
            [VMKLA, *command, "--out", str(out), "--executor", "ray", "--ray-address", cluster.address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=cluster.environment,
            cwd=working_folder,
            text=True,
        )
        for death in range(deaths):
            until_s = time.monotonic() + 240
            due = max(2, pieces * death // deaths)
            while published(out) < due and process.poll() is None and time.monotonic() < until_s:
                time.sleep(0.02)
            if death:
                cluster.add_node()
                while len(os.listdir(out / ".batch" / "work")) < 2 and process.poll() is None:
                    time.sleep(0.02)  # until it has work
            cluster.kill_node()
            left = pieces - published(out)
        _, messages = process.communicate(timeout=3600)
    records = [json.loads(line) for line in (out / "status.jsonl").read_text().splitlines()]
    return NodeDeaths(process.returncode, messages, left, records)


def main() -> None:
    """Kill nodes by hand, in a temporary folder, and compare with a batch of local workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--deaths", type=int, default=5)
    parser.add_argument("--model", default="nano")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive, out = write_archive(Path(folder, "archive"), arguments.clips, frames=10), Path(folder, "out")
        command = ["batch", str(archive), "--model", arguments.model, "--workers", "2", "--threads", "1"]
        subprocess.run([VMKLA, *command, "--out", f"{folder}/local"], check=True)
        ran = run_with_node_deaths(command, out, arguments.clips, arguments.deaths, Path(folder))
        assert ran.status == 0 and ran.left > 0, ran.messages
        assert contents(out / "results") == contents(Path(folder, "local", "results"))
    attempts = sum(int(str(record["attempts"])) for record in ran.records)
    print(f"{arguments.clips} clips, {arguments.deaths} deaths of nodes, {attempts} attempts, results equal")


if __name__ == "__main__":
    main()
