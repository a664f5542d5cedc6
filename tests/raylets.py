"""Extractions on a Ray cluster of two nodes, raylets of this machine, with kills: `python tests/raylets.py`.

A worker, a node or the command itself is killed at a random moment; in the end the file has to be that of one machine.
Every batch that any worker begins is counted, so what was embedded twice is known.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import onnx
from fakes import tiny_network, write_photos
from test_shares import content

from tlcache.inventory.checks import verify

PER_CLASS, IMAGES = 80, 240
COUNTING = '''
"""Imported by every Python process that a raylet starts: its workers note each image, and take 30 ms more."""
import os, sys, time

if any(each.endswith("default_worker.py") for each in sys.orig_argv):
    from tlcache.backbones.network import Network

    embed = Network.embed

    def counted(network, images):
        with open(os.path.join(os.environ["EMBEDDED"], str(os.getpid())), "ab") as file:
            file.write(bytes(len(images)))
        time.sleep(0.03 * len(images))
        return embed(network, images)

    Network.embed = counted
'''


class Nodes:
    """A cluster of two nodes with a CPU each: commands run on the first, and the second may go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.address = self._cluster.address
        self.add()

    def add(self) -> None:
        """Have a second node."""
        self._second = self._cluster.add_node(num_cpus=1)

    def remove(self) -> None:
        """Kill the second node and all that runs on it."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def workers(self) -> list[int]:
        """Return the processes that are at a task."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self._cluster.list_all_nodes()]
        children = [pid for raylet in raylets for pid in _children(raylet)]
        return [pid for pid in children if b"ray::do_task" in _command(pid)]

    def shutdown(self) -> None:
        """End all of its processes."""
        self._cluster.shutdown()


@dataclass(frozen=True)
class Bench:
    """A few hundred images, a network that takes 30 ms for one on the cluster, and the file that one machine makes."""

    folder: Path
    content: dict[str, Any]

    @classmethod
    def make(cls, folder: Path) -> Bench:
        """Make them, and let workers count what they embed."""
        write_photos(folder / "photos", PER_CLASS)
        onnx.save(tiny_network(), folder / "tiny.onnx")
        (folder / "path").mkdir()
        (folder / "path" / "sitecustomize.py").write_text(COUNTING)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "path"), *filter(None, sys.path)])
        os.environ["EMBEDDED"] = str(folder / "embedded")
        (folder / "embedded").mkdir()
        bench = cls(folder, {})
        assert bench.start("alone").wait() == 0
        return cls(folder, bench.content_of("alone"))

    def start(self, features: str, *more: str) -> subprocess.Popen[bytes]:
        """Begin an extraction, as users do."""
        command = [sys.executable, "-m", "tlcache", "extract", "--model", "tiny.onnx", "--data", "photos"]
        command += ["--features", features, "--batch-size", "8", *more]
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(command, cwd=self.folder, stdout=said, stderr=said)

    def content_of(self, features: str) -> dict[str, Any]:
        """Return what the one feature file in a folder holds, which is sound."""
        (path,) = (self.folder / features).glob("*/*.h5")
        (check,) = verify([path])
        assert check.sound, check
        return content(path)

    def counts(self) -> list[int]:
        """Return how many images each worker embedded since the last run began."""
        return [path.stat().st_size for path in (self.folder / "embedded").iterdir()]

    def run(self, nodes: Nodes, kill: Callable[[subprocess.Popen[bytes]], object] | None, at: int = 0) -> float:
        """Extract, kill something when `at` images are embedded, and go on; return how many times each was embedded.

        Raises AssertionError where the file is not that of one machine, and what the kill does where nothing was there.
        """
        for path in (self.folder / "embedded").iterdir():
            path.unlink()
        command = self.start("features", "--ray", nodes.address)
        while kill and sum(self.counts()) < at and command.poll() is None:
            time.sleep(0.002)
        try:
            if kill:
                kill(command)
            status = command.wait()
            if status == -signal.SIGKILL:
                status = self.start("features", "--ray", nodes.address).wait()
            assert status == 0, (self.folder / "said").read_text()[-2000:]
            assert self.content_of("features") == self.content
            left = {path.suffix for path in (self.folder / "features" / "photos").iterdir()}
            assert left == {".h5", ".lock"}, left
            return sum(self.counts()) / IMAGES
        finally:
            if command.poll() is None:
                command.wait()
            shutil.rmtree(self.folder / "features", ignore_errors=True)


KILLS: dict[str, Callable[[Nodes, random.Random, subprocess.Popen[bytes]], object]] = {
    "worker": lambda nodes, chance, _: os.kill(chance.choice(nodes.workers()), signal.SIGKILL),
    "node": lambda nodes, *_: nodes.remove(),
    "command": lambda _, __, command: [os.kill(pid, signal.SIGKILL) for pid in (command.pid, *_children(command.pid))],
}


@contextmanager
def two_nodes() -> Iterator[tuple[Bench, Nodes]]:
    """Make a bench and a cluster, and end it."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):
        bench = Bench.make(Path(folder))
        nodes = Nodes()
        try:
            yield bench, nodes
        finally:
            nodes.shutdown()


def attempt(bench: Bench, nodes: Nodes, what: str, chance: random.Random) -> float:
    """Kill something in an extraction; say and return how many times each image was embedded."""

    def kill(command: subprocess.Popen[bytes]) -> None:
        time.sleep(chance.uniform(0, 0.3))  # a batch takes about that
        KILLS[what](nodes, chance, command)

    while True:
        at = chance.randrange(1, IMAGES)
        try:
            times = bench.run(nodes, kill, at)
            _say(f"{what} killed at {at} of {IMAGES} images: each embedded {times:.3f} times")
            return times
        except (IndexError, ProcessLookupError):  # nothing was there to kill at that moment
            continue
        finally:
            if what == "node":
                nodes.add()


def main() -> None:
    """Kill each of them so many times; the last line is JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with two_nodes() as (bench, nodes):
        _say(f"undisturbed: each image embedded {bench.run(nodes, None):.3f} times")
        found: dict[str, list[float]] = {what: [] for what in KILLS}
        for what in [*KILLS] * asked.times:
            found[what].append(attempt(bench, nodes, what, chance))
    for what, times in found.items():
        _say(f"{what}: {len(times)} kills, embedded twice {mean(times) - 1:.1%}, at most {max(times) - 1:.1%}")
    _say(json.dumps({"seed": asked.seed, "images": IMAGES, "embedded": found}))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _children(pid: int) -> list[int]:
    return [int(child) for each in Path(f"/proc/{pid}/task").glob("*/children") for child in each.read_text().split()]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


if __name__ == "__main__":
    main()
