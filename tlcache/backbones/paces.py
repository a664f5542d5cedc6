"""How fast networks run here, by engine and precision, and which engine is the fastest."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.calibration import made_images
from tlcache.backbones.engines import ENGINES, default_batch, find_device, open_network
from tlcache.backbones.model import Model
from tlcache.backbones.network import Network
from tlcache.backbones.onnx_weights import joined
from tlcache.errors import TlcacheError, first_line
from tlcache.files import cache_folder, write_whole
from tlcache.keys import hash_json
from tlcache.machine import hardware, versions
from tlcache.progress import say
from tlcache.threads import available_cpus, in_threads

__all__ = ["AUTO", "Way", "fastest_engine", "measure", "opened", "ways"]

AUTO = "auto"
_USUAL = "onnxruntime"
_ROUNDS = 3
_SECONDS = 0.3  # of a network in a round, when an engine is chosen
_CLEARLY = 1.1  # times as fast as the usual engine another has to be


@dataclass(frozen=True)
class Way:
    """An engine, a precision, and the device that they run on."""

    engine: str
    precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}" + (f" on {self.device}" if self.device != "cpu" else "")


def ways(device: str = "auto") -> Iterator[tuple[Way, str]]:
    """Yield every way to run a network on a device, or on all (`auto`), and why it cannot be had here, if it cannot."""
    for engine in ENGINES.values():
        for name, precisions in engine.precisions.items():
            for precision in precisions if device in ("auto", name) else ():
                try:
                    find_device(name, engine.name, precision)
                except TlcacheError as error:
                    yield Way(engine.name, precision, name), _reason(error)
                else:
                    yield Way(engine.name, precision, name), ""


def _reason(error: TlcacheError) -> str:
    """Return what is missing, without what was asked for and what to pass instead: nobody asked for it."""
    return first_line(error).partition(" was asked for, but ")[2].partition(". Pass ")[0] or first_line(error)


def opened(model: Model, way: Way) -> Network:
    """Return the network of a model, of the precision of the way, ready to run; errors are those of `open_network`."""
    size = default_batch(way.engine, way.device, model.preprocess.crop)
    return open_network(model.onnx(), way.device, engine=way.engine, precision=way.precision, batch=size)


def measure(networks: Sequence[tuple[Network, int]], images: NDArray[np.uint8], seconds: float) -> list[list[float]]:
    """Return the images per second of networks in each of three rounds, in which they take turns, on all cores.

    Parameters
    ----------
    networks
        Each with the number of images to give it at once.
    images
        uint8 (n, 3, H, W), which are taken again and again.
    seconds
        How long each runs in all.
    """
    found: list[list[float]] = [[] for _ in networks]
    for number in range(_ROUNDS):
        for place in list(range(len(networks)))[:: -1 if number % 2 else 1]:
            found[place].append(_rate(*networks[place], images, seconds / _ROUNDS))
    return found


def _rate(network: Network, size: int, images: NDArray[np.uint8], seconds: float) -> float:
    batch = np.resize(images, (size, *images.shape[1:]))
    network.rows(batch)  # warms up
    until = time.perf_counter() + seconds

    def work(_: int) -> tuple[int, float]:
        count, began = 0, time.perf_counter()
        while not count or time.perf_counter() < until:
            network.rows(batch)
            count += size
        return count, time.perf_counter() - began

    return sum(count / took for count, took in in_threads(work, range(available_cpus())))


def fastest_engine(model: Model, device: str = "auto") -> str:
    """Return the name of the engine that runs a network fastest here, in the precision of the model.

    Each that can is tried for a second, once: what was found is remembered in the cache folder for this network, this
    processor and these versions. It decides no key: engines of one precision differ in the last digits alone. ONNX
    Runtime is taken unless another is 10 % faster.
    """
    names = list(_able(device, model.precision))
    if len(names) < 2:
        return names[0] if names else _USUAL  # whose error says what is wrong
    found = _remembered(model, device, names)
    fastest = max(found, key=lambda name: found[name])
    return fastest if found[fastest] > _CLEARLY * found.get(_USUAL, 0.0) else _USUAL


def _able(device: str, precision: str) -> Iterator[str]:
    for name in ENGINES:
        with suppress(TlcacheError):
            find_device(device, name, precision)
            yield name


def _remembered(model: Model, device: str, names: Sequence[str]) -> dict[str, float]:
    machine = {"hardware": hardware(), "versions": versions()}
    place = cache_folder() / "paces" / f"{hash_json({'key': model.key, 'device': device, 'engines': names, **machine})}"
    with suppress(OSError, ValueError):
        return {name: float(rate) for name, rate in json.loads(place.read_bytes()).items()}
    found = _measured_apart(model, device, names)
    say(f"{model.name}: " + ", ".join(f"{name} {rate:,.0f} images/s" for name, rate in found.items()))
    with suppress(OSError):  # then it is measured again the next time
        write_whole(place, json.dumps(found).encode())
    return found


def _measured_apart(model: Model, device: str, names: Sequence[str]) -> dict[str, float]:
    """Return the pace of each engine, measured in a process of its own: threads of some survive no fork."""
    with tempfile.TemporaryDirectory(prefix="tlcache-") as folder:
        network = Path(folder, "network.onnx")
        network.write_bytes(joined(model.onnx()))
        request: dict[str, Any] = {
            "network": str(network),
            "engines": names,
            "device": device,
            "precision": model.precision,
        }
        request |= {"size": model.preprocess.size, "crop": model.preprocess.crop}
        command = [sys.executable, "-P", "-m", "tlcache.backbones.paces", json.dumps(request)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        say(f"The engines could not be compared, and {_USUAL} is taken: {' '.join(done.stderr[-200:].split())}")
        return {_USUAL: 0.0}


def _measure_here(request: Mapping[str, Any]) -> dict[str, float]:
    data, images, networks = Path(request["network"]).read_bytes(), made_images(8, *request["size"]), {}
    for engine in request["engines"]:
        with suppress(TlcacheError):  # one that does not take the network is not the fastest
            device = find_device(request["device"], engine, request["precision"])
            size = default_batch(engine, device, request["crop"])
            how = {"engine": engine, "precision": request["precision"], "batch": size}
            networks[engine] = (open_network(data, device, **how), size)
    rates = measure(list(networks.values()), images, _ROUNDS * _SECONDS)
    return {name: median(each) for name, each in zip(networks, rates, strict=True)}


if __name__ == "__main__":
    print(json.dumps(_measure_here(json.loads(sys.argv[1]))))  # noqa: T201
