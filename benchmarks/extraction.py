"""Extraction: its ceiling (decoding and the network, each alone on all cores), the whole command, and peers."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.images import write_manifest
from benchmarks.timing import Rates, in_processes, in_sequence, in_threads, in_turn, ratio
from tlcache.backbones.engines import ENGINES, default_batch, find_device, open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.model import Model
from tlcache.backbones.network import Network
from tlcache.errors import DeviceError
from tlcache.extraction.extract import extract
from tlcache.images import Preprocess, prepare
from tlcache.threads import available_cpus

__all__ = ["Bench", "Variant", "measure_backbone", "measure_large_photos", "measure_network", "variants_here"]

BATCH = 32  # measurements take multiples of it for every thread, and a few at least
LEAST_BATCHES = 5


@dataclass(frozen=True)
class Variant:
    """One way to run a network: engine and precision."""

    engine: str
    precision: str

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.engine} {self.precision}"


def variants_here(device: str) -> list[Variant]:
    """Return what this machine can run; of OpenVINO, the fastest precision that it has here."""
    able: dict[str, list[Variant]] = {name: [] for name in ENGINES}
    for engine, row in ENGINES.items():
        for precision in row.precisions.get(device, ()):
            with suppress(DeviceError):
                find_device(device, engine, precision)
                able[engine].append(Variant(engine, precision))
    return able["onnxruntime"] + able["openvino"][-1:]


@dataclass(frozen=True)
class Bench:
    """What all measurements share.

    Parameters
    ----------
    photos
        Image files in class folders, with different bytes.
    seconds
        How long one measurement should last.
    rounds
        How often contenders take turns.
    quick
        Try fewer settings of peers, and each for a shorter time.
    variants
        The ways to run networks that are to be compared.
    device
        `cpu` or `cuda`.
    """

    photos: Sequence[Path]
    seconds: float
    rounds: int
    quick: bool
    variants: Sequence[Variant]
    device: str

    @property
    def folder(self) -> Path:
        """The folder of the class folders."""
        return self.photos[0].parents[1]

    @cached_property
    def threads(self) -> int:
        """Threads of an extraction: one per CPU that this process may use."""
        return available_cpus()

    def count(self, rate: float) -> int:
        """Return how many images a measurement takes at this rate: whole batches for every thread."""
        step = self.threads * BATCH
        return min(len(self.photos) // step * step, max(LEAST_BATCHES * step, round(rate * self.seconds / step) * step))


def measure_backbone(bench: Bench, name: str, advance: Callable[[int], None]) -> dict[str, Any]:
    """Measure one backbone with every engine and precision, and its peers, in turn."""
    model = load_model(name, "random")
    decode = partial(_decode_rate, bench, model.preprocess)
    contenders: dict[str, Callable[[], float]] = {}
    for variant in bench.variants:
        network = _Network(bench, name, variant)
        count = bench.count(2 * network.guess())  # its stretches grow as it goes on
        contenders |= {  # the parts before and after the whole, as the machine's pace changes
            f"decode before {variant.name}": decode,
            f"network before {variant.name}": partial(network.rate, count // 2),
            f"extract {variant.name}": _Extraction(bench, name, variant, count),
            f"network after {variant.name}": partial(network.rate, count // 2),
            f"decode after {variant.name}": decode,
        }
    chosen = _best_peers(bench, name, advance)
    for peer in chosen:
        contenders[f"peer {peer.variant}"] = partial(
            peers.measure, peer, name, bench.folder, bench.seconds, bench.device
        )
    rates = in_turn(contenders, bench.rounds, advance)
    return {
        "backbone": name,
        "engines": [_engine_row(rates, variant) for variant in bench.variants],
        "peers": [{**vars(peer), **rates[f"peer {peer.variant}"].as_json()} for peer in chosen],
        "ratios": {
            f"{variant.name} / {peer.variant}": ratio(
                rates[f"extract {variant.name}"], rates[f"peer {peer.variant}"]
            ).as_json("ratio")
            for variant in bench.variants
            for peer in chosen
        },
    }


def measure_network(bench: Bench, name: str) -> dict[str, Any]:
    """Measure a network alone with every engine and precision, once and briefly."""
    rates = {}
    for variant in bench.variants:
        network = _Network(bench, name, variant)
        rates[variant.name] = network.rate(round(network.guess() * bench.seconds / 2))
    return {"backbone": name, "network_images_per_s": rates}


def _engine_row(rates: dict[str, Rates], variant: Variant) -> dict[str, Any]:
    decode, network = (
        in_sequence(rates[f"{part} before {variant.name}"], rates[f"{part} after {variant.name}"], 2)
        for part in ("decode", "network")
    )
    whole = rates[f"extract {variant.name}"]
    bound = in_sequence(decode, network)
    return {
        "engine": variant.engine,
        "precision": variant.precision,
        "decode": decode.as_json(),
        "network": network.as_json(),
        "bound": bound.as_json(),
        "extract": whole.as_json(),
        "of_bound": ratio(whole, bound).as_json("ratio"),
    }


def _decode_rate(bench: Bench, preprocess: Preprocess) -> float:
    """Decode and resize into a buffer for a batch, on every core; the files' bytes are in memory."""
    data = [path.read_bytes() for path in bench.photos[: bench.count(500)]]
    buffers = threading.local()

    def decode(start: int) -> None:
        if not hasattr(buffers, "pixels"):
            buffers.pixels = np.empty((BATCH, 3, preprocess.crop, preprocess.crop), np.uint8)
        for each, pixels in zip(data[start : start + BATCH], buffers.pixels, strict=True):
            prepare(each, preprocess, pixels)

    return BATCH * in_processes(decode, range(0, len(data), BATCH), bench.threads)


class _Network:
    """A network alone: every thread runs batch after batch of the same decoded images."""

    def __init__(self, bench: Bench, name: str, variant: Variant) -> None:
        self.bench, self.model = bench, load_model(name, "random", precision=variant.precision)
        self.network, self.batch = _ready(bench, self.model, variant)

    def rate(self, images: int) -> float:
        calls = max(self.bench.threads, images // len(self.batch))
        seconds = in_threads(lambda _: self.network.embed(self.batch), range(calls), self.bench.threads)
        return calls * len(self.batch) / seconds

    def guess(self) -> float:
        self.rate(1)
        return self.rate(2 * self.bench.threads * len(self.batch))


def _ready(bench: Bench, model: Model, variant: Variant) -> tuple[Network, NDArray[np.uint8]]:
    size = default_batch(variant.engine, bench.device, model.preprocess.crop)
    network = open_network(model.onnx(), bench.device, engine=variant.engine, precision=variant.precision, batch=size)
    batch = np.stack([prepare(path.read_bytes(), model.preprocess)[0] for path in islice(bench.photos, size)])
    return network, batch


class _Extraction:
    """The whole of `extract`, on many images and on few: the difference is free of what starting costs."""

    def __init__(self, bench: Bench, name: str, variant: Variant, images: int) -> None:
        self.bench, self.name, self.variant, self.images = bench, name, variant, images
        self.few = bench.threads * BATCH

    def __call__(self) -> float:
        short = self._quick_start_s if self.bench.quick else self._seconds(self.bench.photos[-self.few :])
        return (self.images - self.few) / (self._seconds(self.bench.photos[: self.images]) - short)

    @cached_property
    def _quick_start_s(self) -> float:
        return self._seconds(self.bench.photos[-self.few :])

    def _seconds(self, photos: Sequence[Path]) -> float:
        with tempfile.TemporaryDirectory(dir=self.bench.folder.parent) as scratch:
            done = extract(
                write_manifest(photos),
                self.name,
                "random",
                device=self.bench.device,
                engine=self.variant.engine,
                precision=self.variant.precision,
                features=Path(scratch),
            )
            return done.seconds["wall_s"]


def _best_peers(bench: Bench, name: str, advance: Callable[[int], None]) -> list[peers.Peer]:
    """Return the fastest setting of each variant, each tried once and briefly."""
    tried: dict[peers.Peer, float] = {}
    for peer in peers.candidates(bench.threads, bench.quick):
        tried[peer] = peers.measure(peer, name, bench.folder, bench.seconds / 4, bench.device)
        advance(1)
    best = {peer.variant: peer for peer in sorted(tried, key=lambda peer: tried[peer])}
    if peers.has_timm(name):
        best["timm"] = replace(best["fp32"], variant="timm")
    return list(best.values())


def measure_large_photos(
    bench: Bench, name: str, photos: Sequence[bytes], advance: Callable[[int], None]
) -> dict[str, Any]:
    """Measure decode + network on large JPEGs, decoded at a reduced size where possible, and always at full size."""
    model = load_model(name, "random")
    network, batch = _ready(bench, model, bench.variants[0])
    full = replace(model.preprocess, jpeg_size="full")

    def rate(preprocess: Preprocess) -> float:
        def work(start: int) -> None:
            picked = [photos[(start + number) % len(photos)] for number in range(len(batch))]
            network.embed(np.stack([prepare(data, preprocess)[0] for data in picked]))

        calls = bench.threads * max(1, round(bench.seconds))
        return calls * len(batch) / in_threads(work, range(calls), bench.threads)

    rates = in_turn({"reduced": partial(rate, model.preprocess), "full": partial(rate, full)}, bench.rounds, advance)
    return {
        "backbone": name,
        "reduced": rates["reduced"].as_json(),
        "full": rates["full"].as_json(),
        "speedup": ratio(rates["reduced"], rates["full"]).as_json("ratio"),
    }
