"""Provoke real faults, many times, and count what was lost, unreadable or wrong: `make torture`, `python torture.py`.

Every stage works on a small dataset and a small network through the code that users run. A process that has imported
everything and started no threads forks one child per attempt, so that an attempt costs a fraction of a second; the
child is killed, meets a full disk, or reads what was damaged, and the parent looks at what is left.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fakes import SIDE, slow_network, tiny_network, write_image, write_photos
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stores import serving_apart

import tlcache.extraction.steps
import tlcache.extraction.target
import tlcache.extraction.worker
from tlcache.cache.feature_file import open_features
from tlcache.cache.shards import read_shard
from tlcache.errors import CacheError, TlcacheError
from tlcache.images import BadImageError, Preprocess, prepare
from tlcache.inventory.checks import _check

tlcache.extraction.worker.SHARD_SECONDS = 0.02  # many parts in little time
HERE = Path(__file__).parent
SIZES = {  # stage -> rounds in the tests, rounds in the long run
    "kill while embedding": (50, 200),
    "kill while reading an archive": (3, 100),
    "kill while reading a store": (3, 100),
    "store that fails": (5, 200),
    "cut archive": (6, 500),
    "kill while publishing": (50, 200),
    "full disk at every write": (40, 100_000),  # at most; there are as many as there are writes
    "file size limit": (10, 100),
    "bit flip in a feature file": (600, 20_000),
    "cut or zeroed feature file": (100, 2_000),
    "bit flip in a part": (300, 5_000),
    "mutated image": (1_500, 100_000),
    "mutated AVIF": (100, 20_000),
    "mutated DICOM": (300, 20_000),
    "mutated HEIC": (100, 20_000),
    "processes on one key, with kills": (30, 200),
}


@dataclass
class Outcome:
    """What came of one stage: `tried` times a fault; the others should be 0."""

    fault: str
    tried: int = 0
    lost: int = 0
    unreadable: int = 0
    wrong: int = 0
    died: int = 0
    seconds: float = 0.0
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, count: int = 1) -> None:
        self.notes[what] = self.notes.get(what, 0) + count


@dataclass(frozen=True)
class Bench:
    """A dataset and a model, and what an extraction that nothing disturbs makes of them."""

    folder: Path
    photos: Path
    model: Path
    content: dict[str, tuple[bytes, int]]
    seconds: float
    data: str = ""  # where the same images are, if not there

    @classmethod
    def make(cls, folder: Path, per_class: int, network: onnx.ModelProto) -> Bench:
        photos, model = write_photos(folder / "photos", per_class), folder / "model.onnx"
        onnx.save(network, model)
        begun = time.perf_counter()
        status = fork(lambda: extract(photos, model, folder / "reference"))
        seconds = time.perf_counter() - begun
        assert status == 0, status
        (path,) = (folder / "reference").glob("*/*.h5")
        return cls(folder, photos, model, content(path), seconds)

    def run(self, features: Path) -> dict[str, Any]:
        return extract(self.data or self.photos, self.model, features)

    def meet(self, features: Path, outcome: Outcome, trouble: Callable[[], object]) -> None:
        """Extract in a child that begins with `trouble`; count how it ends, and judge what it leaves."""

        def work() -> None:
            trouble()
            self.run(features)

        status = fork(work)
        outcome.tried += 1
        outcome.note("ended with a clear error", status == 3)
        outcome.died += status < 0
        outcome.wrong += status == 4
        self.check_file(features, outcome)
        self.judge(features, outcome)
        shutil.rmtree(features)

    def judge(self, features: Path, outcome: Outcome) -> None:
        """Run to the end without a fault and compare with the reference."""
        report = features.with_suffix(".json")
        status = fork(lambda: report.write_text(json.dumps(self.run(features))))
        files = list(features.glob("*/*.h5"))
        if status != 0 or len(files) != 1:
            outcome.unreadable += 1
        elif content(files[0]) != self.content:
            outcome.wrong += 1

    def embedded(self, features: Path) -> int:
        return int(json.loads(features.with_suffix(".json").read_text())["embedded"])

    def check_file(self, features: Path, outcome: Outcome) -> None:
        """Whatever file is visible must be whole and right."""
        for path in features.glob("*/*.h5"):
            try:
                if content(path) != self.content:
                    outcome.wrong += 1
            except CacheError:
                outcome.unreadable += 1


def extract(photos: Path | str, model: Path, features: Path) -> dict[str, Any]:
    done = tlcache.extraction.steps.extract_here(
        data=str(photos), model=str(model), features=str(features), weights="imagenet", pool=None, output=None,
        crop_borders=False, resize=None, crop=None, mean=None, std=None, device="cpu", name=None, seed=0,
        batch_size=4, max_bad=0.05, wait=True, engine="onnxruntime", precision="fp32",
    )  # fmt: skip
    return done.as_json()


def content(path: Path) -> dict[str, tuple[bytes, int]]:
    with open_features(path) as file:
        rows = file.split("train", "val", "test")
    return {
        name: (features.tobytes(), int(label))
        for name, features, label in zip(rows.paths, rows.features, rows.labels, strict=True)
    }


def start(work: Callable[[], object]) -> int:
    """Fork a child that does `work` and ends with 0, with 3 after a TlcacheError, with 4 after anything else."""
    child = os.fork()
    if child:
        return child
    status = 4
    try:
        work()
        status = 0
    except TlcacheError as error:
        status = 3
        sys.stderr.write(f"{error}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork(work: Callable[[], object]) -> int:
    """Return the exit status of a child that does `work`; negative after a signal."""
    return finish(start(work))


def kill_after(child: int, seconds: float) -> int:
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return finish(child)


def until_killed(rounds: Iterator[int], outcome: Outcome) -> Iterator[int]:
    """Yield every round until its kill came in time."""
    for number in rounds:
        before = outcome.tried
        while outcome.tried == before:
            yield number


def rows_in_parts(features: Path) -> int:
    found = [part for path in features.glob("*/.*.parts/*.safetensors") if (part := read_shard(path)) is not None]
    return len({sha256 for part in found for sha256 in part.sha256.tolist()})


def kill_while_embedding(
    outcome: Outcome,
    rounds: Iterator[int],
    chance: random.Random,
    folder: Path,
    place: Callable[[Bench], AbstractContextManager[str]] = lambda bench: nullcontext(str(bench.photos)),
) -> None:
    bench = Bench.make(folder, 12, slow_network())
    with place(bench) as data:
        kill_and_go_on(outcome, rounds, chance, folder, replace(bench, data=data))


def kill_and_go_on(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path, bench: Bench) -> None:
    features, n = folder / "features", len(bench.content)
    for _ in until_killed(rounds, outcome):
        kept = rows_in_parts(features)
        status = kill_after(start(lambda: bench.run(features)), chance.uniform(0, bench.seconds))
        outcome.tried += status == -signal.SIGKILL
        outcome.lost += max(0, kept - rows_in_parts(features)) if not list(features.glob("*/*.h5")) else 0
        bench.check_file(features, outcome)
        if list(features.glob("*/*.h5")) or chance.random() < 0.2:
            kept = rows_in_parts(features)
            finished = bool(list(features.glob("*/*.h5")))
            bench.judge(features, outcome)
            outcome.lost += 0 if finished else max(0, bench.embedded(features) - (n - kept))
            shutil.rmtree(features)


def archived(photos: Path, kind: str) -> Path:
    """Pack the photos beside them: zip or tar."""
    return Path(shutil.make_archive(str(photos), kind, photos))


@contextmanager
def stored(bench: Bench) -> Iterator[tuple[Path, Callable[[str, int], None]]]:
    """Serve the photos, and an archive of them, as an S3 store on loopback: yield its bucket, and how to fail."""
    bucket = bench.folder / "store" / "b"
    shutil.copytree(bench.photos, bucket / "photos")
    archived(bench.photos, "zip").rename(bucket / "photos.zip")
    with serving_apart(bucket.parent) as (url, fail):
        os.environ |= {
            **{f"AWS_{name}": "x" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION")},
            "AWS_ENDPOINT_URL": url, "TLCACHE_RETRY_S": "1",
        }  # fmt: skip
        yield bucket, fail


@contextmanager
def in_store(bench: Bench) -> Iterator[str]:
    with stored(bench):
        yield "s3://b/photos"


def failing_store(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    """Let a store answer 500, half, slowly, not at all, or change an archive meanwhile; then let it do as it should."""
    bench, features = Bench.make(folder, 12, slow_network()), folder / "features"
    with stored(bench) as (bucket, fail):
        for number in rounds:
            fault = ("500", "cut", "slow", "silent", "changed")[number % 5]
            one = replace(bench, data=f"s3://b/photos{'.zip' if fault == 'changed' or number % 2 else ''}")
            child = start(partial(one.run, features))
            time.sleep(chance.uniform(0, bench.seconds))
            if fault == "changed":
                (bucket / "new.zip").write_bytes(anew(bucket / "photos.zip", number))
                (bucket / "new.zip").rename(bucket / "photos.zip")
            else:
                fail(fault, chance.choice((1, 3, 10, 1_000)))
            began = time.perf_counter()
            status = finish(child)
            outcome.note("took over 10 s", time.perf_counter() - began > 10)
            fail("", 0)
            outcome.tried += 1
            outcome.note(f"{fault}: clear error" if status == 3 else f"{fault}: went on", status in (0, 3))
            outcome.died += status < 0
            outcome.wrong += status == 4
            kept = rows_in_parts(features)
            one.check_file(features, outcome)
            finished = bool(list(features.glob("*/*.h5")))
            one.judge(features, outcome)
            outcome.lost += 0 if finished else max(0, one.embedded(features) - (len(bench.content) - kept))
            shutil.rmtree(features)


def anew(path: Path, number: int) -> bytes:
    """Return an archive with other bytes and the same images."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED) as new:
            new.comment = str(number).encode()
            for name in old.namelist():
                new.writestr(name, old.read(name))
    return stream.getvalue()


def cut_archive(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    """Cut or zero a part of a .zip or .tar: a clear error, or images that are the right ones; the whole one is read."""
    bench = Bench.make(folder, 12, tiny_network())
    whole = {kind: archived(bench.photos, kind).read_bytes() for kind in ("zip", "tar")}
    features, report = folder / "features", folder / "report.json"
    for number in rounds:
        kind = ("zip", "tar")[number % 2]
        path = bench.photos.with_suffix(f".{kind}")
        path.write_bytes(cut_or_zero(whole[kind], chance))
        one = replace(bench, data=str(path))
        status = fork(lambda one=one: report.write_text(json.dumps(one.run(features))))  # type: ignore[misc]
        outcome.tried += 1
        outcome.note("clear error" if status == 3 else "went on", status in (0, 3))
        outcome.died += status < 0
        outcome.wrong += status == 4
        for made in features.glob("*/*.h5"):
            outcome.wrong += any(bench.content.get(name) != row for name, row in content(made).items())
        path.write_bytes(whole[kind])
        one.judge(features, outcome)
        shutil.rmtree(features)


def kill_while_publishing(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    bench = Bench.make(folder, 40, tiny_network())
    full, features, real = folder / "full", folder / "features", tlcache.extraction.target.publish

    def stop(_: object) -> None:
        raise CacheError("parts are all there is")

    tlcache.extraction.target.publish = stop
    assert fork(lambda: bench.run(full)) == 3
    tlcache.extraction.target.publish = real
    for number in until_killed(rounds, outcome):
        shutil.copytree(full, features)
        if number % 2:  # an older file is to be replaced
            shutil.copytree(folder / "reference", features, dirs_exist_ok=True)
            write_image(bench.photos / "red" / "extra.png", 5, 2)
        ready, tell = os.pipe()

        def told(plan: Any, tell: int = tell) -> None:
            os.write(tell, b"x")
            real(plan)

        tlcache.extraction.target.publish = told
        child = start(lambda: bench.run(features))
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        status = kill_after(child, chance.uniform(0, 0.06))
        tlcache.extraction.target.publish = real
        outcome.tried += status == -signal.SIGKILL
        outcome.note("ended before the kill", status == 0)
        (bench.photos / "red" / "extra.png").unlink(missing_ok=True)
        for path in features.glob("*/*.h5"):
            seen = content(path)
            outcome.wrong += any(seen.get(name) != row for name, row in bench.content.items())
        bench.judge(features, outcome)
        outcome.lost += bench.embedded(features)
        shutil.rmtree(features)


def full_disk(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    if "FAULTS" not in os.environ:
        outcome.note("no C compiler: not tried")
        return
    shim = ctypes.CDLL(os.environ["FAULTS"])
    bench = Bench.make(folder, 12, tiny_network())
    features, counted = folder / "features", folder / "count"

    def count() -> None:
        shim.faults_arm(0, os.fsencode(features))
        bench.run(features)
        counted.write_text(str(shim.faults_count()))

    assert fork(count) == 0
    shutil.rmtree(features)
    writes, wanted = int(counted.read_text()), list(rounds)
    outcome.note("writes in one extraction", writes)
    numbers = sorted(chance.sample(range(1, writes + 1), min(writes, len(wanted))))
    for number in numbers:
        bench.meet(features, outcome, partial(shim.faults_arm, number, os.fsencode(features)))


def size_limit(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    bench = Bench.make(folder, 30, tiny_network())
    features = folder / "features"
    (path,) = (folder / "reference").glob("*/*.h5")
    for _ in rounds:
        limit = int(path.stat().st_size ** chance.random())
        bench.meet(features, outcome, partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)))


def in_children(
    outcome: Outcome, rounds: Iterator[int], folder: Path, attempt: Callable[[int, Outcome], None], batch: int = 250
) -> None:
    """Do attempts in children, a batch each; a child that dies of a signal is counted and the next one goes on."""
    todo = list(rounds)
    report, mark = folder / "report.json", folder / "mark"
    while todo:

        def work(numbers: list[int] = todo[:batch]) -> None:
            found = Outcome("")
            for number in numbers:
                mark.write_text(str(number))
                attempt(number, found)
                found.tried += 1
            report.write_text(json.dumps(vars(found)))

        status = fork(work)
        if status == 0:
            found = json.loads(report.read_text())
            for name in ("tried", "lost", "unreadable", "wrong"):
                setattr(outcome, name, getattr(outcome, name) + found[name])
            for what, count in found["notes"].items():
                outcome.note(what, count)
            todo = todo[batch:]
        else:
            guilty = int(mark.read_text())
            outcome.died += 1
            outcome.note(f"died: {guilty}")
            todo.remove(guilty)


def read_damaged(path: Path, good: dict[str, tuple[bytes, int]], header: dict[str, Any], found: Outcome) -> None:
    """Verify a damaged file; what verify calls sound, and what can be read of it, must be what was written."""
    check = _check(path)
    try:
        with open_features(path) as file:
            attrs, quarantine, classes = file.attrs, file.quarantine, file.classes
        seen = content(path)
    except CacheError:
        found.note("noticed")
        if check.sound:  # a sound file can be read
            found.wrong += 1
        return
    found.note("harmless")
    if seen != good or (attrs, quarantine, classes) != tuple(header.values()):
        found.wrong += 1
    if not check.sound:
        found.note("noticed by verify alone")


def flip_feature_file(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    damage_feature_file(outcome, rounds, chance, folder, flip)


def cut_feature_file(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    damage_feature_file(outcome, rounds, chance, folder, cut_or_zero)


def damage_feature_file(
    outcome: Outcome,
    rounds: Iterator[int],
    chance: random.Random,
    folder: Path,
    damage: Callable[[bytes, random.Random], bytes],
) -> None:
    bench = Bench.make(folder, 100, tiny_network())
    (path,) = (folder / "reference").glob("*/*.h5")
    data, broken, seed = path.read_bytes(), folder / "broken.h5", chance.random()
    with open_features(path) as file:
        header = {"attrs": file.attrs, "quarantine": file.quarantine, "classes": file.classes}

    def attempt(number: int, found: Outcome) -> None:
        broken.write_bytes(damage(data, random.Random(f"{seed} {number}")))
        read_damaged(broken, bench.content, header, found)

    in_children(outcome, rounds, folder, attempt)


def flip(data: bytes, chance: random.Random) -> bytes:
    flipped = bytearray(data)
    flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def cut_or_zero(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    if chance.random() < 0.4:
        return data[:start]
    length = 512 * chance.randrange(1, 64) if chance.random() < 0.5 else chance.randrange(1, 4096)
    start = start // 512 * 512 if chance.random() < 0.5 else start
    length = min(length, len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def flip_part(outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path) -> None:
    bench = Bench.make(folder, 12, slow_network())
    features, seed = folder / "features", chance.random()
    while not list(features.glob("*/.*.parts/*.safetensors")):
        kill_after(start(lambda: bench.run(features)), bench.seconds * 0.8)
    path = max(features.glob("*/.*.parts/*.safetensors"), key=lambda path: path.stat().st_size)
    data, whole, broken = path.read_bytes(), read_shard(path), folder / path.name
    assert whole is not None

    def attempt(number: int, found: Outcome) -> None:
        here = random.Random(f"{seed} {number}")
        broken.write_bytes(flip(data, here) if here.random() < 0.8 else cut_or_zero(data, here))
        part = read_shard(broken)
        found.note("noticed" if part is None else "harmless")
        if part is not None:
            same = all(np.array_equal(getattr(part, name), array) for name, array in vars(whole).items())
            found.wrong += not same

    in_children(outcome, rounds, folder, attempt)


def seeds_of_images() -> list[bytes]:
    chance = np.random.default_rng(0)
    pixels = np.clip(chance.normal(128, 40, (40, 48, 1)) + chance.integers(0, 9, (40, 48, 3)), 0, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}), ("PNG", "RGB", {}),
        ("PNG", "P", {}), ("PNG", "I;16", {}), ("PNG", "RGBA", {}), ("PNG", "1", {}), ("GIF", "P", {}),
        ("BMP", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "F", {}),
        ("TIFF", "RGB", {"compression": "jpeg"}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}),
        ("PPM", "RGB", {}), ("TIFF", "1", {"compression": "group4"}),
    ]  # fmt: skip
    seeds = []
    for kind, mode, options in kinds:
        stream = io.BytesIO()
        image.convert("L" if mode == "I;16" else mode).convert(mode).save(stream, kind, **options)
        seeds.append(stream.getvalue())
    return seeds


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(changed)) if chance.random() < 0.6 else chance.randrange(min(64, len(changed)))
        match chance.randrange(7):
            case 0 | 1:
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                changed[at] = chance.choice((0, 1, 127, 128, 254, 255))
            case 3:
                del changed[at : at + chance.choice((1, 2, 8, 64))]
            case 4:
                changed[at:at] = chance.randbytes(chance.choice((1, 2, 8)))
            case 5:
                changed[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
            case 6:
                changed[at:] = other[at:] if chance.random() < 0.5 else b""
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def seeds_of(ending: str) -> list[bytes]:
    """Return files of a format that a package of its own decodes, each with what others lack."""
    from test_formats import EVERY, GREY, READ, encode

    match ending:
        case "avif":
            return [EVERY["avif"], encode(GREY, "AVIF"), encode(np.dstack([GREY] * 4), "AVIF")]
        case "heic":
            return [data for name, (data, *_) in READ.items() if name.startswith("HEIC")]
    return [data for name, (data, *_) in READ.items() if not name.startswith("HEIC")]


def mutated_images(
    outcome: Outcome,
    rounds: Iterator[int],
    chance: random.Random,
    folder: Path,
    make_seeds: Callable[[], list[bytes]] = seeds_of_images,
) -> None:
    seeds, seed, preprocess = make_seeds(), chance.random(), Preprocess(SIDE, SIDE)

    def attempt(number: int, found: Outcome) -> None:
        here = random.Random(f"{seed} {number}")
        data = mutate(seeds[number % len(seeds)], here.choice(seeds), here)
        begun = time.perf_counter()
        try:
            pixels, _ = prepare(data, preprocess)
            found.note("decoded")
            found.wrong += pixels.shape != (3, SIDE, SIDE) or pixels.dtype != np.uint8
        except BadImageError as error:
            found.note("refused")
            found.wrong += not (error.code and str(error))
        found.note("took over 5 s", time.perf_counter() - begun > 5)

    in_children(outcome, rounds, folder, attempt, batch=1000)


def processes_on_one_key(
    outcome: Outcome, rounds: Iterator[int], chance: random.Random, folder: Path, processes: int = 3
) -> None:
    bench = Bench.make(folder, 12, tiny_network())
    features, log, real = folder / "features", folder / "published", tlcache.extraction.target.publish

    def logged(plan: Any) -> None:
        real(plan)
        with log.open("a") as stream:
            stream.write("x")

    tlcache.extraction.target.publish = logged
    for _ in rounds:
        log.write_text("")
        children = [start(lambda: bench.run(features)) for _ in range(processes)]
        victims = [child for child in children[1:] if chance.random() < 0.4]
        time.sleep(chance.uniform(0, bench.seconds))
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        statuses = {child: finish(child) for child in children}
        outcome.tried += 1
        outcome.note("killed", sum(status == -signal.SIGKILL for status in statuses.values()))
        outcome.wrong += any(status != 0 for child, status in statuses.items() if child not in victims)
        # a process killed between renaming the file and noting it makes the log one short, never one too long
        outcome.wrong += len(log.read_text()) > 1
        bench.check_file(features, outcome)
        outcome.lost += not list(features.glob("*/*.h5"))
        shutil.rmtree(features)
    tlcache.extraction.target.publish = real


STAGES: dict[str, Callable[[Outcome, Iterator[int], random.Random, Path], None]] = {
    "kill while embedding": kill_while_embedding,
    "kill while reading an archive": partial(
        kill_while_embedding, place=lambda bench: nullcontext(str(archived(bench.photos, "zip")))
    ),
    "kill while reading a store": partial(kill_while_embedding, place=in_store),
    "store that fails": failing_store,
    "cut archive": cut_archive,
    "kill while publishing": kill_while_publishing,
    "full disk at every write": full_disk,
    "file size limit": size_limit,
    "bit flip in a feature file": flip_feature_file,
    "cut or zeroed feature file": cut_feature_file,
    "bit flip in a part": flip_part,
    "mutated image": mutated_images,
    **{
        f"mutated {kind}": partial(mutated_images, make_seeds=partial(seeds_of, kind.lower()))
        for kind in ("AVIF", "DICOM", "HEIC")
    },
    "processes on one key, with kills": processes_on_one_key,
}


def preload() -> None:
    """Compile the full disk and start this process again with it, where there is a compiler."""
    if "FAULTS" in os.environ or not (compiler := shutil.which("cc") or shutil.which("gcc")):
        return
    library = Path(tempfile.mkdtemp()) / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    environment = {**os.environ, "FAULTS": str(library), "LD_PRELOAD": str(library)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the rounds of the tests")
    parser.add_argument("--only", help="stages whose name contains this")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    preload()
    import torch  # noqa: F401  before the first fork

    console, outcomes = Console(), []
    console.print(f"seed {options.seed}")
    for name, stage in STAGES.items():
        if options.only and options.only not in name:
            continue
        quick, long = SIZES[name]
        outcome, begun = Outcome(name), time.perf_counter()
        count = quick if options.quick else long
        rounds = track(range(count), name, console=Console(stderr=True), disable=not sys.stderr.isatty())
        with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as quiet:
            errors, _ = os.dup(2), os.dup2(quiet.fileno(), 2)  # the errors of children are expected
            extra = {"processes": 3 if options.quick else 8} if stage is processes_on_one_key else {}
            try:
                stage(outcome, iter(rounds), random.Random(f"{options.seed} {name}"), Path(folder), **extra)
            finally:
                os.dup2(errors, 2)
        outcome.seconds = time.perf_counter() - begun
        outcomes.append(outcome)
        if sys.stderr.isatty() or not sys.stdout.isatty():
            sys.stderr.write(json.dumps(vars(outcome)) + "\n")
    console.print(table(outcomes))
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "stages": [vars(one) for one in outcomes]}, indent=1))
    sys.exit(any(one.lost or one.unreadable or one.wrong or one.died for one in outcomes))


def table(outcomes: list[Outcome]) -> Table:
    shown = Table("Fault", box=None, pad_edge=False)
    for column in ("Tried", "Lost", "Unreadable", "Wrong", "Died", "s"):
        shown.add_column(column, justify="right")
    shown.add_column("Of these")
    for one in outcomes:
        counts = [f"{count:,}" for count in (one.tried, one.lost, one.unreadable, one.wrong, one.died)]
        notes = ", ".join(f"{count:,} {what}" for what, count in itertools.islice(one.notes.items(), 6) if count)
        shown.add_row(one.fault, *counts, f"{one.seconds:.0f}", notes)
    return shown


if __name__ == "__main__":
    main()
